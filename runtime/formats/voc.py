"""Pascal VOC: an XML file a picture, boxes in pixels counted from 1, both ends inside.

`difficult` objects become COCO crowds: no target in training, and in the metrics a detection on one
counts neither for nor against.
"""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn
from xml.etree import ElementTree

from ..errors import AnnotationError
from ..pictures import PICTURE_SUFFIXES
from .common import (
    LARGEST_PX,
    AnnotatedPictures,
    Complain,
    Record,
    check_name,
    leaves_folder,
    number_categories,
    read_class_names,
    read_text,
)
from .headers import nominal_size

LARGEST_BYTES = 50_000_000  # of one XML file; 10,000 objects take 3 MB
CORNERS = ("xmin", "ymin", "xmax", "ymax")


def read_voc(path: Path, images: Path | None, split: str, complain: Complain) -> AnnotatedPictures:
    """Read a folder of XML files, a list file of ImageSets/Main, or a VOC folder's split.

    Classes are numbered from 1: in the order of a `classes.txt` in the folder of XML files or
    beside it, else sorted by name.

    Args:
        path: `.../Annotations`, `.../ImageSets/Main/train.txt`, or the folder above both.
        images: folder of the pictures; None: JPEGImages beside Annotations, or the XML's folder.
        split: the list of ImageSets/Main to read where `path` is the folder above.
        complain: takes a line for each bad file or object.
    Raises:
        AnnotationError: no XML file, no list, no class.
    """
    folder, files = _find_files(path, split)
    beside = folder.parent / "JPEGImages"
    pictures = images or (beside if beside.is_dir() else folder)
    names_on_disk = _stems(pictures)
    records, rows = [], []
    for image_id, file in enumerate(files, start=1):
        try:
            record, found = _read_file(file, pictures, names_on_disk, complain)
        except AnnotationError as error:
            complain(str(error))
            continue
        records.append({"id": image_id, **record})
        rows += [{"image_id": image_id, **row} for row in found]
    names = _class_names(folder, {row["name"] for row in rows})
    content = _content(records, rows, names, folder, complain)
    return AnnotatedPictures(content=content, folder=pictures, format="voc")


def _find_files(path: Path, split: str) -> tuple[Path, list[Path]]:
    """The folder of XML files, and those of the set."""
    if path.is_dir() and (path / "Annotations").is_dir():
        lists = path / "ImageSets" / "Main"
        path = lists / f"{split}.txt" if lists.is_dir() else path / "Annotations"
    if path.is_dir():
        return path, sorted(path.glob("*.xml"))
    folder = path.parent.parent.parent / "Annotations"
    return folder, [folder / f"{stem}.xml" for stem in _listed(path)]


def _listed(path: Path) -> list[str]:
    stems = []
    for number, line in enumerate(read_text(path, "a VOC list").split("\n"), start=1):
        words = line.split()
        if len(words) > 1 or (words and leaves_folder(path.parent, words[0])):
            raise AnnotationError(
                f"{path}: line {number}: expected the name of one picture without its suffix, got "
                f"{line!r:.80}; lists of one class (name, 1 or -1) are not for detection"
            )
        stems += words
    if not stems:
        raise AnnotationError(f"{path}: expected the name of a picture a line, got none")
    return list(dict.fromkeys(stems))


def _stems(pictures: Path) -> dict[str, str]:
    """Name without suffix -> name, of the pictures in a folder."""
    try:
        names = sorted(os.listdir(pictures))
    except OSError as error:
        raise AnnotationError(
            f"{pictures}: expected the folder of pictures, got none ({error.strerror})"
        ) from error
    split = (os.path.splitext(name) for name in names)
    return {stem: stem + end for stem, end in split if end.lower() in PICTURE_SUFFIXES}


