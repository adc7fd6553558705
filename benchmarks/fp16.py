"""What fp16 costs: AP of fp32 and fp16 files of trained weights, shares of detections.

fp16 runs as emulation on the CPU (cn2.export.precision_emulation), fp32 in ONNX Runtime. Trained
`nano` on held-out scenes and, from a checkpoint trained on it, on BCCD's test pictures: the
difference of AP and the interval of a paired bootstrap over the pictures. Random weights of other
presets on COCO pictures: shares of detections only. A result that is there and not asked for stays.

    python benchmarks/fp16.py --scenes 200 --draws 200
    python benchmarks/fp16.py --draws 200 --train runs/fp16     # train on BCCD, a third of bccd.py
    python benchmarks/fp16.py --draws 200 --bccd CHECKPOINT     # or take what was trained on it
    python benchmarks/fp16.py --presets dla34-bifpn-p3 r50-fpn
    python benchmarks/tables.py         # the tables of docs/precision.md
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

import bccd
from agreement import find_weights, of_many_shapes
from cn2.export.agreement import Found, match
from cn2.export.describe import open_checkpoint
from cn2.export.onnx_file import export_onnx
from cn2.export.precision_emulation import EmulatedBackend
from cn2.export.precision_gate import Budget, PrecisionReport, compare
from cn2.runtime.annotations import read_annotations
from cn2.runtime.backends.base import Backend
from cn2.runtime.backends.onnxruntime import OnnxRuntimeBackend
from cn2.runtime.demo import CHECKPOINT
from cn2.runtime.detections import Detections
from cn2.runtime.detector import Detector
from cn2.runtime.evaluation import coco_metrics
from cn2.runtime.formats.common import AnnotatedPictures
from cn2.runtime.machine import versions
from cn2.runtime.pictures import open_picture
from cn2.runtime.preprocess import place_picture
from cn2.runtime.reports import write_json
from cn2.trainer.commands import choose_config
from cn2.trainer.config import Config, config_to_dict
from cn2.trainer.detector import AnyDetector
from cn2.trainer.scenes.write import write_scenes
from models import RESULTS, ROOT, machine
from paired_bootstrap import interval, paired_bootstrap

RESULT = RESULTS / "fp16.json"
WANTED_DROP = 0.001
CONFIDENT = 0.3  # a second score threshold for shares: what a user would look at
DRAWS = 300
# bccd.py's recipe made shorter: settings of the same names win.
SHORTER = (
    "train.steps=200",
    "train.warmup_steps=40",
    "train.ema_decay=0.98",
    "train.eval_every=200",
    "train.save_every=50",
)
BUNDLED, GIVEN, TRAINED = "bundled", "given by --bccd", "trained by --train"  # a row's checkpoint
Row = dict[str, Any]
Pair = tuple[Detections, Detections]  # of fp32 and of fp16


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure what is asked for; 1 if a drop of AP is above what is wanted, 2 without a run."""
    options = parse(arguments)
    found: Row = json.loads(options.json.read_text("utf-8")) if options.json.is_file() else {}
    rows: dict[str, Row] = found.get("rows", {})
    try:
        with tempfile.TemporaryDirectory() as folder:
            for name, row in measured(options, Path(folder)):
                tools = versions("torch", "onnxruntime")
                rows[name] = row | {"machine": machine(), "versions": tools}
                write_json(str(options.json), {"wanted_drop": WANTED_DROP, "rows": rows})
                print(f"{name}: {row}", flush=True)
    except bccd.RunError as error:
        print(f"fp16: error: {error}", file=sys.stderr)
        return 2
    drops = [row["AP"]["drop"] for row in rows.values() if "AP" in row]
    return int(any(drop > WANTED_DROP for drop in drops))


