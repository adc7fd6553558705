"""The losses once more, as slow loops over single cells and RoIs in double precision."""

from __future__ import annotations

import math
from collections.abc import Sequence


def focal_loops(
    logits: Sequence[float],
    targets: Sequence[float],
    positives: Sequence[int],
    ignore_high_negatives: float,
) -> tuple[float, float]:
    """Positive and negative sum at alpha 0.25, gamma 2, beta 4."""
    chances = [min(max(1 / (1 + math.exp(-logit)), 1e-4), 1 - 1e-4) for logit in logits]
    positive = negative = 0.0
    for index in positives:
        positive -= 0.25 * (1 - chances[index]) ** 2 * math.log(chances[index])
    for chance, target in zip(chances, targets, strict=True):
        if chance < ignore_high_negatives:
            negative -= 0.75 * (1 - target) ** 4 * chance**2 * math.log(1 - chance)
    return positive, negative


def giou_loops(ltrb: Sequence[Sequence[float]], targets: Sequence[Sequence[float]]) -> float:
    """Sum over boxes; the IoU has + 1 above and below, the penalty has not."""
    total = 0.0
    for found, wanted in zip(ltrb, targets, strict=True):
        box, other = _corners(found), _corners(wanted)
        width = min(box[2], other[2]) - max(box[0], other[0])
        height = min(box[3], other[3]) - max(box[1], other[1])
        overlap = width * height
        union = _area(box) + _area(other) - overlap
        hull = (max(box[2], other[2]) - min(box[0], other[0])) * (
            max(box[3], other[3]) - min(box[1], other[1])
        )
        total += 1 - ((overlap + 1) / (union + 1) - (hull - union) / hull)
    return total


def _corners(ltrb: Sequence[float]) -> tuple[float, float, float, float]:
    """The box around location (0, 0)."""
    return -ltrb[0], -ltrb[1], ltrb[2], ltrb[3]


def _area(box: Sequence[float]) -> float:
    return (box[2] - box[0]) * (box[3] - box[1])


def cross_entropy_loops(logits: Sequence[Sequence[float]], classes: Sequence[int]) -> float:
    """Sum over RoIs of -log softmax."""
    total = 0.0
    for row, wanted in zip(logits, classes, strict=True):
        total += math.log(sum(math.exp(logit) for logit in row)) - row[wanted]
    return total


def sigmoid_loops(
    logits: Sequence[Sequence[float]], classes: Sequence[int], counted: Sequence[bool]
) -> float:
    """Sum over RoIs and counted classes of binary cross-entropy; the last column has no part."""
    total = 0.0
    for row, wanted in zip(logits, classes, strict=True):
        for label, logit in enumerate(row[:-1]):
            if counted[label]:
                sign = 1 if label == wanted else -1
                total += math.log1p(math.exp(-sign * logit))
    return total


def federated_loops(classes: Sequence[int], ranks: Sequence[float], count: int) -> list[bool]:
    """Classes that occur, then the best ranked until there are `count`; the background counts."""
    chosen = set(classes)
    for label in sorted(range(len(ranks)), key=lambda k: (-ranks[k], k)):
        if len(chosen) < count and ranks[label] > 0:
            chosen.add(label)
    return [label in chosen for label in range(len(ranks))]


def delta_loops(deltas: Sequence[Sequence[float]], targets: Sequence[Sequence[float]]) -> float:
    """Sum of absolute errors."""
    total = 0.0
    for found, wanted in zip(deltas, targets, strict=True):
        total += sum(abs(a - b) for a, b in zip(found, wanted, strict=True))
    return total
