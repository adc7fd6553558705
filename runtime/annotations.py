"""COCO annotation files: read, checked, and returned as plain dicts with nothing missing."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any, TypeGuard

from .errors import AnnotationError

LARGEST_PX = 1e7  # no side or place of a box is beyond it; float32 still tells pixels apart there


def load_annotations(path: str | Path) -> dict[str, Any]:
    """Read and check a COCO detection file.

    Args:
        path: a JSON file with the lists `images`, `annotations` and `categories`.
    Returns:
        The file's dict. Each annotation has `iscrowd` (0 or 1) and `area` (a number >= 0), filled
        in where the file has none: 0, and the box's area. `bbox` is [x, y, width, height], pixels;
        it may lie outside its picture and may be empty.
    Raises:
        AnnotationError: no such file, not JSON, a key is missing, an id is repeated or unknown, a
            box is not four numbers up to LARGEST_PX, `iscrowd` or `area` is of another kind. The
            message names the file and the id.
    """
    path = Path(path)
    values = _read_json(path)
    for key in ("images", "annotations", "categories"):
        if not isinstance(values.get(key), list):
            found = type(values[key]).__name__ if key in values else "nothing"
            raise AnnotationError(f"{path}: expected a list under {key!r}, got {found}")
    image_ids = _check_records(path, "image", values["images"], file_name=str)
    category_ids = _check_records(path, "category", values["categories"], name=str)
    _check_records(path, "annotation", values["annotations"], image_id=int, category_id=int)
    for annotation in values["annotations"]:
        _complete_annotation(path, annotation, image_ids, category_ids)
    return values


def _read_json(path: Path) -> dict[str, Any]:
    try:
        values = json.loads(path.read_bytes())
    except OSError as error:
        raise AnnotationError(f"{path}: cannot be read ({error.strerror})") from error
    except (ValueError, RecursionError) as error:  # includes UnicodeDecodeError, JSONDecodeError
        raise AnnotationError(
            f"{path}: expected a COCO JSON file, got no JSON ({error})"
        ) from error
    if not isinstance(values, dict):
        raise AnnotationError(f"{path}: expected a JSON object, got {type(values).__name__}")
    return values


def _check_records(path: Path, kind: str, records: list[Any], **fields: type) -> set[int]:
    """Each record is a dict with an integer id of its own and the given fields; their ids."""
    ids: set[int] = set()
    for position, record in enumerate(records):
        if not isinstance(record, dict) or type(record.get("id")) is not int:
            raise AnnotationError(f"{path}: {kind} number {position}: expected an integer 'id'")
        identity = record["id"]
        if identity in ids:
            raise AnnotationError(f"{path}: {kind} id {identity} occurs twice; ids must be unique")
        ids.add(identity)
        for field, wanted in fields.items():
            if type(record.get(field)) is not wanted:
                found = repr(record[field]) if field in record else "nothing"
                expected = f"expected {field!r} as {wanted.__name__}"
                raise AnnotationError(f"{path}: {kind} {identity}: {expected}, got {found}")
    return ids


def _complete_annotation(
    path: Path, annotation: dict[str, Any], image_ids: set[int], category_ids: set[int]
) -> None:
    name = f"{path}: annotation {annotation['id']}"
    if annotation["image_id"] not in image_ids:
        raise AnnotationError(f"{name}: image_id {annotation['image_id']} is not among the images")
    if annotation["category_id"] not in category_ids:
        known = _shorten(sorted(category_ids))
        raise AnnotationError(
            f"{name}: expected a category_id out of {known}, got {annotation['category_id']}"
        )
    box = annotation.get("bbox")
    if not _is_box(box):
        raise AnnotationError(
            f"{name}: expected 'bbox' as [x, y, width >= 0, height >= 0] in pixels, none beyond "
            f"{LARGEST_PX:g}, got {box!r:.80}"
        )
    crowd = annotation.setdefault("iscrowd", 0)
    if type(crowd) not in (int, bool) or crowd not in (0, 1):
        raise AnnotationError(f"{name}: expected 'iscrowd' as 0 or 1, got {crowd!r:.80}")
    annotation["iscrowd"] = int(crowd)
    area = annotation.setdefault("area", box[2] * box[3])
    if not _is_between(area, 0, LARGEST_PX**2):
        raise AnnotationError(f"{name}: expected 'area' as a number >= 0, got {area!r:.80}")


def _is_box(box: Any) -> TypeGuard[list[float]]:
    if not isinstance(box, list) or len(box) != 4:
        return False
    lowest = (-LARGEST_PX, -LARGEST_PX, 0, 0)
    return all(_is_between(v, low, LARGEST_PX) for v, low in zip(box, lowest, strict=True))


def _is_between(value: Any, low: float, high: float) -> bool:
    """Whether it is a number of JSON's (not NaN, no true or false) in the range."""
    return type(value) in (int, float) and low <= value <= high


def _shorten(values: Iterable[int], limit: int = 8) -> str:
    """The first few values, for a message of one line."""
    shown = list(values)
    dots = ", …" if len(shown) > limit else ""
    return f"({', '.join(map(str, shown[:limit]))}{dots})"
