"""COCO annotations written out as YOLO and as Pascal VOC, the plain way, for reading them back."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from xml.sax.saxutils import escape

import numpy as np
from PIL import Image

Record = dict[str, Any]
SIZE = {"width": 100, "height": 80}


def picture(path: Path, size: tuple[int, int] = (80, 100), orientation: int = 1) -> Path:
    """A grey picture of (height, width) as stored, with an EXIF orientation."""
    path.parent.mkdir(parents=True, exist_ok=True)
    image = Image.fromarray(np.full((*size, 3), 90, np.uint8))
    exif = Image.Exif()
    exif[0x0112] = orientation
    image.save(path, exif=exif)
    return path


def objects(content: dict[str, Any]) -> dict[str, list[tuple[str, list[float], int]]]:
    """File name -> (class, box, crowd) in the order of the file."""
    names = {category["id"]: category["name"] for category in content["categories"]}
    files = {image["id"]: image["file_name"] for image in content["images"]}
    found: dict[str, list[tuple[str, list[float], int]]] = {name: [] for name in files.values()}
    for row in content["annotations"]:
        found[files[row["image_id"]]].append(
            (names[row["category_id"]], row["bbox"], row["iscrowd"])
        )
    return found


def rows_of(content: Record) -> Iterator[tuple[Record, list[Record]]]:
    """Each image and its annotations."""
    for image in content["images"]:
        yield image, [a for a in content["annotations"] if a["image_id"] == image["id"]]


def write_yolo(content: Record, pictures: Path, root: Path, split: str = "train") -> Path:
    """images/SPLIT, labels/SPLIT and a data.yaml; classes numbered by ascending category id."""
    categories = sorted(content["categories"], key=lambda c: c["id"])
    numbers = {category["id"]: index for index, category in enumerate(categories)}
    for folder in ("images", "labels"):
        (root / folder / split).mkdir(parents=True)
    for image, rows in rows_of(content):
        shutil.copy(pictures / image["file_name"], root / "images" / split)
        lines = [yolo_line(numbers[row["category_id"]], row["bbox"], image) for row in rows]
        if lines:  # a picture without objects has no file
            label = root / "labels" / split / image["file_name"]
            label.with_suffix(".txt").write_text("\n".join(lines) + "\n")
    path = root / "data.yaml"
    names = "".join(f"  {i}: {category['name']}\n" for i, category in enumerate(categories))
    path.write_text(f"path: .\n{split}: images/{split}\nnames:\n{names}")
    return path


def yolo_line(number: int, box: list[float], image: Record) -> str:
    """`class cx cy w h`, shares of the picture's sides."""
    x, y, w, h = box
    width, height = image["width"], image["height"]
    shares = ((x + w / 2) / width, (y + h / 2) / height, w / width, h / height)
    return " ".join([str(number), *(f"{share:.6f}" for share in shares)])


def write_voc(content: Record, pictures: Path, root: Path, split: str = "train") -> Path:
    """Annotations, JPEGImages and ImageSets/Main/SPLIT.txt; the list's path."""
    for folder in ("Annotations", "JPEGImages", "ImageSets/Main"):
        (root / folder).mkdir(parents=True, exist_ok=True)
    names = {category["id"]: category["name"] for category in content["categories"]}
    stems = []
    for image, rows in rows_of(content):
        shutil.copy(pictures / image["file_name"], root / "JPEGImages")
        objects = "".join(voc_object(names[row["category_id"]], row["bbox"]) for row in rows)
        stems.append(Path(image["file_name"]).stem)
        path = root / "Annotations" / f"{stems[-1]}.xml"
        path.write_text(voc_file(image["file_name"], objects, image["width"], image["height"]))
    listed = root / "ImageSets" / "Main" / f"{split}.txt"
    listed.write_text("\n".join(stems) + "\n")
    return listed


def voc_file(name: str, objects: str, width: int, height: int) -> str:
    """A whole VOC XML file."""
    size = f"<size><width>{width}</width><height>{height}</height><depth>3</depth></size>"
    return f"<annotation><filename>{escape(name)}</filename>{size}{objects}</annotation>"


def voc_object(name: str, box: list[float], extra: str = "") -> str:
    """An <object>; pixels are counted from 1 and both ends are inside."""
    x, y, w, h = box
    corners = {"xmin": x + 1, "ymin": y + 1, "xmax": x + w, "ymax": y + h}
    inner = "".join(f"<{key}>{value:g}</{key}>" for key, value in corners.items())
    return f"<object><name>{escape(name)}</name>{extra}<bndbox>{inner}</bndbox></object>"
