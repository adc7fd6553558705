"""Both suppressions of docs/operators.md as slow plain loops, in float32 as the operators are."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]
Ints = NDArray[np.int32]


def iou_matrix(boxes: Floats) -> Floats:
    """(..., N, N) of (..., N, 4); 0 with a box that has no area. Each step rounds to float32."""
    x0, y0, x1, y1 = np.moveaxis(boxes, -1, 0)
    solid, areas = (x1 > x0) & (y1 > y0), (x1 - x0) * (y1 - y0)
    width = np.minimum(*pairs(x1)) - np.maximum(*pairs(x0))
    height = np.minimum(*pairs(y1)) - np.maximum(*pairs(y0))
    overlap = np.maximum(width, 0) * np.maximum(height, 0)
    with np.errstate(divide="ignore", invalid="ignore"):
        iou = overlap / (np.add(*pairs(areas)) - overlap)
    return np.where(np.logical_and(*pairs(solid)), iou, np.float32(0))


def pairs(values: NDArray[Any]) -> tuple[NDArray[Any], NDArray[Any]]:
    """(..., N, 1) and (..., 1, N), which broadcast to all pairs."""
    return values[..., :, None], values[..., None, :]


def best_first(scores: Sequence[float], floor: float) -> list[int]:
    """Rows above the floor, by descending score, equal ones by ascending row."""
    rows = [row for row, score in enumerate(scores) if score > floor]
    return sorted(rows, key=lambda row: (-scores[row], row))


def greedy(rows: Sequence[int], above: Sequence[Sequence[bool]]) -> list[int]:
    """The rows that no kept one before them overlaps above the threshold."""
    kept: list[int] = []
    for row in rows:
        if not any(above[better][row] for better in kept):
            kept.append(row)
    return kept


def proposal_nms(
    boxes: Floats, scores: Floats, k: int, iou_threshold: float, classes: Ints | None = None
) -> tuple[Floats, Floats, Ints]:
    """K boxes, scores and classes (zeros without classes) of each picture."""
    batch = len(boxes)
    labels = np.zeros(scores.shape, np.int32) if classes is None else classes
    kept_boxes, kept_scores = np.zeros((batch, k, 4), np.float32), np.zeros((batch, k), np.float32)
    kept_labels = np.zeros((batch, k), np.int32)
    above = (iou_matrix(boxes) > np.float32(iou_threshold)) & np.equal(*pairs(labels))
    for picture in range(batch):
        rows = greedy(best_first(scores[picture].tolist(), 0.0), above[picture].tolist())[:k]
        kept_boxes[picture, : len(rows)] = boxes[picture, rows]
        kept_scores[picture, : len(rows)] = scores[picture, rows]
        kept_labels[picture, : len(rows)] = labels[picture, rows]
    return kept_boxes, kept_scores, kept_labels


def detection_nms(
    boxes: Floats, scores: Floats, score_threshold: float, detections: int, iou_threshold: float
) -> tuple[Ints, Floats, Floats, Ints]:
    """Counts, boxes, scores and classes of each picture. boxes: (B, K, 1 or C, 4)."""
    batch, classes = len(boxes), scores.shape[2]
    counts, labels = np.zeros(batch, np.int32), np.zeros((batch, detections), np.int32)
    kept_boxes = np.zeros((batch, detections, 4), np.float32)
    kept_scores = np.zeros((batch, detections), np.float32)
    own = np.broadcast_to(boxes, (*scores.shape, 4))
    above = iou_matrix(np.swapaxes(own, 1, 2)) > np.float32(iou_threshold)  # (B, C, K, K)
    for picture in range(batch):
        found = []
        for label in range(classes):
            column = scores[picture, :, label].tolist()
            candidates = best_first(column, float(np.float32(score_threshold)))
            rows = greedy(candidates, above[picture, label].tolist())
            found += [(-column[row], row, label) for row in rows]
        best = sorted(found)[:detections]
        counts[picture] = len(best)
        for place, (_, row, label) in enumerate(best):
            kept_boxes[picture, place] = own[picture, row, label]
            kept_scores[picture, place] = scores[picture, row, label]
            labels[picture, place] = label
    return counts, kept_boxes, kept_scores, labels
