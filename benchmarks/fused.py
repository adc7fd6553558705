"""Whole detectors with fused operators against standard ones, in ONNX Runtime on the CPU.

Each case is one detector with a number of proposals, in three forms that take turns on the same
pictures: `standard` (a file of standard operators), `bodies` (a file of fused operators where our
library is not), `kernels` (the same file with it). Weights are random except nano's, which leaves
the last suppression little to do; where a case says `score_threshold` 0, every score counts.

Each case runs in a process of its own and its row is merged into benchmarks/results/fused.json at
once; cases that are there already are skipped.

    make native
    python benchmarks/fused.py                                        # what is missing
    python benchmarks/fused.py --presets nano --proposals 1 128       # these, again
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from cn2.export.describe import open_checkpoint
from cn2.export.onnx_file import export_onnx
from cn2.runtime.bench import Contestant, Plan, measure, open_contestant
from cn2.runtime.detector import Detector
from cn2.runtime.reports import write_json
from cn2.trainer.config import Config
from cn2.trainer.model_config import CascadeRCNNConfig
from cn2.trainer.presets import PRESETS
from models import RESULTS, ROOT, find_pictures, is_trained, machine, make_checkpoint

PICTURES = 20
FORMS = {  # file, and whether the kernels run
    "standard": ("standard", False),
    "bodies": ("fused", False),
    "kernels": ("fused", True),
}
# Before anything was measured: time of the graph with kernels by that of the standard form.
PREDICTED = {
    "nano, 128 proposals": 0.85,
    "nano, 1000 proposals": 0.6,
    "r50-fpn, 256 proposals": 0.97,
    "r50-fpn, 1000 proposals": 0.92,
    "r50-fpn-lvis, every score": 0.85,
    "one stage": 1.0,
    "bodies, all": 1.0,
}
Row = dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class Case:
    """A detector that is measured in all forms."""

    preset: str
    proposals: int | None = None
    """First-stage boxes per picture; None: the preset's, or no second stage."""
    score_threshold: float | None = None
    """None: the preset's."""

    @property
    def key(self) -> str:
        """Its name in the result."""
        words = [self.preset]
        words += [] if self.proposals is None else [f"{self.proposals} proposals"]
        words += [] if self.score_threshold is None else [f"scores > {self.score_threshold:g}"]
        return ", ".join(words)


