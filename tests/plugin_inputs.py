"""Random inputs of the fused operators."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from cn2.export.operators.pooling import level_borders
from reference.nms_reference import iou_matrix

Floats = NDArray[np.float32]
CANVAS = (512, 768)  # height, width
STRIDES = (8, 16, 32, 64, 128)
BORDERS = level_borders(STRIDES, 4)


def grid_boxes(rng: np.random.Generator, shape: tuple[int, ...], cells: int = 4) -> Floats:
    """(*shape, 4) boxes on a coarse grid: many are equal, touch, overlap, or have no area."""
    start = rng.integers(0, cells, (*shape, 2))
    size = rng.integers(0, cells, (*shape, 2))
    return np.concatenate([start, start + size], axis=-1).astype(np.float32)


def grid_scores(rng: np.random.Generator, shape: tuple[int, ...], steps: int = 5) -> Floats:
    """Few distinct values in [0, 1), so ties everywhere, some exactly 0."""
    return rng.integers(0, steps, shape).astype(np.float32) / np.float32(steps)


def spread_boxes(rng: np.random.Generator, shape: tuple[int, ...]) -> Floats:
    """(*shape, 4) boxes with area, of all sizes, some across the edges of 512 x 768 pixels."""
    centre = rng.uniform(0, 1, (*shape, 2)) * (768, 512)
    side = np.exp(rng.uniform(np.log(4), np.log(700), (*shape, 1)))
    aspect = np.exp(rng.uniform(-0.7, 0.7, (*shape, 1)))
    half = np.concatenate([side * aspect, side / aspect], axis=-1) / 2
    return np.concatenate([centre - half, centre + half], axis=-1).astype(np.float32)


def case_threshold(rng: np.random.Generator, boxes: Floats) -> float:
    """Mostly exactly an IoU of two of the boxes, as float32 rounds it."""
    ious = iou_matrix(boxes)
    between = ious[(ious > 0) & (ious < 1)]
    if len(between) and rng.random() < 0.8:
        return float(rng.choice(between))
    return float(rng.choice(np.array([0.0, 0.5, 0.6, 0.7, 0.9, 1.0], np.float32)))


def random_features(
    rng: np.random.Generator, batch: int = 1, channels: int = 3, strides: Sequence[int] = STRIDES
) -> list[Floats]:
    """The levels of a canvas of 512 x 768 pixels."""
    return [
        rng.standard_normal((batch, channels, CANVAS[0] // s, CANVAS[1] // s), dtype=np.float32)
        for s in strides
    ]
