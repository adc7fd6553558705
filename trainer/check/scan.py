"""One annotated set as arrays, with what its picture files' headers say."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from cn2.runtime.evaluation import read_annotations

from ..data.coco import Record, clip_to_sizes, to_corners
from ..data.datasets import DataSource
from ..data.transforms import Boxes, resized_size
from ..train_config import Resize
from .files import PictureFile, look_at

NO_SIZE = (1, 1)  # of a picture whose size nobody knows; such are left out of statistics


@dataclass(frozen=True, kw_only=True, eq=False)
class Objects:
    """The annotations of a set, crowds left out."""

    ids: NDArray[np.int64]  # (A,) annotation ids
    owners: NDArray[np.int64]  # (A,) index of the picture
    categories: NDArray[np.int64]  # (A,) category ids
    annotated: Boxes  # (A, 4) xyxy, pixels
    boxes: Boxes  # (A, 4) clipped to the picture; may be empty
    areas: NDArray[np.float64]  # (A,) as annotated, pixels^2
    scaled: NDArray[np.float32]  # (A, 2) width and height at the training size, pixels


@dataclass(frozen=True, kw_only=True, eq=False)
class SetScan:
    """A set that could be read."""

    name: str  # "train", "train 2", "val"
    source: DataSource
    folder: Path
    format: str
    images: list[Record]
    files: list[PictureFile]  # of the same pictures
    classes: Mapping[int, str]
    objects: Objects
    crowds: int

    @property
    def sizes(self) -> NDArray[np.int64]:
        """(N, 2) height and width of the readable files' pictures."""
        known = [file.size for file in self.files if file.size is not None]
        return np.array(known, np.int64).reshape(-1, 2)

    def place(self, index: int) -> str:
        """A picture, for messages."""
        return f"{self.images[index]['file_name']} (image {self.images[index]['id']})"

    def objects_of(self, class_id: int) -> NDArray[np.int64]:
        """Rows of a class."""
        return np.flatnonzero(self.objects.categories == class_id)


def scan_set(name: str, source: DataSource, resize: Resize, complaints: list[str]) -> SetScan:
    """Read a set, sound records alone, and its files' headers.

    Args:
        name: for the report.
        resize: of the training.
        complaints: takes a line for each record that was left out.
    Raises:
        AnnotationError: nothing can be read.
    """
    read = read_annotations(
        source.annotations, source.images, split=source.split, complain=complaints.append
    )
    images = read.content["images"]
    files = look_at([read.folder / image["file_name"] for image in images])
    rows = [row for row in read.content["annotations"] if not row["iscrowd"]]
    classes = {category["id"]: category["name"] for category in read.content["categories"]}
    return SetScan(
        name=name,
        source=source,
        folder=read.folder,
        format=read.format,
        images=images,
        files=files,
        classes=dict(sorted(classes.items())),
        objects=_tabulate(images, rows, files, resize),
        crowds=len(read.content["annotations"]) - len(rows),
    )


def annotated_size(image: Record) -> tuple[int, int] | None:
    """(height, width) that an image's record names; None where it names none that can be."""
    height, width = image.get("height"), image.get("width")
    if type(height) is int and type(width) is int and height > 0 and width > 0:
        return height, width
    return None


def _tabulate(
    images: list[Record], rows: list[Record], files: list[PictureFile], resize: Resize
) -> Objects:
    places = {image["id"]: index for index, image in enumerate(images)}
    owners = np.array([places[row["image_id"]] for row in rows], np.int64)
    known = [annotated_size(i) or f.size or NO_SIZE for i, f in zip(images, files, strict=True)]
    sizes = np.array(known, np.int64).reshape(-1, 2)
    scaled = np.array([training_size(*size, resize) for size in known], np.float64).reshape(-1, 2)
    annotated = to_corners([row["bbox"] for row in rows])
    boxes = clip_to_sizes(annotated, sizes[owners])
    scale = (scaled / sizes)[owners][:, ::-1]  # (A, 2) of x, of y
    return Objects(
        ids=np.array([row["id"] for row in rows], np.int64),
        owners=owners,
        categories=np.array([row["category_id"] for row in rows], np.int64),
        annotated=annotated,
        boxes=boxes,
        areas=np.array([row["area"] for row in rows], np.float64),
        scaled=((boxes[:, 2:] - boxes[:, :2]) * scale).astype(np.float32),
    )


def training_size(height: int, width: int, resize: Resize) -> tuple[int, int]:
    """(height, width) of a picture at the largest size of a short-edge training; for resize-crop,
    where it just fits into the square."""
    if resize.kind == "short-edge":
        return resized_size(height, width, resize.largest, resize.long_edge)
    return resized_size(height, width, resize.size, resize.size)
