"""Detections matched to ground truth by faster-coco-eval: records in, precision and recall out."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from .errors import DependencyError

Array: TypeAlias = npt.NDArray[np.float64]
Record: TypeAlias = dict[str, Any]

AREAS = ("all", "small", "medium", "large")  # below 32², below 96², from there, in pixels
MOST_CELLS = 200_000  # pictures x classes at a time: the library makes a Python object for each


def match_boxes(
    annotations: Record,
    results: Sequence[Record],
    image_ids: Collection[int],
    limits: Sequence[int],
    *,
    federated: bool = False,
) -> tuple[Array, Array]:
    """Match and count, some classes at a time: no class knows of another.

    Args:
        annotations: COCO records; crowds count neither for nor against.
        results: COCO result dicts.
        image_ids: the pictures that count.
        limits: ascending; the best so many detections of a picture and class count.
        federated: keep to what LVIS verified, by the lists of `federated.py`.
    Returns:
        Precision (10 IoUs, 101 recalls, C classes by id, 4 areas, limits) and recall (the same
        without the 101); -1 where there is no ground truth.
    Raises:
        DependencyError: faster-coco-eval is not installed.
    """
    classes = sorted(annotations["categories"], key=lambda category: int(category["id"]))
    images = sorted(
        (image for image in annotations["images"] if image["id"] in image_ids),
        key=lambda image: int(image["id"]),
    )
    step = max(1, MOST_CELLS // max(1, len(images)))
    shape = (10, len(classes), len(AREAS), len(limits))
    precision, recall = np.empty((10, 101, *shape[1:])), np.empty(shape)
    for first in range(0, len(classes), step):
        part = slice(first, first + step)
        ids = {category["id"] for category in classes[part]}
        evaluator = _evaluator(
            images,
            classes[part],
            list(_those_of(annotations["annotations"], image_ids, ids)),
            list(_those_of(results, image_ids, ids)),
            federated,
        )
        evaluator.params.maxDets = list(limits)
        evaluator.evaluate()
        evaluator.accumulate()
        recall[:, part] = np.reshape(evaluator.eval["recall"], recall[:, part].shape)
        precision[:, :, part] = np.reshape(evaluator.eval["precision"], precision[:, :, part].shape)
    return precision, recall


def _those_of(
    records: Sequence[Record], images: Collection[int], classes: Collection[int]
) -> Iterator[Record]:
    return (r for r in records if r["category_id"] in classes and r["image_id"] in images)


def _evaluator(
    images: list[Record],
    classes: list[Record],
    annotations: list[Record],
    results: list[Record],
    federated: bool,
) -> Any:
    try:
        from faster_coco_eval import COCO, COCOeval_faster  # type: ignore[import-untyped]
    except ImportError as error:
        raise DependencyError(
            "faster-coco-eval is not installed; pip install 'cn2[eval]'"
        ) from error
    truth = COCO(
        {
            "images": [dict(image) for image in images],
            "categories": [dict(category) for category in classes],
            "annotations": [
                _match_record(record, number) for number, record in enumerate(annotations, start=1)
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
        ]
    )
    return COCOeval_faster(
        truth, found, iouType="bbox", print_function=_ignore, lvis_style=federated
    )


def _match_record(annotation: Record, number: int) -> Record:
    """What box matching reads; numbered from 1, as COCO's code takes id 0 for "unmatched"."""
    keys = ("image_id", "category_id", "bbox", "area", "iscrowd")
    return {"id": number, **{key: annotation[key] for key in keys}}


def _ignore(*_: object) -> None:
    """Takes what faster-coco-eval would print."""
