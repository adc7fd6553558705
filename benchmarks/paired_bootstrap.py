"""How sure a difference of AP is: the same pictures, drawn again and again with replacement."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from cn2.runtime.evaluation import coco_metrics

Record = dict[str, Any]
INTERVAL = (2.5, 97.5)  # percentiles: 95 % of the draws lie between


def paired_bootstrap(
    annotations: Record,
    first: Sequence[Record],
    second: Sequence[Record],
    draws: int,
    seed: int = 0,
    metric: Callable[[Record, Sequence[Record]], float] | None = None,
) -> list[float]:
    """By how much AP drops from the first to the second, on each draw of the pictures.

    Args:
        annotations: COCO.
        first, second: COCO results of two models on its pictures.
        draws: how many.
        seed: of the draws.
        metric: of annotations and results; default: AP.
    Returns:
        `draws` drops, in no order.
    """
    score = metric or (lambda truth, found: float(coco_metrics(truth, found)["AP"]))
    ids = [image["id"] for image in annotations["images"]]
    rng = np.random.default_rng(seed)
    drops = []
    for _ in range(draws):
        drawn = [ids[row] for row in rng.integers(0, len(ids), len(ids))]
        truth = drawn_annotations(annotations, drawn)
        drops.append(
            score(truth, drawn_results(first, drawn)) - score(truth, drawn_results(second, drawn))
        )
    return drops


def drawn_annotations(annotations: Record, drawn: Sequence[int]) -> Record:
    """Ground truth of drawn pictures, numbered anew, as one may be drawn twice."""
    images = {image["id"]: image for image in annotations["images"]}
    boxes = by_picture(annotations["annotations"])
    rows = [
        {**box, "image_id": number} for number, name in enumerate(drawn, 1) for box in boxes[name]
    ]
    return {
        **annotations,
        "images": [{**images[name], "id": number} for number, name in enumerate(drawn, 1)],
        "annotations": [{**row, "id": number} for number, row in enumerate(rows, 1)],
    }


def drawn_results(results: Sequence[Record], drawn: Sequence[int]) -> list[Record]:
    """Results on drawn pictures, numbered as `drawn_annotations` does."""
    boxes = by_picture(results)
    return [
        {**box, "image_id": number} for number, name in enumerate(drawn, 1) for box in boxes[name]
    ]


def by_picture(records: Sequence[Record]) -> dict[int, list[Record]]:
    """Records by their image_id."""
    groups: dict[int, list[Record]] = defaultdict(list)
    for record in records:
        groups[record["image_id"]].append(record)
    return groups


def interval(drops: Sequence[float]) -> tuple[float, float]:
    """Between which 95 % of them lie."""
    low, high = np.percentile(drops, INTERVAL)
    return float(low), float(high)
