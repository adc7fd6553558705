"""COCO records in, one `Picture` per image out: path, size, boxes, classes.

The records are checked once, before the first step; every complaint names the file and the id of
what is wrong.
"""

from __future__ import annotations

import logging
import os
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cn2.runtime.errors import AnnotationError
from cn2.runtime.evaluation import load_annotations

from .transforms import Boxes, clip_boxes

logger = logging.getLogger(__name__)

Record = dict[str, Any]
MARGIN_PX = 0.01  # COCO rounds boxes to this: no farther out is no mistake


@dataclass(frozen=True, kw_only=True)
class Picture:
    """One picture of the data set and its ground truth."""

    image_id: int
    path: Path
    height: int  # pixels, as the annotation file says
    width: int
    boxes: Boxes  # (N, 4) xyxy, pixels, inside the picture, not empty
    classes: NDArray[np.int64]  # (N,) 0-based


@dataclass(frozen=True, kw_only=True)
class CocoDataset:
    """The pictures of one or several annotated sets, and their classes."""

    annotations: Record  # COCO, the whole of it, crowds too, for the evaluation
    pictures: list[Picture]
    class_names: tuple[str, ...]
    category_ids: tuple[int, ...]

    @property
    def classes(self) -> dict[int, str]:
        """Category id -> name, in the detector's order."""
        return dict(zip(self.category_ids, self.class_names, strict=True))


def load_coco(
    annotation_file: Path, folder: Path, category_ids: tuple[int, ...] | None = None
) -> CocoDataset:
    """Read and check a COCO file.

    Crowd annotations become no target. Boxes are clipped to their picture and dropped when nothing
    is left; one warning counts both.

    Args:
        annotation_file: COCO JSON with images, annotations, categories.
        folder: where the pictures lie.
        category_ids: the classes of the detector, in their order; None: the file's, ascending.
    Raises:
        AnnotationError: what `load_annotations` refuses, no picture at all, a picture without its
            size or without its file, an annotation of a class that the detector has not.
    """
    content = load_annotations(annotation_file, folder)
    names = {category["id"]: str(category["name"]) for category in content["categories"]}
    ids = tuple(sorted(names)) if category_ids is None else category_ids
    return build_dataset(content, folder, annotation_file, {i: names.get(i, str(i)) for i in ids})


def build_dataset(
    content: Record, folder: Path, annotation_file: Path, classes: Mapping[int, str]
) -> CocoDataset:
    """Pictures of checked records.

    Args:
        content: of `load_annotations`.
        folder: where the pictures lie.
        annotation_file: for messages.
        classes: category id -> name, in the detector's order.
    Raises:
        AnnotationError: as `load_coco`.
    """
    if not content["images"] or not classes:
        raise AnnotationError(f"{annotation_file}: expected images and categories, found none")
    rows = _rows_by_image(content, annotation_file, classes)
    pictures = [_picture(r, rows[r["id"]], folder, annotation_file) for r in content["images"]]
    _warn_about_boxes(rows, pictures, annotation_file)
    return CocoDataset(
        annotations=content,
        pictures=pictures,
        class_names=tuple(classes.values()),
        category_ids=tuple(classes),
    )


def _rows_by_image(
    content: Record, path: Path, known: Mapping[int, str]
) -> dict[int, list[tuple[int, list[float]]]]:
    """(class index, bbox) of each picture's annotations, crowds left out."""
    classes = {category: index for index, category in enumerate(known)}
    rows: dict[int, list[tuple[int, list[float]]]] = defaultdict(list)
    for annotation in content["annotations"]:
        category = annotation["category_id"]
        if category not in classes:
            named = {c["id"]: c["name"] for c in content["categories"]}
            raise AnnotationError(
                f"{path}: annotation {annotation['id']}: class {named[category]!r:.80} is none of "
                f"the {len(classes)} classes that the detector is trained on; are --train and "
                "--val of one dataset?"
            )
        if not annotation["iscrowd"]:
            rows[annotation["image_id"]].append((classes[category], annotation["bbox"]))
    return rows


def _picture(
    record: Record,
    rows: list[tuple[int, list[float]]],
    folder: Path,
    annotation_file: Path,
) -> Picture:
    where = f"{annotation_file}: image {record['id']}"
    for side in ("height", "width"):
        if type(record.get(side)) is not int or record[side] < 1:
            raise AnnotationError(f"{where}: expected {side!r} in pixels, got {record.get(side)}")
    path = folder / record["file_name"]
    if not os.path.isfile(path):  # of an impossible name Path.is_file raises
        raise AnnotationError(
            f"{where}: no file {path}; is the folder of pictures (--train-images, --val-images) "
            "right?"
        )
    boxes = clip_boxes(_corners(rows), record["height"], record["width"])
    kept = (boxes[:, 2:] > boxes[:, :2]).all(axis=1)
    classes = np.array([index for index, _ in rows], np.int64)
    return Picture(
        image_id=record["id"],
        path=path,
        height=record["height"],
        width=record["width"],
        boxes=boxes[kept],
        classes=classes[kept],
    )


def _corners(rows: list[tuple[int, list[float]]]) -> Boxes:
    """(N, 4) xyxy of COCO's x, y, width, height."""
    return to_corners([box for _, box in rows])


def to_corners(boxes: Sequence[Sequence[float]]) -> Boxes:
    """(N, 4) xyxy of COCO's [x, y, width, height], pixels."""
    xywh = np.array(boxes, np.float64).reshape(-1, 4)
    return np.concatenate([xywh[:, :2], xywh[:, :2] + xywh[:, 2:]], axis=1).astype(np.float32)


def _warn_about_boxes(
    rows: dict[int, list[tuple[int, list[float]]]], pictures: list[Picture], path: Path
) -> None:
    """One line for the whole file: how many boxes were clipped, how many dropped."""
    clipped = dropped = 0
    for picture in pictures:
        boxes = _corners(rows[picture.image_id])
        moved = np.abs(clip_boxes(boxes, picture.height, picture.width) - boxes)
        clipped += int((moved > MARGIN_PX).any(axis=1).sum())
        dropped += len(boxes) - len(picture.boxes)
    if clipped or dropped:
        logger.warning(
            "%s: %d boxes reached out of their picture and were clipped; %d had no area left "
            "and were dropped",
            path,
            clipped,
            dropped,
        )
