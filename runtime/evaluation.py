"""COCO metrics: annotations and result dicts in, a dict of numbers in 0..1 out.

The counting is faster-coco-eval's; tests hold it equal to pycocotools on all twelve numbers.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from .annotations import load_annotations, names_its_pictures, read_annotations
from .errors import AnnotationError, DependencyError
from .formats.classes import match_classes
from .formats.common import AnnotatedPictures
from .formats.headers import upright_size

__all__ = [
    "AnnotatedPictures",
    "coco_metrics",
    "load_annotations",
    "match_classes",
    "names_its_pictures",
    "read_annotations",
    "upright_size",
]

AREAS = ("all", "small", "medium", "large")  # below 32², below 96², from there, in pixels


def coco_metrics(
    annotations: dict[str, Any] | str | Path,
    results: Sequence[dict[str, Any]],
    *,
    image_ids: Iterable[int] | None = None,
    max_detections: int = 100,
) -> dict[str, Any]:
    """Score detections against ground truth as COCO does.

    Args:
        annotations: a dict of `load_annotations`, or the file's path.
        results: COCO result dicts: image_id, category_id, bbox [x, y, width, height], score.
            Categories that the annotations do not know are left out, as pycocotools does.
        image_ids: score these pictures alone; default: all pictures of the annotations.
        max_detections: the best so many detections of a picture and class count.
    Returns:
        `AP, AP50, AP75, APs, APm, APl, AR1, AR10, AR<max_detections>, ARs, ARm, ARl` in 0..1, or
        None where the pictures hold no such object; `per_class`: class name -> {AP, AP50, objects};
        `images`: how many pictures were scored. Crowd regions count neither for nor against.
    Raises:
        AnnotationError: a result names a picture that is not there, lacks a key, or no result has a
            category of the annotations.
        ValueError: a result's bbox is not four finite numbers, or its score not one.
        DependencyError: faster-coco-eval is not installed.
    """
    if not isinstance(annotations, dict):
        annotations = load_annotations(annotations)
    if max_detections < 1:
        raise ValueError(f"max_detections: expected at least 1, got {max_detections}")
    known = {image["id"] for image in annotations["images"]}
    chosen = sorted(known if image_ids is None else set(image_ids))
    if not known.issuperset(chosen):
        missing = sorted(set(chosen) - known)[0]
        raise AnnotationError(f"image_ids: picture {missing} is not in the annotations")
    _check_results(annotations, results, known)
    limits = [min(1, max_detections), min(10, max_detections), max_detections]
    precision, recall = _accumulate(annotations, results, chosen, limits)
    metrics = _summarize(precision, recall, max_detections)
    metrics["per_class"] = _per_class(annotations, precision, chosen)
    metrics["images"] = len(chosen)
    return metrics


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


def _accumulate(
    annotations: dict[str, Any],
    results: Sequence[dict[str, Any]],
    image_ids: list[int],
    limits: list[int],
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Match and count.

    Returns:
        Precision (10 IoUs, 101 recalls, C classes by id, 4 areas, 3 limits) and recall (the same
        without the 101); -1 where there is no ground truth.
    """
    try:
        from faster_coco_eval import COCO, COCOeval_faster  # type: ignore[import-untyped]
    except ImportError as error:
        raise DependencyError(
            "faster-coco-eval is not installed; pip install 'cn2[eval]'"
        ) from error
    scored = set(image_ids)
    truth = COCO(
        {
            "images": [{"id": image} for image in image_ids],
            "categories": [dict(category) for category in annotations["categories"]],
            "annotations": [
                _match_record(record, number)
                for number, record in enumerate(annotations["annotations"], start=1)
                if record["image_id"] in scored
            ],
        },
        print_function=_ignore,
    )
    found = truth.loadRes(
        [
            {
                **{key: result[key] for key in ("image_id", "category_id", "score")},
                "bbox": [float(side) for side in result["bbox"]],  # it takes lists alone
            }
            for result in results
            if result["image_id"] in scored
        ]
    )
    evaluator = COCOeval_faster(truth, found, iouType="bbox", print_function=_ignore)
    evaluator.params.maxDets = limits
    evaluator.evaluate()
    evaluator.accumulate()
    shape = (10, 101, len(annotations["categories"]), len(AREAS), len(limits))
    precision = np.asarray(evaluator.eval["precision"], dtype=np.float64).reshape(shape)
    recall = np.asarray(evaluator.eval["recall"], dtype=np.float64).reshape(shape[:1] + shape[2:])
    return precision, recall


def _match_record(annotation: dict[str, Any], number: int) -> dict[str, Any]:
    """What box matching reads; numbered from 1, as COCO's code takes id 0 for "unmatched"."""
    keys = ("image_id", "category_id", "bbox", "area", "iscrowd")
    return {"id": number, **{key: annotation[key] for key in keys}}


def _ignore(*_: object) -> None:
    """Takes what faster-coco-eval would print."""


def _summarize(
    precision: npt.NDArray[np.float64], recall: npt.NDArray[np.float64], max_detections: int
) -> dict[str, Any]:
    small, medium, large = 1, 2, 3  # of AREAS
    return {
        "AP": _mean(precision[:, :, :, 0, -1]),
        "AP50": _mean(precision[0, :, :, 0, -1]),
        "AP75": _mean(precision[5, :, :, 0, -1]),
        "APs": _mean(precision[:, :, :, small, -1]),
        "APm": _mean(precision[:, :, :, medium, -1]),
        "APl": _mean(precision[:, :, :, large, -1]),
        "AR1": _mean(recall[:, :, 0, 0]),
        "AR10": _mean(recall[:, :, 0, 1]),
        f"AR{max_detections}": _mean(recall[:, :, 0, -1]),
        "ARs": _mean(recall[:, :, small, -1]),
        "ARm": _mean(recall[:, :, medium, -1]),
        "ARl": _mean(recall[:, :, large, -1]),
    }


def _mean(values: npt.NDArray[np.float64]) -> float | None:
    """The mean of what was counted (>= 0), or None where nothing was."""
    counted = values[values > -1]
    return float(counted.mean()) if counted.size else None


def _per_class(
    annotations: dict[str, Any], precision: npt.NDArray[np.float64], image_ids: list[int]
) -> dict[str, dict[str, Any]]:
    scored = set(image_ids)
    objects = Counter(
        record["category_id"]
        for record in annotations["annotations"]
        if record["image_id"] in scored and not record["iscrowd"]
    )
    names = Counter(category["name"] for category in annotations["categories"])
    table = {}
    for column, category in enumerate(
        sorted(annotations["categories"], key=lambda c: int(c["id"]))
    ):
        identity, name = category["id"], category["name"]
        label = name if names[name] == 1 else f"{name} ({identity})"
        table[label] = {
            "AP": _mean(precision[:, :, column, 0, -1]),
            "AP50": _mean(precision[0, :, column, 0, -1]),
            "objects": objects[identity],
        }
    return table
