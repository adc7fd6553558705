"""A COCO annotation file in, one `Picture` per image out: path, size, boxes, classes.

The file is checked once, here; every complaint names the file and the id of what is wrong.
"""

from __future__ import annotations

import json
import logging
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cn2.runtime.errors import AnnotationError

from .transforms import clip_boxes

logger = logging.getLogger(__name__)

Record = dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class Picture:
    """One picture of the data set and its ground truth."""

    image_id: int
    path: Path
    height: int  # pixels, as the annotation file says
    width: int
    boxes: NDArray[np.float32]  # (N, 4) xyxy, pixels, inside the picture, not empty
    classes: NDArray[np.int64]  # (N,) 0-based


@dataclass(frozen=True, kw_only=True)
class CocoDataset:
    """The pictures of one annotation file, and its classes in order of category id."""

    annotation_file: Path
    pictures: list[Picture]
    class_names: tuple[str, ...]
    category_ids: tuple[int, ...]


def load_coco(
    annotation_file: Path, folder: Path, category_ids: tuple[int, ...] | None = None
) -> CocoDataset:
    """Read and check a COCO file.

    Crowd annotations are left out: they are no target. Boxes are clipped to their picture and
    dropped when nothing is left; one warning counts both.

    Args:
        annotation_file: COCO JSON with images, annotations, categories.
        folder: where the pictures lie.
        category_ids: the classes to use, in class order; None takes the file's own, ascending.
    Raises:
        AnnotationError: unreadable file, missing key, duplicate id, unknown image or category,
            malformed box, missing picture.
    """
    content = _read_json(annotation_file)
    categories = _by_id(content, "categories", annotation_file)
    ids = tuple(sorted(categories)) if category_ids is None else category_ids
    images = _by_id(content, "images", annotation_file)
    classes = {category: index for index, category in enumerate(ids)}
    rows = _rows_by_image(content, annotation_file, images, classes)
    pictures = [
        _picture(record, rows[key], folder, annotation_file) for key, record in images.items()
    ]
    _warn_about_boxes(rows, pictures, annotation_file)
    names = tuple(str(categories[i]["name"]) if i in categories else str(i) for i in ids)
    return CocoDataset(
        annotation_file=annotation_file, pictures=pictures, class_names=names, category_ids=ids
    )


def _read_json(path: Path) -> Record:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise AnnotationError(
            f"{path}: cannot be read ({error.strerror}); check --train/--val"
        ) from None
    except ValueError as error:
        raise AnnotationError(f"{path}: expected COCO JSON, got {error}; is it torn?") from None
    if not isinstance(content, dict):
        raise AnnotationError(f"{path}: expected a JSON object, got {type(content).__name__}")
    for key in ("images", "annotations", "categories"):
        if not isinstance(content.get(key), list):
            raise AnnotationError(f"{path}: expected a list under {key!r}, found none")
    return content


def _by_id(content: Record, key: str, path: Path) -> dict[int, Record]:
    """The records of a list by their id, in the file's order."""
    needed = {"images": ("id", "file_name", "height", "width"), "categories": ("id", "name")}[key]
    found: dict[int, Record] = {}
    for record in content[key]:
        for name in needed:
            if name not in record:
                raise AnnotationError(
                    f"{path}: {key} id {record.get('id')}: expected the key {name!r}, found none"
                )
        if record["id"] in found:
            raise AnnotationError(
                f"{path}: {key}: the id {record['id']} stands twice; ids must be unique"
            )
        found[record["id"]] = record
    return found


def _rows_by_image(
    content: Record, path: Path, images: dict[int, Record], classes: dict[int, int]
) -> dict[int, list[tuple[list[float], int]]]:
    """Per image id its (xywh, class index) pairs, crowds left out."""
    rows: dict[int, list[tuple[list[float], int]]] = defaultdict(list)
    seen: set[int] = set()
    for annotation in content["annotations"]:
        key = annotation.get("id")
        where = f"{path}: annotation id {key}"
        if key in seen:
            raise AnnotationError(f"{where}: this id stands twice; ids must be unique")
        seen.add(key)
        if annotation.get("image_id") not in images:
            raise AnnotationError(
                f"{where}: image_id {annotation.get('image_id')} is not in images"
            )
        if annotation.get("category_id") not in classes:
            raise AnnotationError(
                f"{where}: expected a category_id out of {_short(classes)}, "
                f"got {annotation.get('category_id')}"
            )
        box = _checked_box(annotation.get("bbox"), where)
        if not annotation.get("iscrowd", 0):
            rows[annotation["image_id"]].append((box, classes[annotation["category_id"]]))
    return rows


def _checked_box(box: Any, where: str) -> list[float]:
    if isinstance(box, list) and len(box) == 4:
        try:
            values = [float(value) for value in box]
        except (TypeError, ValueError):
            values = []
        if values and np.isfinite(values).all():
            return values
    raise AnnotationError(f"{where}: expected bbox [x, y, width, height] of numbers, got {box}")


def _short(classes: dict[int, int]) -> str:
    names = [str(category) for category in classes]
    return ", ".join(names if len(names) <= 12 else [*names[:12], "..."])


def _picture(
    record: Record, rows: list[tuple[list[float], int]], folder: Path, annotation_file: Path
) -> Picture:
    path = folder / record["file_name"]
    if not path.is_file():
        raise AnnotationError(
            f"{annotation_file}: images id {record['id']}: {path} does not exist; "
            "is the picture folder right?"
        )
    height, width = int(record["height"]), int(record["width"])
    xywh = np.array([box for box, _ in rows], np.float32).reshape(-1, 4)
    boxes = clip_boxes(np.concatenate([xywh[:, :2], xywh[:, :2] + xywh[:, 2:]], 1), height, width)
    kept = (boxes[:, 2:] > boxes[:, :2]).all(1)
    classes = np.array([label for _, label in rows], np.int64)
    return Picture(
        image_id=int(record["id"]),
        path=path,
        height=height,
        width=width,
        boxes=boxes[kept],
        classes=classes[kept],
    )


def _warn_about_boxes(
    rows: dict[int, list[tuple[list[float], int]]], pictures: list[Picture], path: Path
) -> None:
    """One line for the whole file: how many boxes were clipped, how many dropped."""
    clipped = dropped = 0
    for picture in pictures:
        of_picture = rows[picture.image_id]
        dropped += len(of_picture) - len(picture.boxes)
        for (x, y, width, height), _ in of_picture:
            # COCO rounds to 1/100 pixel: less than that is no mistake.
            outside = min(x, y) < -0.01 or x + width > picture.width + 0.01
            clipped += outside or y + height > picture.height + 0.01
    if clipped or dropped:
        logger.warning(
            "%s: %d boxes reached outside their picture and were clipped; %d had no area inside "
            "and were dropped", path, clipped, dropped
        )  # fmt: skip