def measured(options: argparse.Namespace, folder: Path) -> Any:
    """Names and rows, one after the other."""
    shared = Path(os.environ.get("CN2_SHARED", ROOT.parent / "shared"))
    if options.scenes:
        path = write_scenes(folder / "scenes", options.scenes, 0, held_out=True, processes=1)
        truth = read_annotations(path, path.parent)
        row = measure_ap(CHECKPOINT, truth, folder, options.draws)
        yield "scenes", {"checkpoint": BUNDLED, **row}
    if options.bccd or options.train:
        data = bccd.Bccd(shared / "data" / "bccd")
        checkpoint = options.bccd or train_on_bccd(data, options.train, options.threads)
        truth = read_annotations(data.annotations("test"), data.images)
        row = measure_ap(checkpoint, truth, folder, options.draws)
        yield "bccd", {"checkpoint": GIVEN if options.bccd else TRAINED, **row}
    for preset in options.presets:
        model, config, weights = find_weights(shared)[preset]()
        pictures = of_many_shapes(shared / "data" / "coco128" / "images", options.pictures)
        yield preset, {"weights": weights, **measure_matches(model, config, pictures, folder)}


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--scenes", type=int, default=0, help="held-out scenes; 0: not measured")
    cells = parser.add_mutually_exclusive_group()
    cells.add_argument("--bccd", type=Path, help="checkpoint of nano trained on BCCD")
    cells.add_argument("--train", type=Path, help="train one into this folder, if it is not there")
    parser.add_argument("--threads", type=int, default=1, help="of that training")
    parser.add_argument("--presets", nargs="+", default=[], help="with weights of the fixtures")
    parser.add_argument("--pictures", type=int, default=4, help="COCO pictures of each preset")
    parser.add_argument("--draws", type=int, default=DRAWS, help="of the bootstrap")
    parser.add_argument("--json", type=Path, default=RESULT)
    return parser.parse_args(arguments)


def shorter_settings() -> list[str]:
    """What `cn2 train` is given by --set."""
    settings = dict(one.split("=", 1) for one in (*bccd.seeded(0), *SHORTER))
    return [f"{name}={value}" for name, value in settings.items()]


def train_on_bccd(data: bccd.Bccd, folder: Path, threads: int) -> Path:
    """The checkpoint of a run that is trained into a folder, or is there.

    Raises:
        RunError: what is there was trained in another way, or has not ended.
    """
    settings = shorter_settings()
    if not bccd.is_finished(folder, choose_config("nano", settings, None, None)):
        bccd.train(data, folder, settings, threads)
    return folder / "best.safetensors"


def export_both(
    model: AnyDetector, config: Config, folder: Path
) -> tuple[OnnxRuntimeBackend, EmulatedBackend, Row]:
    """The fp32 file, the fp16 one as emulation, and their sizes."""
    paths = folder / "fp32.onnx", folder / "fp16.onnx"
    export_onnx(model, config, paths[0])
    export_onnx(model, config, paths[1], precision="fp16")
    sizes = {f"{path.stem}_mb": round(path.stat().st_size / 1e6, 2) for path in paths}
    return OnnxRuntimeBackend.open(paths[0], device="cpu"), EmulatedBackend(paths[1]), sizes


def measure_ap(checkpoint: Path, truth: AnnotatedPictures, folder: Path, draws: int) -> Row:
    """AP of both files on annotated pictures, how sure their difference is, and shares."""
    model, config, origin = open_checkpoint(checkpoint)
    single, half, sizes = export_both(model, config, folder)
    images = truth.content["images"]
    files = [truth.folder / image["file_name"] for image in images]
    pairs = run_both(single, half, files)
    results = [
        [
            row
            for image, pair in zip(images, pairs, strict=True)
            for row in pair[k].to_coco(image["id"])
        ]
        for k in range(2)
    ]
    scores = [coco_metrics(truth.content, found) for found in results]
    drops = paired_bootstrap(truth.content, results[0], results[1], draws)
    return {
        "checkpoint_sha256": origin.checkpoint_sha256,
        "training": config_to_dict(config)["train"],
        "pictures": len(files),
        "objects": len(truth.content["annotations"]),
        "AP": {
            "fp32": scores[0]["AP"],
            "fp16": scores[1]["AP"],
            "drop": scores[0]["AP"] - scores[1]["AP"],
            "drop_interval_95": interval(drops),
            "draws": draws,
        },
        "AP50": {"fp32": scores[0]["AP50"], "fp16": scores[1]["AP50"]},
        **shares(pairs, half, config),
        "group_norm": group_norm_sums(model, single, files[:20]),
        **sizes,
    }


