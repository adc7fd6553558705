"""YOLO labels: a text file a picture, a line an object: class, then shares of the picture's sides.

A line is `class cx cy w h`, or `class x1 y1 x2 y2 x3 y3 ...`, a polygon, of which the box around it
is taken. A picture whose file of labels is empty or missing has no object.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

from ..errors import AnnotationError
from ..pictures import PICTURE_SUFFIXES
from .common import (
    AnnotatedPictures,
    Complain,
    LabelFile,
    Record,
    find_pictures,
    number_categories,
    read_class_names,
    read_text,
)
from .headers import nominal_size

CLASSES_FILE = "classes.txt"
ROUNDING = 0.01  # by so much of a side may a share leave 0..1; a box may reach out farther
LINE = "expected 'class cx cy w h' or 'class x1 y1 x2 y2 x3 y3 ...'"


def read_yolo_folder(folder: Path, images: Path | None, complain: Complain) -> AnnotatedPictures:
    """Read a folder of label files with its `classes.txt`, in the folder or beside it.

    Args:
        folder: of the label files; sub-folders are those of the pictures.
        images: folder of the pictures; None: `images` in place of `labels` in the folder's path,
            or the folder itself.
        complain: takes a line for each bad line, and for labels without a picture.
    Raises:
        AnnotationError: no classes, no pictures.
    """
    names = _names_beside(folder)
    pictures_folder = images or _images_of(folder)
    files = [
        LabelFile(path, (folder / path.relative_to(pictures_folder)).with_suffix(".txt"))
        for path in find_pictures(pictures_folder)
    ]
    if not files:
        raise AnnotationError(
            f"{folder}: expected pictures of these labels in {pictures_folder}, found none; "
            "name their folder (--train-images, --val-images, --images)"
        )
    known = {file.label for file in files}
    for label in sorted(folder.rglob("*.txt")):
        if label not in known and label.name != CLASSES_FILE:
            complain(f"{label}: no picture of that name in {pictures_folder}")
    content = yolo_content(files, pictures_folder, names, complain)
    return AnnotatedPictures(content=content, folder=pictures_folder, format="yolo")


def _names_beside(folder: Path) -> list[str]:
    for place in (folder / CLASSES_FILE, folder.parent / CLASSES_FILE):
        if place.is_file():
            return read_class_names(place)
    raise AnnotationError(
        f"{folder}: expected {CLASSES_FILE} in this folder of labels or beside it, one class name "
        "a line, found none; write it, or give the data.yaml"
    )


def _images_of(folder: Path) -> Path:
    twin = swap_part(folder, "labels", "images")
    return twin if twin is not None and twin.is_dir() else folder


def swap_part(path: Path, part: str, by: str) -> Path | None:
    """The path with the last of its parts of that name replaced; None where it has none."""
    parts = list(path.absolute().parts)
    if part not in parts:
        return None
    last = len(parts) - 1 - parts[::-1].index(part)
    return Path(*parts[:last], by, *parts[last + 1 :])


def yolo_content(
    files: Sequence[LabelFile], folder: Path, names: Sequence[str], complain: Complain
) -> Record:
    """COCO records of pictures and their labels; ids count pictures and lines from 1.

    Args:
        files: pictures inside `folder`, and where their labels are, if there are any.
        names: of the classes; category ids are the format's own class numbers, from 0.
    Raises:
        AnnotationError: not one of the label files is there.
    """
    images: list[Record] = []
    annotations: list[Record] = []
    found = 0
    for image_id, (picture, label) in enumerate(files, start=1):
        height, width = nominal_size(picture)
        name = picture.relative_to(folder).as_posix()
        images.append({"id": image_id, "file_name": name, "height": height, "width": width})
        if label.is_file():
            found += 1
            for category, box in _read_label(label, (height, width), len(names), complain):
                annotations.append(_annotation(len(annotations) + 1, image_id, category, box))
    if not found:
        raise AnnotationError(
            f"{folder}: expected a label file for each of {len(files)} pictures, found none; "
            f"the first would be {files[0].label}"
        )
    categories = number_categories(names, first=0)
    return {"images": images, "annotations": annotations, "categories": categories}


def _annotation(identity: int, image_id: int, category: int, box: list[float]) -> Record:
    return {
        "id": identity,
        "image_id": image_id,
        "category_id": category,
        "bbox": box,
        "area": box[2] * box[3],
        "iscrowd": 0,
    }


def _read_label(
    path: Path, size: tuple[int, int], classes: int, complain: Complain
) -> list[tuple[int, list[float]]]:
    """(class, [x, y, width, height] in pixels) of each sound line."""
    rows = []
    try:
        lines = read_text(path, "a YOLO label file").split("\n")
    except AnnotationError as error:
        complain(str(error))
        return []
    for number, line in enumerate(lines, start=1):
        try:
            if line.strip():
                rows.append(_parse_line(line.split(), size, classes))
        except ValueError as error:
            complain(f"{path}: line {number}: {error}")
    return rows


def _parse_line(words: list[str], size: tuple[int, int], classes: int) -> tuple[int, list[float]]:
    if len(words) != 5 and (len(words) < 7 or len(words) % 2 == 0):
        hint = "; is the last a confidence?" if len(words) == 6 else ""
        raise ValueError(f"{LINE}, got {len(words)} numbers{hint}")
    try:
        category, *shares = (float(word) for word in words)
    except ValueError:
        raise ValueError(f"{LINE} in numbers, got {' '.join(words)!r:.80}") from None
    if category not in range(classes):
        raise ValueError(f"expected a class of 0..{classes - 1}, got {words[0]:.20}")
    wrong = [v for v in shares if not -ROUNDING <= v <= 1 + ROUNDING]
    if wrong or (len(shares) == 4 and min(shares[2:]) < 0):
        hint = "; are these pixels?" if max(map(abs, shares)) > 2 else ""
        raise ValueError(
            f"expected shares of the picture's sides between 0 and 1, got "
            f"{' '.join(words[1:5])!r:.80}{hint}"
        )
    return int(category), _to_pixels(shares, size)


def _to_pixels(shares: list[float], size: tuple[int, int]) -> list[float]:
    """[x, y, width, height] of a box or around a polygon, pixels."""
    height, width = size
    if len(shares) == 4:
        x, y, w, h = shares
        left, top = x - w / 2, y - h / 2
    else:
        left, top = min(shares[::2]), min(shares[1::2])
        w, h = max(shares[::2]) - left, max(shares[1::2]) - top
    assert all(map(math.isfinite, (left, top, w, h)))  # comparisons let no NaN through
    return [left * width, top * height, w * width, h * height]


def is_label_folder(folder: Path) -> bool:
    """Whether it holds text files, as label folders do; one look, sub-folders too."""
    return next(folder.rglob("*.txt"), None) is not None


def is_picture(path: Path) -> bool:
    """Whether its name is a picture's."""
    return path.suffix.lower() in PICTURE_SUFFIXES
