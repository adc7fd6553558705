"""Slow plain loops that say what the detector's operators do, on nested lists and numpy."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]


def iou(first: Array, second: Array) -> float:
    """Overlap of two boxes; 0 where the union is empty."""
    width = min(first[2], second[2]) - max(first[0], second[0])
    height = min(first[3], second[3]) - max(first[1], second[1])
    overlap = max(width, 0.0) * max(height, 0.0)
    areas = [(b[2] - b[0]) * (b[3] - b[1]) for b in (first, second)]
    union = areas[0] + areas[1] - overlap
    return overlap / union if union > 0 else 0.0


def ranked(scores: list[float]) -> list[int]:
    """Indices by descending score, equal ones by ascending index."""
    return sorted(range(len(scores)), key=lambda i: (-scores[i], i))


def topk(scores: list[float], k: int) -> tuple[list[float], list[int]]:
    """The k best of one row, padded with 0 and 0."""
    order = ranked(scores)[:k]
    padding = [0] * (k - len(order))
    return [scores[i] for i in order] + [0.0] * len(padding), order + padding


def greedy(boxes: Array, scores: list[float], threshold: float) -> list[int]:
    """Greedy suppression, best first: a box stays unless a kept one overlaps it above threshold."""
    kept: list[int] = []
    for candidate in ranked(scores):
        if all(iou(boxes[candidate], boxes[k]) <= threshold for k in kept):
            kept.append(candidate)
    return kept


def proposal_nms(
    boxes: Array, scores: list[float], k: int, threshold: float
) -> tuple[Array, list[float]]:
    """One picture's proposals, padded with zeros."""
    rows = [i for i in range(len(scores)) if scores[i] > 0]
    kept = [rows[i] for i in greedy(boxes[rows], [scores[i] for i in rows], threshold)][:k]
    out = np.zeros((k, 4))
    out[: len(kept)] = boxes[kept]
    return out, [scores[i] for i in kept] + [0.0] * (k - len(kept))


def detection_nms(
    boxes: Array, scores: Array, score_threshold: float, detections: int, threshold: float
) -> list[tuple[int, int]]:
    """One picture's detections as (box index, class), best first."""
    found: list[tuple[float, int, int]] = []
    for label in range(scores.shape[1]):
        rows = [i for i in range(len(boxes)) if scores[i, label] > score_threshold]
        kept = greedy(boxes[rows], [float(scores[i, label]) for i in rows], threshold)
        found += [(-float(scores[rows[i], label]), rows[i], label) for i in kept]
    return [(row, label) for _, row, label in sorted(found)[:detections]]


def class_nms(
    boxes: Array, scores: list[float], classes: list[int], detections: int, threshold: float
) -> list[int]:
    """One picture's detections as box indices, best first; each box has one class."""
    found: list[int] = []
    for label in set(classes):
        rows = [i for i in range(len(boxes)) if classes[i] == label and scores[i] > 0]
        kept = greedy(boxes[rows], [scores[i] for i in rows], threshold)
        found += [rows[i] for i in kept]
    return sorted(found, key=lambda i: (-scores[i], i))[:detections]


def level_of(box: Array, strides: list[int], canonical_level: int, canonical_size: float) -> int:
    """The position of the level that a box is pooled from."""
    size = math.sqrt((box[2] - box[0]) * (box[3] - box[1]))
    level = math.floor(canonical_level + math.log2(size / canonical_size + 1e-8))
    levels = [int(math.log2(stride)) for stride in strides]
    return levels.index(min(max(level, levels[0]), levels[-1]))


def bilinear(feature: Array, y: float, x: float) -> Array:
    """The value (C,) between cells; 0 more than a cell outside, the border's value up to there."""
    height, width = feature.shape[1:]
    if y < -1 or y > height or x < -1 or x > width:
        return np.zeros(feature.shape[0])
    y, x = min(max(y, 0.0), height - 1.0), min(max(x, 0.0), width - 1.0)
    top, left = min(int(y), height - 2), min(int(x), width - 2)
    down, right = y - top, x - left
    upper = feature[:, top, left] * (1 - right) + feature[:, top, left + 1] * right
    lower = feature[:, top + 1, left] * (1 - right) + feature[:, top + 1, left + 1] * right
    value: Array = upper * (1 - down) + lower * down
    return value


def roi_align(feature: Array, box: Array, stride: int, size: int, sampling_ratio: int) -> Array:
    """Aligned RoIAlign of one box: (C, size, size); the feature is at least 2 x 2 cells."""
    x0, y0, x1, y1 = box / stride - 0.5
    bin_height, bin_width = (y1 - y0) / size, (x1 - x0) / size
    rows = sampling_ratio or math.ceil(bin_height)
    columns = sampling_ratio or math.ceil(bin_width)  # an empty box has no samples and pools to 0
    out = np.zeros((feature.shape[0], size, size))
    for i in range(size):
        for j in range(size):
            for r in range(rows):
                for c in range(columns):
                    y = y0 + (i + (r + 0.5) / rows) * bin_height
                    x = x0 + (j + (c + 0.5) / columns) * bin_width
                    out[:, i, j] += bilinear(feature, y, x) / (rows * columns)
    return out
