"""The GPU suite: kernels and detectors on the GPU that is here, against the CPU and torch.

One command, at most eight minutes, no network. Each step runs in a process of its own, so one that
crashes or hangs costs itself alone; what could not be done is listed with the reason, and each
target of docs/gpu.md is reached, not reached or not measured. Result: benchmarks/results/gpu.json.

    python benchmarks/gpu.py
    python benchmarks/gpu.py --dry-run      # no GPU: every step but execution
"""

from __future__ import annotations

import argparse
import math
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from cn2.runtime.doctor import run_probe
from cn2.runtime.machine import cpu_cores, package_version, versions
from cn2.runtime.reports import write_json
from gpu_job import Job, Row, skip
from gpu_plan import LIMITS_S, Stage, make_plan
from gpu_steps import run_plan
from gpu_verdicts import find_verdicts
from models import RESULTS, ROOT, machine

# The targets' first, then the one whose weights are trained: it says which ways are right.
PRESETS = ("dla34-bifpn-p3", "nano", "r50-fpn", "dla34-bifpn-p5")
LIMIT_S, DRY_LIMIT_S = 480, 3600
COLLECTING_S = 5  # at the end
PACKAGES = ("numpy", "torch", "torchvision", "onnxruntime", "onnxruntime-gpu", "cuda-bindings")
TENSORRTS = ("tensorrt", "tensorrt-cu12", "tensorrt-cu13", "tensorrt-rtx-cu13")
QUERY = "name,driver_version,memory.total,clocks.max.sm,power.limit"


def main(arguments: Sequence[str] | None = None) -> None:
    """Plan, run, judge, write."""
    begin = time.monotonic()
    options = parse(arguments)
    document = new_document(options.dry_run)
    needs_gpu = options.device == "cuda" and not options.dry_run
    reason = why_no_gpu() if needs_gpu else None
    with tempfile.TemporaryDirectory() as temporary:
        folder = options.folder or Path(temporary)
        like = Job(
            step="",
            preset="",
            folder=folder.resolve(),
            batches=options.batches,
            runs=options.runs,
            images=options.images and options.images.resolve(),
            device=options.device,
            dry_run=options.dry_run,
        )
        plan = make_plan(options.presets, options.steps, options.workers, like)
        if reason is None:
            deadline = begin + options.limit - COLLECTING_S
            for row in run_plan(plan, options.workers, deadline, say):
                keep(row, document)
        else:
            document["skipped"] = skip_all(plan, reason)
    document["verdicts"] = find_verdicts(document["rows"], document["kernels"])
    document["seconds"] = round(time.monotonic() - begin, 1)
    report(document)
    write_json(str(options.out), document)
    say(f"{options.out}: {len(document['rows'])} rows, {len(document['skipped'])} skipped")
    if document["failures"]:
        sys.exit(f"{len(document['failures'])} failures: {document['failures']}")


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--presets", nargs="+", default=list(PRESETS))
    parser.add_argument("--steps", nargs="+", choices=list(LIMITS_S), default=list(LIMITS_S))
    parser.add_argument("--batches", nargs="+", type=int, default=[1, 16])
    parser.add_argument("--runs", type=int, default=100, help="timed calls of a row, at most")
    parser.add_argument("--images", type=Path, help="default: COCO pictures of $CN2_SHARED")
    parser.add_argument("--limit", type=float, help="seconds for everything; default: 480")
    parser.add_argument("--workers", type=int, default=max(2, cpu_cores() - 2))
    parser.add_argument("--folder", type=Path, help="keep models and engines here")
    parser.add_argument("--out", type=Path, help="default: benchmarks/results/gpu.json")
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    parser.add_argument("--dry-run", action="store_true", help="every step but execution")
    options = parser.parse_args(arguments)
    dry_out = ROOT / "build" / "gpu_dry_run.json"  # no result: git ignores it
    options.out = options.out or (dry_out if options.dry_run else RESULTS / "gpu.json")
    options.limit = options.limit or (DRY_LIMIT_S if options.dry_run else LIMIT_S)
    return options


def new_document(dry_run: bool) -> dict[str, Any]:
    """The result before anything was done."""
    return {
        "benchmark": "gpu",
        "command": "python benchmarks/gpu.py" + (" --dry-run" if dry_run else ""),
        "dry_run": dry_run,
        "machine": machine(),
        "gpu": gpu_facts(),
        "versions": versions(*PACKAGES, *(one for one in TENSORRTS if package_version(one))),
        "verdicts": [],
        "rows": [],
        "kernels": [],
        "files": [],
        "steps": [],
        "failures": [],
        "skipped": [],
    }


def gpu_facts() -> dict[str, str] | None:
    """What nvidia-smi says of the first GPU, None without one."""
    command = ["nvidia-smi", f"--query-gpu={QUERY}", "--format=csv,noheader", "-i", "0"]
    try:
        answer = subprocess.run(command, capture_output=True, text=True, timeout=20, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return None
    values = [value.strip() for value in answer.stdout.strip().split(",")]
    return None if answer.returncode else dict(zip(QUERY.split(","), values, strict=False))


def why_no_gpu() -> str | None:
    """Why torch, which holds the suite's arrays, cannot use a GPU here; None: it can."""
    answer = run_probe("torch", "cuda")
    return None if answer["works"] else f"{answer['reason']}; {answer['fix']}"


def skip_all(plan: Sequence[Stage], reason: str) -> list[dict[str, Any]]:
    """A row for each step that was not begun."""
    jobs = [job for stage in plan for job in stage.jobs]
    return [{k: v for k, v in skip(job.name, reason).items() if k != "kind"} for job in jobs]


def keep(row: Row, document: dict[str, Any]) -> None:
    """Put a row of a step where it belongs."""
    row = finite(row)
    kind = row.pop("kind")
    if kind == "card":
        document["copy_gb_per_s"] = row["copy_gb_per_s"]
        return
    places = {
        "row": "rows",
        "kernel": "kernels",
        "file": "files",
        "step": "steps",
        "failure": "failures",
        "skip": "skipped",
    }
    document[places[kind]].append(row)


def finite(value: Any) -> Any:
    """The same without NaN and infinity, which JSON has no word for: None."""
    if isinstance(value, dict):
        return {key: finite(one) for key, one in value.items()}
    if isinstance(value, list):
        return [finite(one) for one in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def report(document: dict[str, Any]) -> None:
    """What came out, in lines."""
    for row in document["rows"]:
        if row["ms"]:
            check = row["check"] or {}
            share = check.get("matched")
            found = "" if share is None else f", {share:.2%} matched"
            say(
                f"{row['preset']}, {row['implementation']}, {row['precision']}, batch "
                f"{row['batch']}: {row['ms']['median']:.3f} ms, {row['images_per_s']:.0f} "
                f"images/s{found}"
            )
    for one in document["skipped"]:
        say(f"skipped: {one['what']}: {one['reason']}")
    for one in document["verdicts"]:
        value = "" if one["value"] is None else f" ({one['value']:g}; {one['by']})"
        say(f"{one['verdict']}: {one['target']}{value}")


def say(line: str) -> None:
    """A line of progress, at once."""
    print(line, flush=True)


if __name__ == "__main__":
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    main()
