"""The data.yaml of YOLO data sets: where the pictures of each split lie, and the classes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ..errors import AnnotationError, DependencyError
from .common import (
    AnnotatedPictures,
    Complain,
    LabelFile,
    check_name,
    find_pictures,
    read_text,
)
from .yolo import is_picture, swap_part, yolo_content

LARGEST_BYTES = 1_000_000  # of a data.yaml; LVIS's 1203 classes take 30 KB
SPLITS = {"val": ("val", "valid", "validation"), "train": ("train",), "test": ("test",)}


def read_yolo_yaml(path: Path, split: str, complain: Complain) -> AnnotatedPictures:
    """Read one split of a data.yaml.

    Paths are relative to the file's `path`, else to the file's own folder. The labels of a picture
    lie in `labels` where its own path says `images`, or beside it.

    Args:
        split: "train", "val", "test", or any other key of the file.
        complain: takes a line for each bad label, and for a listed picture that leaves the folder.
    Raises:
        AnnotationError: the file, its classes or the split's pictures are not there.
        DependencyError: PyYAML is not installed.
    """
    values = _read_yaml(path)
    names = _class_names(path, values)
    root, places = _split_places(path, values, split)
    pictures = [picture for place in places for picture in _pictures(place, root, complain)]
    if not pictures:
        raise AnnotationError(f"{path}: split {split!r}: no picture in {places[0]}")
    folder = _common_folder(pictures)
    labels = _LabelPlaces()
    files = [LabelFile(picture, labels.of(picture)) for picture in sorted(set(pictures))]
    content = yolo_content(files, folder, names, complain)
    return AnnotatedPictures(content=content, folder=folder, format="yolo")


def _read_yaml(path: Path) -> dict[str, Any]:
    try:
        import yaml  # type: ignore[import-untyped]
    except ImportError as error:
        raise DependencyError(
            "PyYAML, which reads data.yaml, is not installed; pip install 'cn2[eval]'"
        ) from error
    if path.is_file() and path.stat().st_size > LARGEST_BYTES:
        raise AnnotationError(f"{path}: expected a data.yaml of at most {LARGEST_BYTES:,} bytes")
    text = read_text(path, "a data.yaml")
    try:
        values = yaml.load(text, yaml.BaseLoader)  # text alone, so that a class may be named `no`
    except (yaml.YAMLError, RecursionError) as error:
        reason = " ".join(str(error).split())
        raise AnnotationError(
            f"{path}: expected a data.yaml, got no YAML ({reason:.200})"
        ) from error
    if not isinstance(values, dict):
        raise AnnotationError(f"{path}: expected a data.yaml with `names` and splits, got no table")
    if "kpt_shape" in values:
        raise AnnotationError(f"{path}: holds poses (kpt_shape); expected boxes or polygons")
    return values


def read_yaml_names(path: Path) -> list[str]:
    """The class names of a data.yaml alone."""
    return _class_names(path, _read_yaml(path))


def _class_names(path: Path, values: dict[str, Any]) -> list[str]:
    """Of a list, or of a table of class number -> name."""
    names = values.get("names")
    if isinstance(names, dict):
        numbers = [str(number) for number in range(len(names))]
        names = [names[n] for n in numbers] if set(names) == set(numbers) else None
    if not isinstance(names, list) or not names or not all(isinstance(n, str) for n in names):
        raise AnnotationError(
            f"{path}: expected `names` as a list of class names, or numbered from 0 without gaps"
        )
    count = values.get("nc", str(len(names)))
    if count != str(len(names)):
        raise AnnotationError(f"{path}: `nc` says {count} classes, `names` has {len(names)}")
    return names


def _split_places(path: Path, values: dict[str, Any], split: str) -> tuple[Path, list[Path]]:
    """The data set's folder, and the folders or lists of the split's pictures."""
    key = next((k for k in SPLITS.get(split, (split,)) if values.get(k)), None)
    if key is None:
        named = [k for k in values if k not in ("path", "names", "nc", "download")]
        raise AnnotationError(
            f"{path}: no split {split!r}; the file has {', '.join(named) or 'none'}"
        )
    given = values[key] if isinstance(values[key], list) else [values[key]]
    beside = path.parent.absolute()  # as lists may name pictures absolutely
    roots = [beside / str(values.get("path") or "."), beside]
    for root in roots:
        places = [root / str(place) for place in given]
        if all(place.exists() for place in places):
            return root, places
    # An exporter in wide use writes ../train/images, and means train/images beside the file.
    places = [beside / str(place).removeprefix("../") for place in given]
    if all(place.exists() for place in places):
        return beside, places
    looked = ", ".join(str(root / str(given[0])) for root in dict.fromkeys(roots))
    raise AnnotationError(f"{path}: split {split!r}: nothing at {looked}; mend `path` or `{key}`")


def _pictures(place: Path, root: Path, complain: Complain) -> list[Path]:
    """Of a folder, or of a text file that lists them."""
    if place.is_dir():
        return find_pictures(place)
    pictures = []
    for number, line in enumerate(read_text(place, "a list of pictures").split("\n"), start=1):
        name, where = line.strip(), f"{place}: line {number}"
        if not name or not check_name(root, name, where, complain):
            continue
        picture = next(
            (base / name for base in (root, place.parent) if (base / name).is_file()), None
        )
        if picture is None or not is_picture(picture):
            complain(f"{where}: no picture {root / name}")
        else:
            pictures.append(picture)
    return pictures


def _common_folder(pictures: list[Path]) -> Path:
    parents = sorted({picture.parent for picture in pictures})
    first, last = parents[0], parents[-1]
    while not last.is_relative_to(first):
        first = first.parent
    return first


class _LabelPlaces:
    """Where the label files of pictures are; each folder is looked at once."""

    def __init__(self) -> None:
        self._folders: dict[Path, Path] = {}

    def of(self, picture: Path) -> Path:
        """The label file of a picture, which may not be there."""
        if picture.parent not in self._folders:
            twin = swap_part(picture.parent, "images", "labels")
            there = twin is not None and twin.is_dir()
            self._folders[picture.parent] = twin if twin and there else picture.parent
        return self._folders[picture.parent] / f"{picture.stem}.txt"
