"""COCO records in, one `Picture` per image out: path, size, boxes, classes.

The records are checked once, before the first step; every complaint names the file and the id of
what is wrong.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from cn2.runtime.errors import AnnotationError
from cn2.runtime.evaluation import load_annotations

from .transforms import Boxes

logger = logging.getLogger(__name__)

Record = dict[str, Any]
LARGEST_SIDE = 1_000_000  # pixels; beyond it float32 boxes would lose their places
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

    @property
    def image_counts(self) -> NDArray[np.int64]:
        """(C,) pictures that show each class."""
        shown = [np.unique(picture.classes) for picture in self.pictures]
        every = np.concatenate([np.empty(0, np.int64), *shown])
        return np.bincount(every, minlength=len(self.class_names))


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
    sizes = np.array([_size(r, annotation_file) for r in content["images"]], np.int64)
    paths = [_path(r, folder, annotation_file) for r in content["images"]]
    objects = _find_objects(content, annotation_file, classes)
    boxes = clip_to_sizes(objects.boxes, sizes[objects.pictures])
    kept: NDArray[np.bool_] = np.all(boxes[:, 2:] > boxes[:, :2], axis=1)
    _warn_about_boxes(objects.boxes, boxes, kept, annotation_file)
    owners, boxes, labels = objects.pictures[kept], boxes[kept], objects.classes[kept]
    ends = np.searchsorted(owners, np.arange(len(paths) + 1))
    pictures = [
        Picture(
            image_id=record["id"],
            path=path,
            height=int(height),
            width=int(width),
            boxes=boxes[first:end],
            classes=labels[first:end],
        )
        for record, path, (height, width), first, end in zip(
            content["images"], paths, sizes, ends[:-1], ends[1:], strict=True
        )
    ]
    return CocoDataset(
        annotations=content,
        pictures=pictures,
        class_names=tuple(classes.values()),
        category_ids=tuple(classes),
    )


class _Objects(NamedTuple):
    """Everything that could become a target, picture by picture."""

    pictures: NDArray[np.int64]  # (A,) index of the picture, ascending
    boxes: Boxes  # (A, 4) xyxy, pixels, as annotated
    classes: NDArray[np.int64]  # (A,) 0-based


def _find_objects(content: Record, path: Path, known: Mapping[int, str]) -> _Objects:
    """The annotations, crowds left out."""
    classes = {category: index for index, category in enumerate(known)}
    places = {image["id"]: index for index, image in enumerate(content["images"])}
    unknown = next((a for a in content["annotations"] if a["category_id"] not in classes), None)
    if unknown is not None:
        names = {c["id"]: c["name"] for c in content["categories"]}
        raise AnnotationError(
            f"{path}: annotation {unknown['id']}: class {names[unknown['category_id']]!r:.80} is "
            f"none of the {len(classes)} classes that the detector is trained on; are --train and "
            "--val of one dataset?"
        )
    rows = [a for a in content["annotations"] if not a["iscrowd"]]
    owners = np.array([places[row["image_id"]] for row in rows], np.int64)
    order = np.argsort(owners, kind="stable")
    return _Objects(
        pictures=owners[order],
        boxes=to_corners([row["bbox"] for row in rows])[order],
        classes=np.array([classes[row["category_id"]] for row in rows], np.int64)[order],
    )


def _size(record: Record, annotation_file: Path) -> tuple[int, int]:
    for side in ("height", "width"):
        if type(record.get(side)) is not int or not 1 <= record[side] <= LARGEST_SIDE:
            raise AnnotationError(
                f"{annotation_file}: image {record['id']}: expected {side!r} in pixels, got "
                f"{record.get(side)!r:.40}"
            )
    return record["height"], record["width"]


def _path(record: Record, folder: Path, annotation_file: Path) -> Path:
    path = folder / str(record["file_name"])
    if not os.path.isfile(path):  # of an impossible name Path.is_file raises
        raise AnnotationError(
            f"{annotation_file}: image {record['id']}: no file {path}; is the folder of pictures "
            "(--train-images, --val-images) right?"
        )
    return path


def to_corners(boxes: Sequence[Sequence[float]]) -> Boxes:
    """(N, 4) xyxy of COCO's [x, y, width, height], pixels."""
    xywh = np.array(boxes, np.float64).reshape(-1, 4)
    return np.concatenate([xywh[:, :2], xywh[:, :2] + xywh[:, 2:]], axis=1).astype(np.float32)


def clip_to_sizes(boxes: Boxes, sizes: NDArray[np.int64]) -> Boxes:
    """(A, 4) boxes cut at the borders of their pictures, whose (height, width) are (A, 2)."""
    limits = sizes[:, [1, 0, 1, 0]].astype(np.float32)
    return np.clip(boxes, np.float32(0), limits)


def _warn_about_boxes(annotated: Boxes, boxes: Boxes, kept: NDArray[np.bool_], path: Path) -> None:
    """One line for the whole file: how many boxes were clipped, how many dropped."""
    clipped = int((np.abs(boxes - annotated) > MARGIN_PX).any(axis=1).sum())
    dropped = int((~kept).sum())
    if clipped or dropped:
        logger.warning(
            "%s: %d boxes reached out of their picture and were clipped; %d had no area left "
            "and were dropped",
            path,
            clipped,
            dropped,
        )
