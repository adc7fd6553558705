"""Classes of several sets brought under one numbering, by their names."""

from __future__ import annotations

import itertools
from collections.abc import Mapping

from ..federated import LISTS
from .common import Record


def match_classes(content: Record, known: Mapping[int, str]) -> dict[int, str]:
    """Give a set's classes the ids that classes of the same names have elsewhere.

    Args:
        content: COCO records; ids of categories, annotations and LVIS's lists are changed in place
            (of a class that the set has not, they are dropped from the lists). A class
            whose id and name are both known stays; one whose name alone is known gets that id; any
            other gets an id above all known ones, in the order of its own id.
        known: category id -> name.
    Returns:
        `known` with the new classes behind it.
    """
    classes = dict(known)
    by_name = {name: identity for identity, name in reversed(list(known.items()))}
    new_ids: dict[int, int] = {}
    for category in sorted(content["categories"], key=lambda c: int(c["id"])):
        identity, name = category["id"], category["name"]
        if known.get(identity) == name:
            new_ids[identity] = identity
        elif name in by_name:
            new_ids[identity] = by_name[name]
        else:
            new_ids[identity] = by_name[name] = max(classes, default=0) + 1
            classes[by_name[name]] = name
    content["categories"] = _renumbered(content["categories"], new_ids)
    for annotation in content["annotations"]:
        annotation["category_id"] = new_ids[annotation["category_id"]]
    for image, key in itertools.product(content["images"], LISTS):
        if isinstance(image.get(key), list):
            image[key] = [new_ids[identity] for identity in image[key] if identity in new_ids]
    return classes


def _renumbered(categories: list[Record], new_ids: dict[int, int]) -> list[Record]:
    """The categories under their new ids; of two that became one, the first."""
    kept: dict[int, Record] = {}
    for category in categories:
        identity = new_ids[category["id"]]
        kept.setdefault(identity, {**category, "id": identity})
    return list(kept.values())
