"""A file that lists classes: one name a line, the categories of a COCO JSON, a YOLO data.yaml."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from ..errors import AnnotationError
from .common import read_class_names, read_text
from .yolo_yaml import read_yaml_names

WHAT = "a list of classes"


def read_class_list(path: Path) -> dict[int, str]:
    """Category id -> class name, in the order in which a detector counts its classes.

    Args:
        path: .json: COCO categories (the file may hold just these), ordered by id as detectron2
            does; .yaml: a YOLO data.yaml; any other: one name a line. Without ids of their own
            classes get 0, 1, ...
    Raises:
        AnnotationError: it cannot be read, names no class, or an id or a name occurs twice.
        DependencyError: a data.yaml without PyYAML.
    """
    suffix = path.suffix.lower()
    if suffix == ".json":
        return _coco_classes(path)
    names = read_yaml_names(path) if suffix in (".yaml", ".yml") else read_class_names(path)
    return dict(enumerate(names))


def _coco_classes(path: Path) -> dict[int, str]:
    try:
        values = json.loads(read_text(path, WHAT))
    except (ValueError, RecursionError) as error:
        raise AnnotationError(f"{path}: expected {WHAT}, got no JSON ({error})") from None
    categories = values.get("categories") if isinstance(values, dict) else values
    if not isinstance(categories, list) or not all(map(_is_category, categories)) or not categories:
        raise AnnotationError(
            f"{path}: expected COCO categories, each with an integer 'id' and a 'name', got others"
        )
    classes = {category["id"]: category["name"] for category in categories}
    if len({*classes.values()}) != len(categories):
        raise AnnotationError(f"{path}: an id or a name occurs twice; both must be unique")
    return dict(sorted(classes.items()))


def _is_category(record: Any) -> bool:
    return (
        isinstance(record, dict)
        and type(record.get("id")) is int
        and isinstance(record.get("name"), str)
    )
