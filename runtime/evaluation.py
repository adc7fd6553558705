"""COCO and LVIS metrics: annotations and result dicts in, a dict of numbers in 0..1 out.

The counting is faster-coco-eval's; tests hold it equal to pycocotools and to the lvis package.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from .annotations import load_annotations, names_its_pictures, read_annotations
from .errors import AnnotationError
from .federated import (
    FREQUENCIES,
    MAX_DETECTIONS,
    best_of_each_picture,
    is_federated,
    with_area,
    with_extent,
)
from .formats.classes import match_classes
from .formats.common import AnnotatedPictures
from .formats.headers import upright_size
from .matching import Array, match_boxes

__all__ = [
    "AnnotatedPictures",
    "coco_metrics",
    "is_federated",
    "load_annotations",
    "match_classes",
    "names_its_pictures",
    "read_annotations",
    "upright_size",
]


def coco_metrics(
    annotations: dict[str, Any] | str | Path,
    results: Sequence[dict[str, Any]],
    *,
    image_ids: Iterable[int] | None = None,
    max_detections: int | None = None,
) -> dict[str, Any]:
    """Score detections against ground truth as COCO does, or LVIS where the annotations are LVIS's.

    Args:
        annotations: a dict of `load_annotations`, or the file's path.
        results: COCO result dicts: image_id, category_id, bbox [x, y, width, height], score.
            Categories that the annotations do not know are left out, as pycocotools does.
        image_ids: score these pictures alone; default: all pictures of the annotations.
        max_detections: the best so many detections of a picture and class count, 100 by default;
            of LVIS: of a picture, 300.
    Returns:
        `AP, AP50, AP75, APs, APm, APl, AR1, AR10, AR<max_detections>, ARs, ARm, ARl` in 0..1, or
        None where the pictures hold no such object; `per_class`: class name -> {AP, AP50, objects};
        `images`: how many pictures were scored. Crowd regions count neither for nor against.
        LVIS: also AR100, `APr, APc, APf` of rare, common and frequent classes, and each class's
        `frequency`; see `federated.py` for what counts.
    Raises:
        AnnotationError: a result names a picture that is not there, lacks a key, or no result has a
            category of the annotations; LVIS annotations that are so in part.
        ValueError: a result's bbox is not four finite numbers, or its score not one.
        DependencyError: faster-coco-eval is not installed.
    """
    if not isinstance(annotations, dict):
        annotations = load_annotations(annotations)
    federated = is_federated(annotations)
    most = (MAX_DETECTIONS if federated else 100) if max_detections is None else max_detections
    if most < 1:
        raise ValueError(f"max_detections: expected at least 1, got {most}")
    known = {image["id"] for image in annotations["images"]}
    chosen = known if image_ids is None else set(image_ids)
    if not known.issuperset(chosen):
        missing = min(chosen - known)
        raise AnnotationError(f"image_ids: picture {missing} is not in the annotations")
    _check_results(annotations, results, known)
    if federated:
        results = with_extent(best_of_each_picture(results, most))
        annotations = {**annotations, "annotations": with_area(annotations["annotations"])}
    recalls = (1, 10, 100, most) if federated else (1, 10, most)  # COCO's names, whatever the limit
    limits = [min(limit, most) for limit in recalls]
    precision, recall = match_boxes(annotations, results, chosen, limits, federated=federated)
    return {
        **_summarize(precision, recall, recalls),
        **(_by_frequency(annotations, precision) if federated else {}),
        "per_class": _per_class(annotations, precision, chosen),
        "images": len(chosen),
    }


def _check_results(
    annotations: dict[str, Any], results: Sequence[dict[str, Any]], images: set[int]
) -> None:
    categories = {category["id"] for category in annotations["categories"]}
    for position, result in enumerate(results):
        lacking = [key for key in ("image_id", "category_id", "bbox", "score") if key not in result]
        if lacking:
            raise AnnotationError(f"result {position}: expected the key {lacking[0]!r}, got none")
        if result["image_id"] not in images:
            raise AnnotationError(
                f"result {position}: image_id {result['image_id']} is not in the annotations"
            )
        if not _are_numbers(result["bbox"], 4):
            raise ValueError(
                f"result {position}: expected bbox as the 4 numbers [x, y, width, height], "
                f"got {result['bbox']!r:.80}"
            )
        if not _are_numbers([result["score"]], 1):
            raise ValueError(
                f"result {position}: expected score as a number, got {result['score']!r:.80}"
            )
    if results and not any(result["category_id"] in categories for result in results):
        raise AnnotationError(
            f"results: expected category ids of the annotations, got none of them "
            f"(first: {results[0]['category_id']}); was the model trained on other classes?"
        )


def _are_numbers(values: Any, count: int) -> bool:
    """Whether it is a list of so many finite numbers, Python's or numpy's."""
    if not isinstance(values, (list, tuple, np.ndarray)) or len(values) != count:
        return False
    return all(
        isinstance(value, (int, float, np.integer, np.floating)) and math.isfinite(value)
        for value in values
    )


def _summarize(precision: Array, recall: Array, limits: Sequence[int]) -> dict[str, Any]:
    small, medium, large = 1, 2, 3  # of AREAS
    return {
        "AP": _mean(precision[:, :, :, 0, -1]),
        "AP50": _mean(precision[0, :, :, 0, -1]),
        "AP75": _mean(precision[5, :, :, 0, -1]),
        "APs": _mean(precision[:, :, :, small, -1]),
        "APm": _mean(precision[:, :, :, medium, -1]),
        "APl": _mean(precision[:, :, :, large, -1]),
        **{f"AR{limit}": _mean(recall[:, :, 0, n]) for n, limit in enumerate(limits)},
        "ARs": _mean(recall[:, :, small, -1]),
        "ARm": _mean(recall[:, :, medium, -1]),
        "ARl": _mean(recall[:, :, large, -1]),
    }


def _mean(values: Array) -> float | None:
    """The mean of what was counted (>= 0), or None where nothing was."""
    counted = values[values > -1]
    return float(counted.mean()) if counted.size else None


def _by_frequency(annotations: dict[str, Any], precision: Array) -> dict[str, float | None]:
    """APr, APc, APf: the AP of rare, common and frequent classes."""
    frequencies = np.array([category["frequency"] for category in _in_order(annotations)])
    return {
        f"AP{group}": _mean(precision[:, :, frequencies == group, 0, -1]) for group in FREQUENCIES
    }


def _in_order(annotations: dict[str, Any]) -> list[dict[str, Any]]:
    """The categories as the columns of precision and recall have them: by id."""
    return sorted(annotations["categories"], key=lambda category: int(category["id"]))


def _per_class(
    annotations: dict[str, Any], precision: Array, image_ids: set[int]
) -> dict[str, dict[str, Any]]:
    objects = Counter(
        record["category_id"]
        for record in annotations["annotations"]
        if record["image_id"] in image_ids and not record["iscrowd"]
    )
    federated = is_federated(annotations)
    names = Counter(category["name"] for category in annotations["categories"])
    table = {}
    for column, category in enumerate(_in_order(annotations)):
        identity, name = category["id"], category["name"]
        label = name if names[name] == 1 else f"{name} ({identity})"
        table[label] = {
            "AP": _mean(precision[:, :, column, 0, -1]),
            "AP50": _mean(precision[0, :, column, 0, -1]),
            "objects": objects[identity],
            **({"frequency": category["frequency"]} if federated else {}),
        }
    return table