def run_both(single: Backend, half: Backend, files: Sequence[Path]) -> list[Pair]:
    """What each file finds in each picture."""
    detectors = Detector(single), Detector(half)
    return [(detectors[0](file), detectors[1](file)) for file in files]


def measure_matches(
    model: AnyDetector, config: Config, pictures: Sequence[Path], folder: Path
) -> Row:
    """Shares of detections that both files find, of weights that have no AP."""
    single, half, sizes = export_both(model, config, folder)
    return {**shares(run_both(single, half, pictures), half, config), **sizes}


def shares(pairs: Sequence[Pair], half: EmulatedBackend, config: Config) -> Row:
    """How many of fp32's detections fp16 has too (class, IoU above 0.9); what the gate sees."""
    budget, threshold = Budget(), half.manifest.score_threshold
    counts = {floor: [0, 0] for floor in (threshold, CONFIDENT)}
    report = PrecisionReport(score_threshold=threshold)
    for number, detections in enumerate(pairs):
        first, second = (
            Found(boxes=d.boxes, scores=d.scores, classes=d.class_ids.astype(np.int32))
            for d in detections
        )
        matched = {row for row, _ in match(first, second)}
        for floor, total in counts.items():
            rows = np.flatnonzero(first.scores > floor)
            total[0] += len(matched.intersection(rows.tolist()))
            total[1] += len(rows)
        limits = threshold, config.model.limits.detections
        report.pictures.append(compare(str(number), first, second, *limits, budget))
    place, all_pictures = int(half.peaks.argmax()), report.total
    return {
        "compared_pictures": len(pairs),
        "matched_of_fp32": {
            f"score > {floor:g}": {"matched": a, "detections": b, "share": a / b if b else None}
            for floor, (a, b) in counts.items()
        },
        "gate": {
            "matched": all_pictures.matched,
            "counted": all_pictures.counted,
            "largest_score_difference": all_pictures.score,
            "passes": all_pictures.within(budget),
        },
        "largest_value": {"value": float(half.peaks[place]), "layer": half.layers[place]},
    }


@torch.inference_mode()
def group_norm_sums(model: AnyDetector, backend: Backend, files: Sequence[Path]) -> Row:
    """What GroupNorm would add up in fp16: the largest sum and mean of a group's squares."""
    largest = {"value": 0.0, "sum_of_squares": 0.0, "mean_of_squares": 0.0}

    def note(norm: nn.GroupNorm, inputs: tuple[torch.Tensor]) -> None:
        x = inputs[0]
        squares = x.square().reshape(len(x), norm.num_groups, -1)
        for key, value in (
            ("value", x.abs().max()),
            ("sum_of_squares", squares.sum(dim=2).max()),
            ("mean_of_squares", squares.mean(dim=2).max()),
        ):
            largest[key] = max(largest[key], float(value))

    hooks = [
        module.register_forward_pre_hook(note)
        for module in model.modules()
        if isinstance(module, nn.GroupNorm)
    ]
    for file in files:
        picture = place_picture(open_picture(file), backend.manifest.canvas)
        model(torch.from_numpy(picture.canvas[None]), torch.tensor([picture.resized]))
    for hook in hooks:
        hook.remove()
    return largest


if __name__ == "__main__":
    sys.exit(main())
