"""How many objects proposals cover: average recall, whatever the class, as COCO counts it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from .matching import match_boxes

PROPOSALS = (64, 128, 256, 512, 1000)  # a picture; the rows of the paper's Table 6


def proposal_recall(
    annotations: dict[str, Any],
    results: Sequence[dict[str, Any]],
    counts: Sequence[int] = PROPOSALS,
) -> dict[str, Any]:
    """Average recall of the best proposals of each picture.

    Args:
        annotations: COCO records; every category counts as the same, crowds do not count.
        results: COCO result dicts; their categories do not matter.
        counts: ascending; so many proposals of a picture are looked at.
    Returns:
        `AR64` and so on for each count, and `ARs64`, `ARm64`, `ARl64` of small, medium and large
        objects: the mean over the IoUs 0.5, 0.55 … 0.95 of the share of objects that are covered,
        None without such objects; and `images`.
    """
    objects = {
        **annotations,
        "categories": [{"id": 1, "name": "object"}],
        "annotations": [{**record, "category_id": 1} for record in annotations["annotations"]],
    }
    ids = {image["id"] for image in annotations["images"]}
    _, recall = match_boxes(
        objects, [{**result, "category_id": 1} for result in results], ids, counts
    )
    found: dict[str, Any] = {}
    for n, count in enumerate(counts):
        for area, letter in enumerate(("", "s", "m", "l")):
            values = recall[:, 0, area, n]
            counted = values[values > -1]
            found[f"AR{letter}{count}"] = float(counted.mean()) if counted.size else None
    return {**found, "images": len(ids)}
