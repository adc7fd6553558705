"""Antialiased (Pillow) against linear (OpenCV) resize: what it changes, and what it costs.

Each detector is exported twice, as by `cn2 export --interpolation antialias` and `... linear`, for
its own canvas and for a small one, onto which pictures shrink by more. Both files look at the same
pictures: how many detections are in both, how far apart they are, AP where the pictures are
annotated, and the time, the two files taking turns. `nano` is trained (with linear resize);
`dla34-bifpn-p3` carries the random weights of its conformance fixture.
Result: benchmarks/results/resize.json.

    python benchmarks/resize.py
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, get_args

import numpy as np

from agreement import Loaded, find_weights, of_many_shapes
from cn2.export.agreement import iou_matrix
from cn2.export.commands import resized_by
from cn2.export.onnx_file import export_onnx
from cn2.runtime.annotations import read_annotations
from cn2.runtime.bench import Contestant, Plan, measure
from cn2.runtime.canvas import CanvasRule, Interpolation
from cn2.runtime.detections import Detections
from cn2.runtime.detector import Detector
from cn2.runtime.eval_command import evaluate
from cn2.runtime.machine import cpu_cores, versions
from cn2.runtime.pictures import open_picture
from cn2.runtime.preprocess import place_picture
from cn2.runtime.reports import write_json
from cn2.trainer.scenes.write import write_scenes
from models import PICTURE_SIZE, RESULTS, ROOT, find_pictures, machine

KINDS: tuple[Interpolation, ...] = get_args(Interpolation)  # antialias, linear
# On its own canvas a preset changes a COCO picture's size little; on a smaller one it shrinks it.
CASES = (
    ("nano", None),
    ("nano", (192, 256)),
    ("dla34-bifpn-p3", None),
    ("dla34-bifpn-p3", (256, 384)),
)
SAME_IOU = 0.5  # two detections of a class that overlap so much are one object
SCENE_SEED = 1000  # behind the held-out scenes that eval_nano.json is of
Row = dict[str, Any]
Pair = dict[str, Detector]


def main(arguments: Sequence[str] | None = None) -> None:
    """Export, compare, time, write."""
    options = parse(arguments)
    shared = Path(os.environ.get("CN2_SHARED", ROOT.parent / "shared"))
    coco = of_many_shapes(shared / "data" / "coco128" / "images", options.pictures)
    loaders, before = find_weights(shared), machine()
    rows = []
    for preset, size in CASES:
        if preset in options.presets:
            print(f"{preset}, canvas {size or 'any'}", flush=True)
            with tempfile.TemporaryDirectory() as folder:
                rows.append(measure_case(preset, loaders[preset], size, coco, folder, options))
    document = {
        "benchmark": "resize",
        "command": "python benchmarks/resize.py",
        "machine": before,
        "versions": versions("opencv-python-headless", "pillow", "onnxruntime"),
        "picture": [PICTURE_SIZE[1], PICTURE_SIZE[0]],
        "same_iou": SAME_IOU,
        "rows": rows,
    }
    write_json(str(options.out), document)
    print(f"{options.out}: {len(rows)} rows")


def measure_case(
    preset: str,
    load: Callable[[], Loaded],
    size: tuple[int, int] | None,
    coco: Sequence[Path],
    folder: str,
    options: argparse.Namespace,
) -> Row:
    """The row of one detector on one canvas; AP where its weights know what scenes show."""
    pair, weights = open_pair(load, size, Path(folder), options.threads)
    resized = pair["linear"].manifest.canvas.resized_size(PICTURE_SIZE[1], PICTURE_SIZE[0])
    row = {"preset": preset, "weights": weights, "canvas": size, "resized": resized}
    row["grey_levels"] = pixel_difference(pair["linear"].manifest.canvas, coco)
    row["coco"] = compare(pair, coco)
    row["scenes"] = score(pair, Path(folder), options.scenes) if weights == "trained" else None
    row["time"] = race(pair, find_pictures(None, options.pictures), options)
    for detector in pair.values():
        detector.close()
    return row


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--presets", nargs="+", default=dict(CASES), choices=dict(CASES))
    parser.add_argument("--pictures", type=int, default=40, help="COCO pictures")
    parser.add_argument("--scenes", type=int, default=200, help="held-out scenes, for AP")
    parser.add_argument("--threads", type=int, help="default: one per core")
    parser.add_argument("--runs", type=int, help="default: 100, 20 of calls above a second")
    parser.add_argument("--out", type=Path, default=RESULTS / "resize.json")
    return parser.parse_args(arguments)


def open_pair(
    load: Callable[[], Loaded], size: tuple[int, int] | None, folder: Path, threads: int | None
) -> tuple[Pair, str]:
    """The two exported files of a detector, opened, and whose weights they have."""
    model, config, weights = load()
    pair = {}
    for kind in KINDS:
        path = folder / f"{kind}.onnx"
        export_onnx(model, resized_by(config, kind), path, size=size)
        pair[kind] = Detector.open(path, threads=threads)
    return pair, weights


def pixel_difference(rule: CanvasRule, pictures: Sequence[Path]) -> dict[str, float]:
    """How far the resized pictures are apart, grey levels."""
    means, largest = [], 0
    for path in pictures:
        picture = open_picture(path)
        canvases = [place_picture(picture, replace(rule, interpolation=k)) for k in KINDS]
        height, width = canvases[0].resized
        first, second = (c.canvas[:height, :width].astype(int) for c in canvases)
        means.append(float(np.abs(first - second).mean()))
        largest = max(largest, int(np.abs(first - second).max()))
    return {"mean": float(np.mean(means)), "max": largest}


def compare(pair: Pair, pictures: Sequence[Path]) -> Row:
    """Detections of both files on these pictures, and how far those in both are apart."""
    counts, scores, boxes = dict.fromkeys(KINDS, 0), [], []
    for path in pictures:
        first, second = (pair[kind](path) for kind in KINDS)
        for kind, found in zip(KINDS, (first, second), strict=True):
            counts[kind] += len(found)
        for a, b in match(first, second):
            scores.append(abs(float(first.scores[a]) - float(second.scores[b])))
            boxes.append(float(np.abs(first.boxes[a] - second.boxes[b]).max()))
    return {
        "pictures": len(pictures),
        "score_threshold": pair["linear"].manifest.score_threshold,
        "detections": counts,
        "in_both": len(scores),
        "score_difference": spread(scores),
        "box_px": spread(boxes),
    }


def match(first: Detections, second: Detections) -> list[tuple[int, int]]:
    """Rows that are one object: of a class, the largest overlaps from SAME_IOU on, one to one."""
    ious = iou_matrix(first.boxes, second.boxes)
    ious = np.where(first.class_ids[:, None] == second.class_ids[None], ious, 0)
    pairs: list[tuple[int, int]] = []
    for index in np.argsort(-ious, axis=None, kind="stable"):
        a, b = (int(i) for i in np.unravel_index(index, ious.shape))
        if ious[a, b] < SAME_IOU:
            break
        if all(a != one and b != other for one, other in pairs):
            pairs.append((a, b))
    return pairs


def spread(values: Sequence[float]) -> dict[str, float] | None:
    """Median, 90th percentile and largest; None of no values."""
    if not values:
        return None
    median, p90, largest = np.percentile(values, [50, 90, 100])
    return {"median": float(median), "p90": float(p90), "max": float(largest)}


def score(pair: Pair, folder: Path, count: int) -> Row:
    """AP of both files on held-out scenes."""
    path = write_scenes(folder / "scenes", count, SCENE_SEED, held_out=True)
    found: Row = {"scenes": count}
    for kind in KINDS:
        metrics = evaluate(pair[kind], read_annotations(path, folder / "scenes"), tell=print)
        found[kind] = {key: metrics[key] for key in ("AP", "AP50", "APs", "APm", "APl")}
    return found


def race(pair: Pair, pictures: Sequence[Path], options: argparse.Namespace) -> Row:
    """Time of both files in turns, from JPEG file to detections; `preprocess` is the resize."""
    threads = options.threads or cpu_cores()
    contestants = [
        Contestant(name=kind, detector=pair[kind], load_s=0, threads=threads) for kind in KINDS
    ]
    rows = measure(contestants, Plan(pictures=pictures, runs=options.runs), tell=print)
    keys = ("runs", "threads", "canvases", "size", "latency_ms")
    times = {kind: {key: row[key] for key in keys} for kind, row in zip(KINDS, rows, strict=True)}
    median = {
        stage: [times[kind]["latency_ms"][stage]["median"] for kind in KINDS]
        for stage in ("preprocess", "whole")
    }
    ratio = {f"{stage}_ratio": round(b / a, 4) for stage, (a, b) in median.items()}
    return {"pictures": len(pictures), **times, **ratio}


if __name__ == "__main__":
    sys.exit(main())
