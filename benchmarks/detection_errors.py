"""What a detector did wrong in each picture, by kind, above a score and at IoU 0.5."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from cn2 import Detector
from cn2.runtime.detect_command import write_picture
from cn2.runtime.pictures import Pixels
from cn2.trainer.data.coco import CocoDataset
from cn2.trainer.watch.samples import draw_samples

IOU, SCORE = 0.5, 0.5
NEAR = 0.1  # IoU from which a detection that matches nothing counts as misplaced
KINDS = {
    "missed": "an object without a detection of its class",
    "twice": "a second detection of an object that a better one has found",
    "wrong class": f"a detection on an object of another class, IoU {IOU:g}",
    "misplaced": f"a detection near an object of its class, IoU {NEAR:g} to {IOU:g}",
    "nothing there": "a detection on no annotated object",
}

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class Objects:
    """What is annotated in one picture, or found, best first."""

    boxes: Floats  # (N, 4) xyxy, pixels
    classes: Sequence[int]  # N, of any numbering


def find_errors(model: Path, data: CocoDataset, drawing: Path, count: int) -> dict[str, Any]:
    """Count a model's errors in all pictures by kind; name the worst pictures, and draw them.

    Args:
        drawing: the picture to write, ground truth at the left, detections at the right.
        count: of the worst pictures.
    """
    results: list[dict[str, Any]] = []
    errors: list[Counter[str]] = []
    with Detector.open(model, device="cpu") as detector:
        for picture in data.pictures:
            found = detector(picture.path).filter(score_threshold=SCORE)
            results += found.to_coco(picture.image_id)
            there = Objects(boxes=picture.boxes.astype(float), classes=picture.classes.tolist())
            ours = Objects(boxes=found.boxes.astype(float), classes=found.class_ids.tolist())
            errors.append(count_errors(there, ours))
    order = sorted(range(len(errors)), key=lambda k: (-errors[k].total(), data.pictures[k].path))
    worst = [data.pictures[k] for k in order[:count]]
    halves = draw_samples(
        replace(data, pictures=worst), results, count=count, score_threshold=SCORE
    )
    write_picture(drawing, stack(halves))
    total = sum(errors, Counter[str]())
    return {
        "errors": {kind: total[kind] for kind in KINDS},
        "objects": sum(len(picture.boxes) for picture in data.pictures),
        "pictures": len(data.pictures),
        "pictures_without_error": sum(not one.total() for one in errors),
        "worst": [
            {"file": data.pictures[k].path.name, "objects": len(data.pictures[k].boxes)}
            | {"errors": dict(errors[k])}
            for k in order[:count]
        ],
    }


def stack(pictures: Sequence[Pixels]) -> Pixels:
    """Pictures below one another, on white."""
    width = max(picture.shape[1] for picture in pictures)
    rows = [
        np.pad(p, ((0, 8), (0, width - p.shape[1]), (0, 0)), constant_values=255) for p in pictures
    ]
    return np.concatenate(rows)


def count_errors(truth: Objects, found: Objects) -> Counter[str]:
    """Errors of one picture by kind; a right detection is none.

    Each detection takes, best first, the free object of its class that it overlaps most, as COCO
    matches at one IoU. What is left over is told apart in the order of `KINDS`.
    """
    ious = box_ious(found.boxes, truth.boxes)
    owners = match(ious, truth.classes, found.classes)
    right = set(owners.values())
    same = np.equal.outer(np.asarray(found.classes), np.asarray(truth.classes))
    errors = Counter(
        describe(ious[k], same[k]) for k in range(len(found.classes)) if k not in right
    )
    errors["missed"] = len(truth.classes) - len(owners)
    return +errors


def match(ious: Floats, truth: Sequence[int], found: Sequence[int]) -> dict[int, int]:
    """Index of each object that was found -> that of its detection."""
    owners: dict[int, int] = {}
    for k, label in enumerate(found):
        free = [j for j, own in enumerate(truth) if own == label and j not in owners]
        free = [j for j in free if ious[k, j] >= IOU]
        if free:
            owners[max(free, key=lambda j: ious[k, j])] = k
    return owners


def describe(ious: Floats, same: npt.NDArray[np.bool_]) -> str:
    """The kind of a wrong detection, by its IoU with each object and whether classes agree."""
    best_same = float(ious[same].max(initial=0))
    best_other = float(ious[~same].max(initial=0))
    if best_same >= IOU:
        return "twice"
    if best_other >= IOU:
        return "wrong class"
    return "misplaced" if best_same >= NEAR else "nothing there"


def box_ious(first: Floats, second: Floats) -> Floats:
    """(N, 4), (M, 4) boxes xyxy -> (N, M)."""
    low = np.maximum(first[:, None, :2], second[None, :, :2])
    high = np.minimum(first[:, None, 2:], second[None, :, 2:])
    common = np.clip(high - low, 0, None).prod(axis=2)
    sizes = [np.prod(boxes[:, 2:] - boxes[:, :2], axis=1) for boxes in (first, second)]
    ious: Floats = common / np.maximum(sizes[0][:, None] + sizes[1][None, :] - common, 1e-9)
    return ious
