"""COCO annotation files: one JSON file of images, annotations and categories."""

from __future__ import annotations

import gc
import json
import os
import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeGuard
from urllib.parse import urlsplit

from ..errors import AnnotationError
from .common import LARGEST_PX, Complain, Record, check_name, read_text

IDS = range(-(2**63), 2**63)  # what an id may be: it goes through int64 arrays
NO_TEXT = re.compile(r"[\x00-\x1f\x7f\ud800-\udfff]")  # neither in a file's name nor a class's
WHAT = "a COCO JSON file"


def read_coco(path: Path, folder: Path, complain: Complain) -> Record:
    """Read and check a COCO detection file.

    Args:
        path: the JSON file.
        folder: that file names are relative to; none may leave it.
        complain: takes a line for each bad record.
    Returns:
        The file's dict, records that were complained of left out. Each annotation has `iscrowd`
        and `area`. An image that has a `coco_url` alone, as LVIS's do, gets a `file_name`:
        `val2017/000000397133.jpg` below the folder, or where that is not there but the file
        itself is, `000000397133.jpg`.
    Raises:
        AnnotationError: no such file, no JSON, or one of the three lists is missing.
    """
    values = _read_json(path)
    for key in ("images", "annotations", "categories"):
        if not isinstance(values.get(key), list):
            found = type(values[key]).__name__ if key in values else "nothing"
            raise AnnotationError(f"{path}: expected a list under {key!r}, got {found}")
    for image in values["images"]:
        _name_by_url(image, folder)
    images = _checked(path, "image", values["images"], complain, file_name=str)
    images = [image for image in images if _stays(path, image, folder, complain)]
    categories = _checked(path, "category", values["categories"], complain, name=str)
    rows = _checked(
        path, "annotation", values["annotations"], complain, image_id=int, category_id=int
    )
    known = {image["id"] for image in images}, {category["id"] for category in categories}
    annotations = [row for row in rows if _completed(path, row, *known, complain)]
    return values | {"images": images, "categories": categories, "annotations": annotations}


def _read_json(path: Path) -> Record:
    text = read_text(path, WHAT)
    if not text.strip():
        raise AnnotationError(f"{path}: expected {WHAT}, got an empty file")
    try:
        with _collector_paused():
            values = json.loads(text)
    except (ValueError, RecursionError) as error:
        torn = text.lstrip()[0] == "{" and text.rstrip()[-1] != "}"
        hint = "; it ends in the middle, is the copy whole?" if torn else ""
        raise AnnotationError(f"{path}: expected {WHAT}, got no JSON ({error}){hint}") from error
    if not isinstance(values, dict):
        raise AnnotationError(f"{path}: expected a JSON object, got {type(values).__name__}")
    return values


@contextmanager
def _collector_paused() -> Iterator[None]:
    """JSON makes many objects and no cycles: looking for those doubles the time."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


def _checked(
    path: Path, kind: str, records: list[Any], complain: Complain, **fields: type
) -> list[Record]:
    """The records that are dicts with an integer id of their own and the given fields."""
    ids: set[int] = set()
    kept = []
    for position, record in enumerate(records):
        wrong = _what_is_wrong(kind, position, record, ids, fields)
        if wrong:
            complain(f"{path}: {wrong}")
        else:
            ids.add(record["id"])
            kept.append(record)
    return kept


def _what_is_wrong(
    kind: str, position: int, record: Any, ids: set[int], fields: dict[str, type]
) -> str | None:
    if not isinstance(record, dict) or type(record.get("id")) is not int:
        return f"{kind} number {position}: expected an integer 'id'"
    identity = record["id"]
    if identity in ids:
        return f"{kind} id {identity} occurs twice; ids must be unique"
    if identity not in IDS:
        return f"{kind} number {position}: expected an 'id' of at most 64 bits"
    for field, wanted in fields.items():
        if type(record.get(field)) is not wanted:
            found = f"{record[field]!r:.80}" if field in record else "nothing"
            return f"{kind} {identity}: expected {field!r} as {wanted.__name__}, got {found}"
        if wanted is str and NO_TEXT.search(record[field]):
            found = f"{record[field]!r:.80}"
            return f"{kind} {identity}: expected {field!r} as a line of text, got {found}"
    return None


def _name_by_url(image: Any, folder: Path) -> None:
    """A file name for a record that has only the address of its picture."""
    if not isinstance(image, dict) or "file_name" in image:
        return
    url = image.get("coco_url")
    if not isinstance(url, str) or NO_TEXT.search(url):
        return
    try:
        *_, split, name = urlsplit(url).path.split("/")
    except ValueError:  # no such parts, or brackets that are no address
        return
    if name in ("", ".", ".."):
        return
    below = os.path.isfile(folder / split / name) or not os.path.isfile(folder / name)
    image["file_name"] = f"{split}/{name}" if below and split else name


def _stays(path: Path, image: Record, folder: Path, complain: Complain) -> bool:
    return check_name(folder, image["file_name"], f"{path}: image {image['id']}", complain)


def _completed(
    path: Path, annotation: Record, images: set[int], categories: set[int], complain: Complain
) -> bool:
    """Fill in what the annotation may lack; whether it is sound."""
    crowd = annotation.setdefault("iscrowd", 0)
    box = annotation.get("bbox")
    wrong = None
    if annotation["image_id"] not in images:
        wrong = f"image_id {annotation['image_id']} is not among the images"
    elif annotation["category_id"] not in categories:
        known = _shorten(sorted(categories))
        wrong = f"expected a category_id out of {known}, got {annotation['category_id']}"
    elif not _is_box(box):
        wrong = (
            "expected 'bbox' as [x, y, width >= 0, height >= 0] in pixels, none beyond "
            f"{LARGEST_PX:g}, got {box!r:.80}"
        )
    elif type(crowd) not in (int, bool) or crowd not in (0, 1):
        wrong = f"expected 'iscrowd' as 0 or 1, got {crowd!r:.80}"
    elif not _is_between(annotation.setdefault("area", box[2] * box[3]), 0, LARGEST_PX**2):
        wrong = f"expected 'area' as a number >= 0, got {annotation['area']!r:.80}"
    if wrong:
        complain(f"{path}: annotation {annotation['id']}: {wrong}")
        return False
    annotation["iscrowd"] = int(crowd)
    return True


def _is_box(box: Any) -> TypeGuard[list[float]]:
    if not isinstance(box, list) or len(box) != 4:
        return False
    x, y, width, height = box
    return (
        _is_between(x, -LARGEST_PX, LARGEST_PX)
        and _is_between(y, -LARGEST_PX, LARGEST_PX)
        and _is_between(width, 0, LARGEST_PX)
        and _is_between(height, 0, LARGEST_PX)
    )


def _is_between(value: Any, low: float, high: float) -> bool:
    """Whether it is a number of JSON's (not NaN, no true or false) in the range."""
    return type(value) in (int, float) and low <= value <= high


def _shorten(values: Iterable[int], limit: int = 8) -> str:
    """The first few values, for a message of one line."""
    shown = list(values)
    dots = ", …" if len(shown) > limit else ""
    return f"({', '.join(map(str, shown[:limit]))}{dots})"
