"""What the readers of all formats share: complaints, text files, picture files."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias

from ..errors import AnnotationError
from ..pictures import PICTURE_SUFFIXES

Record: TypeAlias = dict[str, Any]
Complain: TypeAlias = Callable[[str], None]
"""Takes one line about one record; where it returns, the record is left out."""

LARGEST_PX = 1e7  # no side or place of a box is beyond it; float32 still tells pixels apart there
BYTE_ORDER_MARKS = {b"\xff\xfe\x00\x00": "UTF-32", b"\x00\x00\xfe\xff": "UTF-32"} | {
    b"\xff\xfe": "UTF-16",
    b"\xfe\xff": "UTF-16",
}


@dataclass(frozen=True, kw_only=True)
class AnnotatedPictures:
    """One annotated set, whatever format it was written in."""

    content: Record
    """COCO: `images`, `annotations`, `categories`; see `load_annotations`."""
    folder: Path
    """What the pictures' file names are relative to."""
    format: str
    """"coco", "yolo" or "voc"."""


class LabelFile(NamedTuple):
    """A picture and the file that holds its objects."""

    picture: Path
    label: Path


def refuse(message: str) -> None:
    """The complaint that stops at the first problem."""
    raise AnnotationError(message)


def read_text(path: Path, what: str) -> str:
    """A whole UTF-8 file, its byte order mark dropped.

    Args:
        what: what the file should be, for messages: "a label file".
    Raises:
        AnnotationError: it cannot be read, or is in another encoding.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        raise AnnotationError(f"{path}: cannot be read ({error.strerror or error})") from error
    for mark, name in BYTE_ORDER_MARKS.items():
        if data.startswith(mark):
            raise _wrong_encoding(path, what, name, name)
    if b"\0" in data[:4]:
        raise _wrong_encoding(path, what, "UTF-16 or binary", "UTF-16")
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        found = f"byte 0x{data[error.start]:02x} at place {error.start}"
        raise _wrong_encoding(path, what, found, "LATIN1") from error


def _wrong_encoding(path: Path, what: str, found: str, source: str) -> AnnotationError:
    return AnnotationError(
        f"{path}: expected {what} in UTF-8, got {found}; convert it: iconv -f {source} -t UTF-8"
    )


def leaves_folder(folder: Path, name: str) -> bool:
    """Whether a picture's name points out of its folder: absolute, or by `..`."""
    if ".." not in name and not os.path.isabs(name):
        return False
    base = os.path.abspath(folder)
    place = os.path.normpath(os.path.join(base, name))
    return os.path.commonpath([base, place]) != base


def check_name(folder: Path, name: str, where: str, complain: Complain) -> bool:
    """Whether a picture's name stays in its folder; complain where it does not."""
    inside = not leaves_folder(folder, name)
    if not inside:
        complain(
            f"{where}: expected a file name inside the folder of pictures {folder}, got "
            f"{name!r:.200}; make it relative to that folder"
        )
    return inside


def find_pictures(folder: Path) -> list[Path]:
    """The pictures in a folder and below, sorted; hidden ones are skipped."""
    found = [
        Path(root, name)
        for root, _, names in os.walk(folder)
        for name in names
        if os.path.splitext(name)[1].lower() in PICTURE_SUFFIXES and not name.startswith(".")
    ]
    return sorted(found)


def number_categories(names: Iterable[str], first: int) -> list[Record]:
    """COCO categories with ids first, first + 1, ..."""
    return [{"id": index, "name": name} for index, name in enumerate(names, start=first)]


def read_class_names(path: Path) -> list[str]:
    """A `classes.txt`: one name a line; empty lines at the end are dropped.

    Raises:
        AnnotationError: it names no class, a line in between is empty, or a name occurs twice.
    """
    names = [line.strip() for line in read_text(path, "a list of class names").rstrip().split("\n")]
    if "" in names:
        raise AnnotationError(
            f"{path}: expected one class name a line, got none in line {names.index('') + 1}"
        )
    twice = [name for name in names if names.count(name) > 1]
    if twice:
        raise AnnotationError(f"{path}: class {twice[0]!r} occurs twice; names must be unique")
    return names
