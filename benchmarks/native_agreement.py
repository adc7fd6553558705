"""Does libcn2 find what the Python backend finds? Every preset, as a file of fused operators.

For each preset one file with random weights (nano's are trained), on COCO pictures, landscape,
portrait and square: libcn2 against the backend onnxruntime, both with our kernels; libcn2 from two
threads, two calls each, against one call after the other; and the kernels against the bodies, which
round differently. All at the lowest score threshold that the file allows, for random weights find
little. Where they find nothing (Res2Net-101's grow too large), BatchNorm takes the statistics of
one picture, and all is compared again. Each preset runs in a process of its own and its row is
merged into benchmarks/results/native_agreement.json at once; presets that are there are skipped.

    make native
    python benchmarks/native_agreement.py                     # what is missing
    python benchmarks/native_agreement.py --presets r50-fpn   # this one, again
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from cn2.export.describe import open_checkpoint
from cn2.export.onnx_file import export_onnx
from cn2.runtime.detections import Detections
from cn2.runtime.detector import Detector
from cn2.runtime.machine import versions
from cn2.runtime.pictures import Pixels, open_picture
from cn2.runtime.reports import write_json
from cn2.trainer.detector import AnyDetector
from cn2.trainer.layers import FrozenBatchNorm2d
from cn2.trainer.presets import PRESETS
from models import RESULTS, ROOT, find_pictures, is_trained, machine, make_checkpoint

Row = dict[str, Any]


def main(arguments: Sequence[str] | None = None) -> int:
    """Compare what is missing; 1 if a preset failed, or libcn2 finds something else."""
    options = parse(arguments)
    if options.row is not None:
        write_json(str(options.row), compare_preset(options.presets[0]))
        return 0
    found = json.loads(options.out.read_text("utf-8"))["presets"] if options.out.is_file() else {}
    failed = []
    for preset in options.presets or [name for name in PRESETS if name not in found]:
        row = compare_apart(preset)
        if row is None:
            failed.append(preset)
            continue
        found[preset] = row
        write_json(str(options.out), document(found))
    print(f"{options.out}: {len(found)} of {len(PRESETS)} presets")
    if failed:
        print(f"failed: {', '.join(failed)}", file=sys.stderr)
    return int(bool(failed) or not all(is_same(row) for row in found.values()))


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--presets", nargs="+", choices=list(PRESETS), help="default: what lacks")
    parser.add_argument("--out", type=Path, default=RESULTS / "native_agreement.json")
    parser.add_argument("--row", type=Path, help="compare one preset here, write its row there")
    return parser.parse_args(arguments)


def document(found: dict[str, Row]) -> dict[str, Any]:
    """The result file, presets in their usual order."""
    return {
        "benchmark": "native_agreement",
        "command": "python benchmarks/native_agreement.py",
        "presets": {preset: found[preset] for preset in PRESETS if preset in found},
    }


def is_same(row: Row) -> bool:
    """Whether libcn2 found exactly what Python found, and threads what one thread found."""
    return row["detections"] > 0 and not any(
        row[side][key] for side in ("native", "threads") for key in ("other", "box_px", "score")
    )


def compare_apart(preset: str) -> Row | None:
    """The row of a preset from a process of its own; None if that failed."""
    with tempfile.TemporaryDirectory() as folder:
        answer = Path(folder) / "row.json"
        command = [sys.executable, __file__, "--presets", preset, "--row", str(answer)]
        if subprocess.run(command, cwd=ROOT).returncode != 0 or not answer.is_file():
            return None
        row: Row = json.loads(answer.read_text("utf-8"))
    print(f"{preset}: {row['detections']} detections, same: {is_same(row)}", flush=True)
    return row


def compare_preset(preset: str) -> Row:
    """Export it, and compare."""
    before, pictures = machine(), some_pictures()
    weights = "trained" if is_trained(preset) else "random"
    with tempfile.TemporaryDirectory() as folder:
        model, config, origin = open_checkpoint(make_checkpoint(preset, Path(folder)))
        path = Path(folder) / "model.onnx"
        export_onnx(model, config, path, origin=origin, ops="fused")
        found = compare_file(path, pictures)
        if found["detections"] == 0:
            settle(model, pictures[2])
            weights += ", BatchNorm of a picture"
            export_onnx(model, config, path, origin=origin, ops="fused")
            found = compare_file(path, pictures)
    return {
        "weights": weights,
        "pictures": [list(one.shape[:2]) for one in pictures],
        **found,
        "machine": before,
        "versions": versions("onnxruntime", "numpy", "torch"),
    }


@torch.inference_mode()
def settle(model: AnyDetector, picture: Pixels) -> None:
    """Give each BatchNorm the statistics of what a picture brings to it, first to last."""

    def normalise(norm: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        norm.running_mean.copy_(inputs[0].mean((0, 2, 3)))
        norm.running_var.copy_(inputs[0].var((0, 2, 3)))

    canvas = torch.from_numpy(picture[None, :256, :256])
    norms = [m for m in model.modules() if isinstance(m, nn.BatchNorm2d | FrozenBatchNorm2d)]
    hooks = [norm.register_forward_pre_hook(normalise) for norm in norms]
    model.features(canvas, torch.tensor([canvas.shape[1:3]], dtype=torch.int32))
    for hook in hooks:
        hook.remove()


def compare_file(path: Path, pictures: Sequence[Pixels]) -> Row:
    """The bodies, the kernels in Python, libcn2's, and those from two threads."""
    with Detector.open(path, "onnxruntime", "cpu", threads=1, fused=False) as detector:
        bodies = detect_all(detector, pictures)
    with Detector.open(path, "onnxruntime", "cpu", threads=1, fused=True) as detector:
        kernels = detect_all(detector, pictures)
    with Detector.open(path, "native", "cpu", threads=1, fused=True) as detector:
        threshold = detector.manifest.lowest_score_threshold
        native = detect_all(detector, pictures)
        with ThreadPoolExecutor(2) as pool:
            calls = pool.map(lambda _: detect_all(detector, pictures), range(4))
            threaded = [found for call in calls for found in call]
    return {
        "score_threshold": threshold,
        "detections": sum(map(len, kernels)),
        "native": difference(native, kernels),
        "threads": difference(threaded, native * 4),
        "bodies": difference(bodies, kernels),
    }


def some_pictures() -> list[Pixels]:
    """A landscape, a portrait, a square."""
    first, second = (open_picture(path) for path in find_pictures(None, 2))
    return [first, np.ascontiguousarray(first[:, : first.shape[0] // 2]), second[:300, :300]]


def detect_all(detector: Detector, pictures: Sequence[Pixels]) -> list[Detections]:
    """Each picture alone, all that the file can give. One thread, so that sums are in one order."""
    return [detector(one, detector.manifest.lowest_score_threshold) for one in pictures]


def difference(found: Sequence[Detections], wanted: Sequence[Detections]) -> Row:
    """Pictures with other classes in other places, and the largest distances in the rest."""
    pairs = list(zip(found, wanted, strict=True))
    same = [(a, b) for a, b in pairs if np.array_equal(a.class_ids, b.class_ids)]
    return {
        "other": len(pairs) - len(same),
        "box_px": max((float(abs(a.boxes - b.boxes).max(initial=0)) for a, b in same), default=0),
        "score": max((float(abs(a.scores - b.scores).max(initial=0)) for a, b in same), default=0),
    }


if __name__ == "__main__":
    sys.exit(main())
