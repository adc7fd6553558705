"""The fused operators one by one, against their standard forms, in ONNX Runtime on the CPU.

Each operator is a model of its own; all its forms take turns on the same inputs, so that what slows
the machine down slows all of them. First their results are compared. Forms of PyramidRoIAlign:
"standard" is the exporter's (each level pools its own boxes: NonZero, gather, RoiAlign, scatter),
the others pool all boxes on all levels and select, or sum with foreign boxes moved off the canvas.
With one thread the process's CPU time is taken: on a machine with other work, a call that is longer
than a time slice would look slower than it is. With more it is the time on the clock.
Result: benchmarks/results/operators.json.

    python benchmarks/operators.py
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from cn2.plugins import library_path
from cn2.runtime.machine import cpu_cores, versions
from cn2.runtime.reports import write_json
from models import RESULTS, machine
from operator_forms import Run, detection_forms, pooling_forms, proposal_forms

Row = dict[str, Any]
Clock = Callable[[], float]
RUNS, WARMUP = 100, 20
SLOW_MS, SLOW_RUNS, SLOW_WARMUP = 100.0, 20, 2  # above it, of one call, fewer are timed
TOLERANCE = 1e-4  # of pooled features; all else is equal
NEEDED = (  # operator, classes, proposals from, ratio; one proposal is a call of ONNX Runtime alone
    ("PyramidRoIAlign", None, 1, 2.0),
    ("DetectionNMS", 1203, 128, 5.0),
)
COUNTS = (1, 128, 256, 1000)
# Classes, detections, and the share of scores above the threshold: trained detectors are sure of a
# few classes per box; the threshold of LVIS, 0.02, lets more pass.
CLASSES = ((1, 100, 0.5), (80, 100, 0.03), (1203, 300, 0.03))


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, write, and 1 if an operator is slower than needed."""
    options = parse(arguments)
    if library_path("cn2_ort_ops") is None:
        print("operators: error: expected libcn2_ort_ops; run make native", file=sys.stderr)
        return 2
    before, rows = machine(), []
    for threads in options.threads:
        for case, make in cases(threads):
            clock = time.process_time if threads == 1 else time.perf_counter
            row = {**case, "threads": threads, **race(make(), options.runs, clock)}
            print(describe(row), flush=True)
            rows.append(row)
            write_json(str(options.out), document(before, rows))
    print(f"{options.out}: {len(rows)} rows")
    return 0 if all(found["met"] for found in verdicts(rows)) else 1


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    default = sorted({1, cpu_cores()})
    parser.add_argument(
        "--threads", type=int, nargs="+", default=default, help="1 and one per core"
    )
    parser.add_argument("--runs", type=int, help="default: 100, 20 of slow calls")
    parser.add_argument("--out", type=Path, default=RESULTS / "operators.json")
    return parser.parse_args(arguments)


def cases(threads: int) -> list[tuple[Row, Callable[[], dict[str, Run]]]]:
    """What each row is of, and what opens its forms."""
    found: list[tuple[Row, Callable[[], dict[str, Run]]]] = []
    for count in COUNTS:
        sizes = {"proposals": count, "classes": None}
        found.append(
            ({"operator": "PyramidRoIAlign", **sizes}, partial(pooling_forms, count, threads))
        )
        found.append(
            ({"operator": "ProposalNMS", **sizes}, partial(proposal_forms, count, threads))
        )
        for classes, *rest in CLASSES:
            case = {"operator": "DetectionNMS", "proposals": count, "classes": classes}
            make = partial(detection_forms, count, classes, *rest, threads)
            found.append(({**case, "candidates": rest[1]}, make))
    return found


def race(forms: Mapping[str, Run], runs: int | None, clock: Clock = time.perf_counter) -> Row:
    """The times of all forms in turns; a ratio is that of a form to the fused one.

    Raises:
        ValueError: the forms give different results.
    """
    compare(forms)
    slow = max(timed(run, clock) for run in forms.values()) > SLOW_MS
    count = runs or (SLOW_RUNS if slow else RUNS)
    times: dict[str, list[float]] = {name: [] for name in forms}
    for turn in range(count + (SLOW_WARMUP if slow else WARMUP)):
        for name in sorted(forms, reverse=bool(turn % 2)):
            times[name].append(timed(forms[name], clock))
    latency = {name: summary(values[-count:]) for name, values in times.items()}
    fused = latency["fused"]["median"]
    ratio = {n: round(v["median"] / fused, 2) for n, v in latency.items() if n != "fused"}
    return {"runs": count, "latency_ms": latency, "ratio": ratio}


def compare(forms: Mapping[str, Run]) -> None:
    """Raise ValueError unless all forms give the same."""
    expected = forms["standard"]()
    for name, run in forms.items():
        for ours, theirs in zip(run(), expected, strict=True):
            worst = float(np.abs(ours.astype(np.float64) - theirs).max(initial=0))
            if worst > (TOLERANCE if ours.ndim == 5 else 0):
                raise ValueError(f"{name}: expected what the standard form gives, is {worst} off")


def timed(run: Run, clock: Clock) -> float:
    """One call, ms."""
    start = clock()
    run()
    return (clock() - start) * 1e3


def summary(values_ms: Sequence[float]) -> dict[str, float]:
    """Median, 90th and 99th percentile."""
    percentiles = np.percentile(values_ms, [50, 90, 99])
    return {
        k: round(float(v), 4) for k, v in zip(("median", "p90", "p99"), percentiles, strict=True)
    }


def verdicts(rows: Sequence[Row]) -> list[Row]:
    """For each ratio that is needed: the smallest, against the best standard form."""
    found = []
    for operator, classes, proposals, needed in NEEDED:
        own = [
            min(row["ratio"].values())
            for row in rows
            if (row["operator"], row["classes"]) == (operator, classes)
            and row["proposals"] >= proposals
        ]
        if own:
            what = f"`{operator}`" + (f" of {classes} classes" if classes else "")
            what += f", {proposals} proposals or more" if proposals > 1 else ""
            least = min(own)
            found.append({"what": what, "needed": needed, "least": least, "met": least >= needed})
    return found


def document(before: Row, rows: Sequence[Row]) -> Row:
    """The result file."""
    return {
        "benchmark": "operators",
        "command": "python benchmarks/operators.py",
        "machine": before,
        "versions": versions("onnxruntime", "torch"),
        "verdicts": verdicts(rows),
        "rows": list(rows),
    }


def describe(row: Row) -> str:
    """A line while it runs."""
    sizes = f"{row['proposals']} x {row['classes'] or '-'}, {row['threads']} threads"
    ratios = ", ".join(f"{name} {value}x" for name, value in row["ratio"].items())
    return f"{row['operator']} {sizes}: {row['latency_ms']['fused']['median']} ms; {ratios}"


if __name__ == "__main__":
    sys.exit(main())