def _read_file(
    path: Path, pictures: Path, on_disk: dict[str, str], complain: Complain
) -> tuple[Record, list[Record]]:
    """The picture's record and its objects'; `name` is the class."""
    root = _parse(path)
    name = (root.findtext("filename") or "").strip()
    if name and not check_name(pictures, name, str(path), complain):
        name = ""
    if not os.path.isfile(pictures / name):
        name = on_disk.get(path.stem) or name or path.stem
    height, width = (_side(root, side) for side in ("height", "width"))
    if not (height and width):
        height, width = nominal_size(pictures / name)
    rows = []
    for number, element in enumerate(root.findall("object"), start=1):
        try:
            rows.append(_object(element))
        except ValueError as error:
            complain(f"{path}: object {number}: {error}")
    return {"file_name": name, "height": height, "width": width}, rows


class _NoDoctype(ElementTree.TreeBuilder):
    """Refuses the only place where entities can be declared, before any is expanded."""

    def doctype(self, *_: str | None) -> NoReturn:
        raise ValueError("a DOCTYPE, which may hide entities")


def _parse(path: Path) -> ElementTree.Element:
    parser = ElementTree.XMLParser(target=_NoDoctype())
    try:
        if path.stat().st_size > LARGEST_BYTES:
            raise ValueError(f"more than {LARGEST_BYTES:,} bytes")
        root: ElementTree.Element = ElementTree.fromstring(path.read_bytes(), parser)
    except OSError as error:
        raise AnnotationError(f"{path}: cannot be read ({error.strerror or error})") from error
    except (ElementTree.ParseError, ValueError, LookupError) as error:
        raise AnnotationError(f"{path}: expected a VOC XML file, got {error}") from error
    if root.tag != "annotation":
        raise AnnotationError(f"{path}: expected <annotation>, got <{root.tag:.40}>")
    return root


def _side(root: ElementTree.Element, side: str) -> int:
    """A side of the picture, pixels; 0 where the file does not say."""
    try:
        return max(int(float(root.findtext(f"size/{side}") or 0)), 0)
    except (ValueError, OverflowError):
        return 0


def _object(element: ElementTree.Element) -> Record:
    name = (element.findtext("name") or "").strip()
    if not name:
        raise ValueError("expected a <name>, got none")
    corners = [_number(element, corner) for corner in CORNERS]
    left, top, right, bottom = corners
    box = [left - 1, top - 1, right - left + 1, bottom - top + 1]
    if min(box[2:]) < 0:
        raise ValueError(f"expected xmin <= xmax and ymin <= ymax, got {corners}")
    difficult = (element.findtext("difficult") or "0").strip() not in ("0", "false", "False")
    return {"name": name, "bbox": box, "area": box[2] * box[3], "iscrowd": int(difficult)}


def _number(element: ElementTree.Element, corner: str) -> float:
    text = (element.findtext(f"bndbox/{corner}") or "nothing").strip()
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not -LARGEST_PX <= value <= LARGEST_PX:
        raise ValueError(f"expected <{corner}> as pixels within {LARGEST_PX:g}, got {text!r:.40}")
    return value


def _class_names(folder: Path, found: set[str]) -> list[str]:
    for place in (folder / "classes.txt", folder.parent / "classes.txt"):
        if place.is_file():
            return read_class_names(place)
    return sorted(found)


def _content(
    images: list[Record],
    rows: list[Record],
    names: Sequence[str],
    folder: Path,
    complain: Complain,
) -> Record:
    """COCO records; a class that an explicit order lacks is complained of once a class."""
    categories = number_categories(names, first=1)
    ids = {category["name"]: category["id"] for category in categories}
    unknown = sorted({row["name"] for row in rows} - set(ids))
    for name in unknown:
        complain(f"{folder}: class {name!r:.80} is not in classes.txt; add it there")
    annotations = [
        {"id": number, "category_id": ids[row["name"]], **row}
        for number, row in enumerate((row for row in rows if row["name"] in ids), start=1)
    ]
    return {
        "images": images,
        "categories": categories,
        "annotations": [{k: v for k, v in row.items() if k != "name"} for row in annotations],
    }
