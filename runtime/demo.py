"""`cn2 demo`: the bundled checkpoint, exported to ONNX, on the bundled annotated pictures."""

from __future__ import annotations

import importlib
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .detect_command import (
    Result,
    Results,
    describe_model,
    results_document,
    write_picture,
)
from .errors import ModelFormatError
from .eval_command import find_pictures, require_evaluator, summary_table
from .reports import format_number, format_table, ready_folder, write_json
from .sources import Source, result_paths

if TYPE_CHECKING:
    from .detector import Detector, Timings

BUNDLED = Path(__file__).parent / "bundled"
CHECKPOINT = BUNDLED / "nano.safetensors"
PICTURES = BUNDLED / "pictures"
STAGES = ("decode", "preprocess", "inference", "postprocess")
REPEATS = 10  # timed runs of each picture; the table shows the median


@dataclass(frozen=True, kw_only=True)
class DemoReport:
    """What the demo did."""

    results: Results
    timings: list[Timings]
    """Of each result, medians over REPEATS runs."""
    metrics: dict[str, Any]
    """COCO metrics on the bundled annotations, at the model's own score threshold."""


def run_demo(
    out: Path,
    *,
    score_threshold: float,
    tell: Callable[[str], None],
) -> DemoReport:
    """Export, detect, draw, score; write everything below `out`.

    Args:
        out: gets the ONNX file, detections.json, and the pictures with boxes.
        score_threshold: of the pictures with boxes and detections.json.
        tell: takes a line about each step.
    Raises:
        OutputError: `out` cannot be written.
        ModelFormatError: the checkpoint is not there.
    """
    from .detector import Detector
    from .evaluation import coco_metrics, load_annotations

    require_evaluator()
    ready_folder(out)
    model = out / f"{CHECKPOINT.stem}.onnx"
    tell(f"export of {CHECKPOINT.name}, the slow part")
    start = time.perf_counter()
    export_checkpoint(CHECKPOINT, model)
    tell(f"{model}: exported and verified in {time.perf_counter() - start:.1f} s")
    annotations = load_annotations(PICTURES / "annotations.json")
    paths = find_pictures(annotations["images"], PICTURES)
    with Detector.open(model) as detector:
        timings = time_pictures(detector, list(paths.values()))
        scored = [
            record for image, path in paths.items() for record in detector(path).to_coco(image)
        ]
        results = _search(detector, list(paths.values()), score_threshold, timings, out)
        for result in results.results:
            if result.drawn is not None:
                write_picture(result.drawn, result.found.draw(result.source.path))
        document = results_document(describe_model(detector, model), results)
    write_json(str(out / "detections.json"), document)
    tell(f"{out}: {len(paths)} pictures with boxes, detections.json")
    metrics = coco_metrics(annotations, scored)
    return DemoReport(results=results, timings=timings, metrics=metrics)


def export_checkpoint(checkpoint: Path, path: Path) -> None:
    """Do `cn2 export CHECKPOINT -o PATH`, found by name: the runtime itself needs no torch.

    Raises:
        ModelFormatError: the checkpoint is not there.
    """
    if not checkpoint.is_file():
        raise ModelFormatError(
            f"{checkpoint}: the bundled checkpoint is missing; install cn2 again, or train one "
            f"with cn2 train"
        )
    importlib.import_module("cn2.export.commands").export_command(checkpoint, path)


def time_pictures(detector: Detector, paths: Sequence[Path]) -> list[Timings]:
    """The median time of each stage, picture by picture, file to detections."""
    import statistics

    from .detector import Timings

    detector.warm_up()
    runs: list[list[Timings]] = [[] for _ in paths]
    for _ in range(REPEATS + 1):  # the first of each size allocates
        for path, timings in zip(paths, runs, strict=True):
            timings.append(detector.detect_timed([path])[1])
    return [
        Timings(
            **{
                f"{stage}_ms": statistics.median(getattr(run, f"{stage}_ms") for run in timings[1:])
                for stage in STAGES
            }
        )
        for timings in runs
    ]


def _search(
    detector: Detector,
    paths: Sequence[Path],
    score_threshold: float,
    timings: Sequence[Timings],
    out: Path,
) -> Results:
    sources = [Source(path, Path(path.name)) for path in paths]
    return Results(
        results=[
            Result(
                source=source,
                found=detector(source.path, score_threshold),
                duration_ms=one.total_ms,
                drawn=target,
            )
            for source, one, target in zip(
                sources, timings, result_paths(sources, out), strict=True
            )
        ]
    )


def demo_text(report: DemoReport) -> str:
    """A row per picture, the throughput, the metrics."""
    rows = [
        [
            result.source.path.name,
            str(len(result.found)),
            *(format_number(getattr(timings, f"{stage}_ms")) for stage in STAGES),
            format_number(1e3 / timings.total_ms),
        ]
        for result, timings in zip(report.results.results, report.timings, strict=True)
    ]
    total_ms = [timings.total_ms for timings in report.timings]
    columns = ["file", "objects", "decode", "prep.", "infer", "post.", "images/s"]
    return "\n".join(
        [
            "",
            format_table(columns, rows),
            "",
            f"{1e3 * len(total_ms) / sum(total_ms):.1f} images/s, file to detections, one at a "
            f"time; stages in ms",
            "",
            f"COCO metrics on these {report.metrics['images']} pictures:",
            summary_table(report.metrics),
        ]
    )
