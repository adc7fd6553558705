"""Speed of the presets on a GPU: eager torch and ONNX Runtime CUDA, in turns, checked on the CPU.

What cannot run here is skipped, with the reason in the result: without a GPU that is everything.
Result: benchmarks/results/gpu.json.

    python benchmarks/gpu.py
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import Any

from cn2.export.agreement import Agreement, Thresholds, compare
from cn2.export.verify import run_file
from cn2.runtime.bench import Contestant, Plan, measure, open_contestant
from cn2.runtime.detector import Detector
from cn2.runtime.doctor import run_probe
from cn2.runtime.errors import Cn2Error
from cn2.runtime.pictures import open_picture
from cn2.runtime.preprocess import place_picture
from cn2.runtime.reports import write_json
from cn2.trainer.presets import PRESETS
from models import PAPER, RESULTS, TIMED_PRESETS, ModelFiles, find_pictures, machine, make_files

BACKENDS = ("torch", "onnxruntime")
BATCHES = (1, 8)
PICTURES = 20
CHECKED = 4  # pictures whose detections are compared with the CPU's


def main(arguments: Sequence[str] | None = None) -> None:
    """Try the backends, measure what works, check it, write."""
    options = parse(arguments)
    document: dict[str, Any] = {
        "benchmark": "gpu",
        "command": "python benchmarks/gpu.py",
        "machine": machine(),
        "tf32": False,
        "paper": PAPER,
        "rows": [],
        "checks": [],
        "skipped": [],
    }
    working = find_backends(options.device, document["skipped"])
    for preset in options.presets if working else ():
        print(f"{preset}: {', '.join(working)} on {options.device}", flush=True)
        if not options.dry_run:
            run_preset(preset, working, options, document)
    for skip in document["skipped"]:
        print(f"skipped: {skip['what']}: {skip['reason']}")
    if options.dry_run:
        return
    write_json(str(options.out), document)
    print(f"{options.out}: {len(document['rows'])} rows, {len(document['skipped'])} skipped")


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--presets", nargs="+", choices=list(PRESETS), default=list(TIMED_PRESETS))
    parser.add_argument("--device", default="cuda", help="cuda; cpu tries the script itself")
    parser.add_argument("--images", type=Path, help="default: COCO pictures of $CN2_SHARED")
    parser.add_argument("--batches", nargs="+", type=int, default=list(BATCHES))
    parser.add_argument("--runs", type=int, help="default: 100, 20 of calls above a second")
    parser.add_argument("--warmup", type=int, help="default: 20, 3 of calls above a second")
    parser.add_argument("--out", type=Path, default=RESULTS / "gpu.json")
    parser.add_argument(
        "--dry-run", action="store_true", help="say what would run and what not; write nothing"
    )
    return parser.parse_args(arguments)


def find_backends(device: str, skipped: list[dict[str, str]]) -> list[str]:
    """The backends that work on a device; the others are added to `skipped`."""
    working = []
    for backend in BACKENDS:
        answer = run_probe(backend, device)
        if answer["works"]:
            working.append(backend)
        else:
            reason = f"{answer['reason']}; {answer['fix']}"
            skipped.append({"what": f"{backend} on {device}, every preset", "reason": reason})
    return working


def run_preset(
    preset: str, backends: Sequence[str], options: argparse.Namespace, document: dict[str, Any]
) -> None:
    """Rows and checks of one preset, or the reason why there are none."""
    pictures = find_pictures(options.images, PICTURES)
    plan = Plan(
        pictures=pictures, batches=options.batches, runs=options.runs, warmup=options.warmup
    )
    try:
        with tempfile.TemporaryDirectory() as folder, full_precision():
            files = make_files(preset, Path(folder))
            with open_all(files, backends, options.device, max(plan.batches)) as contestants:
                rows = measure(contestants, plan, tell=print)
                checks = [check(files, one, pictures[:CHECKED]) for one in contestants]
    except (Cn2Error, RuntimeError) as error:  # RuntimeError: torch's, out of memory among them
        reason = " ".join(str(error).split())
        document["skipped"].append({"what": preset, "reason": reason})
        return
    extra = {"weights": files.weights, "parameters": files.parameters}
    document["rows"] += [{**row, **extra, "paper": PAPER["presets"].get(preset)} for row in rows]
    document["checks"] += checks


@contextmanager
def full_precision() -> Iterator[None]:
    """Keep torch from rounding the factors of products to 10 bits on a GPU (TF32)."""
    import torch

    before = torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32
    torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = False
    try:
        yield
    finally:
        torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32 = before


@contextmanager
def open_all(
    files: ModelFiles, backends: Sequence[str], device: str, max_batch: int
) -> Iterator[list[Contestant]]:
    """One contestant per backend; closed at the end."""
    paths = {"torch": files.checkpoint, "onnxruntime": files.onnx}
    with ExitStack() as stack:
        contestants = []
        for backend in backends:
            opening = partial(Detector.open, paths[backend], backend, device, max_batch=max_batch)
            one = open_contestant(f"{files.preset}, {backend}", opening)
            stack.enter_context(one.detector)
            contestants.append(one)
        yield contestants


def check(files: ModelFiles, one: Contestant, pictures: Sequence[Path]) -> dict[str, Any]:
    """Compare a contestant's detections with those of ONNX Runtime on the CPU, picture by picture.

    Random weights score everything low: there the lowest threshold is taken, so that detections
    exist.
    """
    manifest = one.detector.manifest
    trained = files.weights == "trained"
    score = manifest.score_threshold if trained else manifest.lowest_score_threshold
    iou = PRESETS[files.preset]().model.limits.nms_iou
    thresholds = Thresholds(score=score, nms_iou=iou, detections=manifest.detections)
    total = Agreement()
    with Detector.open(files.onnx, "onnxruntime", "cpu") as reference:
        for path in pictures:
            placed = place_picture(open_picture(path), manifest.canvas)
            expected = run_file(reference.backend, placed, score)
            found = run_file(one.detector.backend, placed, score)
            total.add(compare(expected, found, thresholds))
    return {
        "model": one.name,
        "reference": "onnxruntime on cpu",
        "score_threshold": score,
        "pictures": total.pictures,
        "detections": total.detections,
        "largest_box_px": total.box_px,
        "largest_score": total.score,
        "excused": dict(total.excused),
        "unexplained": total.unexplained,
    }


if __name__ == "__main__":
    main()
