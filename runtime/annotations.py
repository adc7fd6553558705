"""Annotated pictures by path: COCO JSON, YOLO labels or Pascal VOC in, the same COCO dict out."""

from __future__ import annotations

from pathlib import Path

from .errors import AnnotationError
from .formats.coco import read_coco
from .formats.common import AnnotatedPictures, Complain, Record, refuse
from .formats.voc import read_voc
from .formats.yolo import is_label_folder, read_yolo_folder
from .formats.yolo_yaml import read_yolo_yaml

YAML = (".yaml", ".yml")
KNOWN = "a COCO .json, a YOLO data.yaml or folder of .txt, a Pascal VOC folder or ImageSets list"


def load_annotations(
    path: str | Path,
    images: str | Path | None = None,
    *,
    split: str = "val",
    complain: Complain = refuse,
) -> Record:
    """The content of `read_annotations`: a COCO dict, checked, with nothing missing."""
    return read_annotations(path, images, split=split, complain=complain).content


def read_annotations(
    path: str | Path,
    images: str | Path | None = None,
    *,
    split: str = "val",
    complain: Complain = refuse,
) -> AnnotatedPictures:
    """Read and check annotations in the format that the path shows.

    Args:
        path: a COCO JSON file; a YOLO data.yaml, its folder, or a folder of YOLO .txt labels with
            classes.txt; a folder of Pascal VOC XML files, the folder above it, or a list file in
            ImageSets/Main beside it.
        images: the folder of the pictures. None: where the format says; the JSON file's own folder.
        split: which part of a data.yaml or a VOC folder; `data.yaml:test` in the path goes before.
        complain: takes a line for each bad record, which is then left out; by default the first
            one is raised.
    Returns:
        COCO records and the pictures' folder. Each annotation has `iscrowd` (0 or 1) and `area` (a
        number >= 0), where the file has none: 0, and the box's area. `bbox` is [x, y, width,
        height], pixels; it may lie outside its picture and may be empty. Images of YOLO and VOC
        have `height` and `width`. Every `file_name` stays in the folder.
    Raises:
        AnnotationError: no such file, not of these formats, a key is missing, an id is repeated or
            unknown, a box is not four numbers up to LARGEST_PX, `iscrowd` or `area` is of another
            kind, a file name leaves the folder. The message names the file and the id or line.
        DependencyError: a data.yaml without PyYAML.
    """
    path, split = split_of(Path(path), split)
    folder = None if images is None else Path(images)
    if path.suffix.lower() in YAML or (path / "data.yaml").is_file():
        if folder is not None:
            raise AnnotationError(
                f"{path}: names its own pictures; leave the folder of pictures {folder} out"
            )
        return read_yolo_yaml(
            path if path.suffix.lower() in YAML else path / "data.yaml", split, complain
        )
    if path.is_dir() and not (path / "Annotations").is_dir() and not any(path.glob("*.xml")):
        if not is_label_folder(path):
            raise AnnotationError(f"{path}: expected {KNOWN}, got a folder without any of them")
        return read_yolo_folder(path, folder, complain)
    if path.is_dir() or _is_voc_list(path):
        return read_voc(path, folder, split, complain)
    folder = folder or path.parent
    return AnnotatedPictures(
        content=read_coco(path, folder, complain), folder=folder, format="coco"
    )


def split_of(path: Path, split: str) -> tuple[Path, str]:
    """A path with a split behind a colon taken apart: `data.yaml:test`; else as given."""
    if path.exists() or ":" not in path.name:
        return path, split
    name, _, chosen = path.name.rpartition(":")
    return (path.with_name(name), chosen) if name and chosen else (path, split)


def names_its_pictures(path: Path) -> bool:
    """Whether a folder of pictures beside this path would be one too many: a data.yaml."""
    path, _ = split_of(path, "")
    return path.suffix.lower() in YAML or (path / "data.yaml").is_file()


def _is_voc_list(path: Path) -> bool:
    return path.suffix == ".txt" and (path.parent.parent.parent / "Annotations").is_dir()