COUNTS = (1, 128, 256, 1000)
CASES = (
    *(Case(preset="nano", proposals=count) for count in COUNTS),
    *(Case(preset="r50-fpn", proposals=count) for count in COUNTS),
    Case(preset="dla34-bifpn-p3"),
    Case(preset="dla34-bifpn-p5"),
    Case(preset="r50-fpn-lvis"),
    Case(preset="r50-fpn-lvis", score_threshold=0.0),
    Case(preset="centernet-r50-fpn"),
)


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure what is missing; 1 if a case failed."""
    options = parse(arguments)
    if options.row is not None:
        write_json(str(options.row), measure_case(Case(**json.loads(options.case)), options))
        return 0
    found = json.loads(options.out.read_text("utf-8"))["cases"] if options.out.is_file() else {}
    wanted = chosen(options) or [case for case in CASES if case.key not in found]
    failed = []
    for case in wanted:
        row = measure_apart(case, options)
        if row is None:
            failed.append(case.key)
            continue
        found[case.key] = row
        write_json(str(options.out), document(found))
    print(f"{options.out}: {len(found)} cases")
    if failed:
        print(f"failed: {'; '.join(failed)}", file=sys.stderr)
    return int(bool(failed))


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--presets", nargs="+", choices=list(PRESETS), help="default: what lacks")
    parser.add_argument("--proposals", nargs="+", type=int, help="with --presets: these counts")
    parser.add_argument("--images", type=Path, help="default: COCO pictures of $CN2_SHARED")
    parser.add_argument("--threads", type=int, help="default: one per core")
    parser.add_argument("--runs", type=int, help="default: 100, 20 of calls above a second")
    parser.add_argument("--warmup", type=int, help="default: 20, 3 of calls above a second")
    parser.add_argument("--out", type=Path, default=RESULTS / "fused.json")
    parser.add_argument("--row", type=Path, help="measure one case here, write its row there")
    parser.add_argument("--case", help="that case, JSON")
    return parser.parse_args(arguments)


def chosen(options: argparse.Namespace) -> list[Case]:
    """The cases that the command line names."""
    if options.presets is None:
        return []
    if options.proposals is None:
        return [case for case in CASES if case.preset in options.presets] or [
            Case(preset=preset) for preset in options.presets
        ]
    return [
        Case(preset=preset, proposals=count)
        for preset in options.presets
        for count in options.proposals
    ]


def document(found: dict[str, Row]) -> dict[str, Any]:
    """The result file, cases in their order above."""
    order = [case.key for case in CASES]
    order = [*(key for key in order if key in found), *sorted(found.keys() - set(order))]
    return {
        "benchmark": "fused",
        "command": "python benchmarks/fused.py",
        "ratio": "median time inside the backend, by that of the standard form; the forms took "
        "turns",
        "predicted": PREDICTED,
        "cases": {key: found[key] for key in order},
    }


def measure_apart(case: Case, options: argparse.Namespace) -> Row | None:
    """The row of a case from a process of its own; None if that failed."""
    with tempfile.TemporaryDirectory() as folder:
        answer = Path(folder) / "row.json"
        command = [sys.executable, __file__, "--row", str(answer)]
        command += ["--case", json.dumps(vars(case))]
        for name in ("images", "threads", "runs", "warmup"):
            value = getattr(options, name)
            command += [] if value is None else [f"--{name}", str(value)]
        print(case.key, flush=True)
        if subprocess.run(command, cwd=ROOT).returncode != 0 or not answer.is_file():
            return None
        row: Row = json.loads(answer.read_text("utf-8"))
    print(f"  kernels {row['ratio']['kernels']:.3f}, bodies {row['ratio']['bodies']:.3f}")
    return row


def measure_case(case: Case, options: argparse.Namespace) -> Row:
    """All forms of one detector in turns."""
    before = machine()
    pictures = find_pictures(options.images, PICTURES)
    with tempfile.TemporaryDirectory() as folder:
        files = write_files(case, Path(folder))
        plan = Plan(pictures=pictures, runs=options.runs, warmup=options.warmup)
        contestants = [open_form(form, files, options.threads) for form in FORMS]
        rows = measure(contestants, plan)
        manifest = contestants[0].detector.manifest
    times = {row["model"]: row["latency_ms"]["inference"] for row in rows}
    return {
        "preset": case.preset,
        "classes": len(manifest.class_names),
        "proposals": manifest.proposals,
        "score_threshold": manifest.score_threshold,
        "weights": "trained" if is_trained(case.preset) else "random",
        "canvases": rows[0]["canvases"],
        "graph_ms": times,
        "whole_ms": {row["model"]: row["latency_ms"]["whole"] for row in rows},
        "ratio": {
            form: round(time["median"] / times["standard"]["median"], 4)
            for form, time in times.items()
        },
        "runs": rows[0]["runs"],
        "threads": rows[0]["threads"],
        "machine": before,
        "versions": rows[0]["versions"],
    }


def write_files(case: Case, folder: Path) -> dict[str, Path]:
    """The case's detector in each form of operators."""
    model, config, origin = open_checkpoint(make_checkpoint(case.preset, folder))
    config = with_threshold(config, case.score_threshold)
    paths = {ops: folder / f"{ops}.onnx" for ops in ("standard", "fused")}
    export_onnx(model, config, paths["standard"], proposals=case.proposals, origin=origin)
    export_onnx(model, config, paths["fused"], proposals=case.proposals, origin=origin, ops="fused")
    return paths


def with_threshold(config: Config, score_threshold: float | None) -> Config:
    """The config of a two-stage detector with another score threshold; None: as it is."""
    second = config.model.second_stage
    if score_threshold is None or not isinstance(second, CascadeRCNNConfig):
        return config
    second = replace(second, score_threshold=score_threshold)
    return replace(config, model=replace(config.model, second_stage=second))


def open_form(form: str, files: dict[str, Path], threads: int | None) -> Contestant:
    """The detector in a form; an error where the kernels are not here."""
    ops, kernels = FORMS[form]

    def opened() -> Detector:
        extra = {} if threads is None else {"threads": threads}
        return Detector.open(files[ops], device="cpu", fused=kernels, **extra)

    return open_contestant(form, opened, threads)


if __name__ == "__main__":
    sys.exit(main())
