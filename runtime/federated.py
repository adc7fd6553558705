"""LVIS: data of which each picture is annotated for some classes only, and how it is scored.

A picture's `neg_category_ids` are classes verified to be absent; those it has boxes of are verified
too. A detection of any other class says nothing. Of the classes in `not_exhaustive_category_ids` a
detection without a box may be right. Source: Gupta et al. 2019, arXiv 1908.03195, Sec. 2.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from .errors import AnnotationError

FREQUENCIES = ("r", "c", "f")  # rare, common, frequent: in up to 10, up to 100, more pictures
LISTS = ("neg_category_ids", "not_exhaustive_category_ids")
MAX_DETECTIONS = 300  # of a picture, over all classes


def is_federated(annotations: dict[str, Any]) -> bool:
    """Whether these are LVIS's annotations: classes with a frequency, pictures with the two lists.

    Raises:
        AnnotationError: some classes or pictures have them and others do not, or a list is none.
    """
    classes, images = annotations["categories"], annotations["images"]
    if not any(category.get("frequency") in FREQUENCIES for category in classes):
        return False
    if not any(LISTS[0] in image for image in images):
        return False
    for category in classes:
        if category.get("frequency") not in FREQUENCIES:
            raise AnnotationError(
                f"category {category['id']}: expected the 'frequency' r, c or f, as LVIS's other "
                f"classes have it, got {category.get('frequency')!r:.40}"
            )
    for image in images:
        for key in LISTS:
            if not _are_ids(image.get(key)):
                raise AnnotationError(
                    f"image {image['id']}: expected {key!r} as a list of category ids, as LVIS's "
                    f"other pictures have it, got {image.get(key)!r:.40}"
                )
    return True


def _are_ids(values: Any) -> bool:
    return isinstance(values, list) and all(type(value) is int for value in values)


def best_of_each_picture(results: Sequence[dict[str, Any]], limit: int) -> list[dict[str, Any]]:
    """Each picture's `limit` best detections over all its classes, equal scores in their order."""
    pictures: dict[int, list[dict[str, Any]]] = {}
    for result in results:
        pictures.setdefault(result["image_id"], []).append(result)
    return [
        result
        for found in pictures.values()
        for result in sorted(found, key=lambda r: -float(r["score"]))[:limit]
    ]


def with_area(annotations: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Those that cover something; LVIS leaves the others out."""
    return [annotation for annotation in annotations if annotation["area"] > 0]


def with_extent(results: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Those whose box covers something; LVIS leaves the others out."""
    return [result for result in results if result["bbox"][2] * result["bbox"][3] > 0]
