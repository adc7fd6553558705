"""Anchors, their assignment and the losses of dense first stages once more, as slow loops."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from .targets_reference import iou_of

F = np.float32
Box = Sequence[float]
Sizes = Sequence[tuple[int, int]]


def anchor_loops(
    sizes: Sizes, strides: Sequence[int], size: float, octaves: int, ratios: Sequence[float]
) -> list[list[float]]:
    """Every anchor of a pyramid, level by level, row by row, cell by cell, size by size."""
    anchors = []
    for (height, width), stride in zip(sizes, strides, strict=True):
        for row in range(height):
            for column in range(width):
                x, y = column * stride + stride // 2, row * stride + stride // 2
                for k in range(octaves):
                    for ratio in ratios:
                        area = (size * stride * 2 ** (k / octaves)) ** 2
                        w = math.sqrt(area / ratio)
                        h = w * ratio
                        anchors.append([x - w / 2, y - h / 2, x + w / 2, y + h / 2])
    return anchors


def threshold_loops(
    anchors: Sequence[Box], objects: Sequence[Box], positive: float, negative: float
) -> tuple[list[int], list[int]]:
    """Per anchor 1, 0 or -1 (does not count), and the object that it overlaps most.

    In single precision, as a box inside several anchors overlaps all as much, but for rounding.
    """
    kinds, owners = [], []
    table = [[_iou32(anchor, thing) for thing in objects] for anchor in anchors]
    for row in table:
        best = max(row, default=0.0)
        owners.append(row.index(best) if row else 0)
        kinds.append(1 if row and best >= positive else 0 if best < negative else -1)
    for index in range(len(objects)):
        column = [row[index] for row in table]
        for k, iou in enumerate(column):
            if iou == max(column) and iou > 0:
                kinds[k] = 1
    return kinds, owners


def _iou32(box: Box, other: Box) -> float:
    """`iou_of` in single precision."""
    return float(iou_of([F(side) for side in box], [F(side) for side in other]))


def adaptive_loops(
    objects: Sequence[Box],
    sizes: Sizes,
    strides: Sequence[int],
    anchor_size: float,
    candidates: int,
) -> list[int]:
    """The object that each cell answers for, or -1."""
    best: dict[int, tuple[float, int]] = {}
    for index, thing in enumerate(objects):
        near = _nearest(thing, sizes, strides, candidates)
        ious = {}
        for cell, x, y, stride in near:
            half = anchor_size * stride / 2
            ious[cell] = iou_of([x - half, y - half, x + half, y + half], thing)
        mean = sum(ious.values()) / len(ious)
        spread = 0.0
        if len(ious) > 1:
            squared = sum((iou - mean) ** 2 for iou in ious.values())
            spread = math.sqrt(squared / (len(ious) - 1))
        for cell, x, y, _ in near:
            inside = thing[0] < x < thing[2] and thing[1] < y < thing[3]
            better = cell not in best or ious[cell] > best[cell][0]
            if inside and ious[cell] >= mean + spread and better:
                best[cell] = (ious[cell], index)
    cells = sum(height * width for height, width in sizes)
    return [best[cell][1] if cell in best else -1 for cell in range(cells)]


def _nearest(
    thing: Box, sizes: Sizes, strides: Sequence[int], count: int
) -> list[tuple[int, int, int, int]]:
    """(cell, x, y, stride) of the nearest cells of each level; of equal ones the earlier."""
    x1, y1, x2, y2 = (F(side) for side in thing)
    cx, cy = (x1 + x2) / F(2), (y1 + y2) / F(2)
    found = []
    offset = 0
    for (height, width), stride in zip(sizes, strides, strict=True):
        level = []
        for row in range(height):
            for column in range(width):
                x, y = column * stride + stride // 2, row * stride + stride // 2
                squared = (cx - F(x)) ** 2 + (cy - F(y)) ** 2
                level.append((squared, offset + row * width + column, x, y, stride))
        found += [place[1:] for place in sorted(level)[:count]]
        offset += height * width
    return found


def focal_loops(
    logits: Sequence[Sequence[float]],
    targets: Sequence[Sequence[float]],
    alpha: float,
    gamma: float,
) -> float:
    """RetinaNet's Eq. 5, summed."""
    total = 0.0
    for row, wanted in zip(logits, targets, strict=True):
        for logit, one in zip(row, wanted, strict=True):
            chance = _sigmoid(logit)
            right = chance if one else 1 - chance
            total -= (alpha if one else 1 - alpha) * (1 - right) ** gamma * math.log(right)
    return total


def quality_loops(
    logits: Sequence[Sequence[float]], qualities: Sequence[Sequence[float]], beta: float
) -> float:
    """GFL's Eq. 5, summed."""
    total = 0.0
    for row, wanted in zip(logits, qualities, strict=True):
        for logit, y in zip(row, wanted, strict=True):
            chance = _sigmoid(logit)
            entropy = (1 - y) * math.log(1 - chance) + y * math.log(chance)
            total -= abs(y - chance) ** beta * entropy
    return total


def distribution_loops(logits: Sequence[float], distances: Sequence[float]) -> float:
    """GFL's Eq. 6, the mean over the sides of one box; distances end just below the last bin."""
    bins = len(logits) // 4
    total = 0.0
    for side, distance in enumerate(distances):
        row = logits[side * bins : (side + 1) * bins]
        log_sum = math.log(sum(math.exp(logit) for logit in row))
        wanted = min(max(distance, 0.0), bins - 1 - 0.01)
        below = math.floor(wanted)
        total -= (below + 1 - wanted) * (row[below] - log_sum)
        total -= (wanted - below) * (row[below + 1] - log_sum)
    return total / 4


def mean_distance_loops(logits: Sequence[float]) -> list[float]:
    """The means of four distributions."""
    bins = len(logits) // 4
    means = []
    for side in range(4):
        weights = [math.exp(logit) for logit in logits[side * bins : (side + 1) * bins]]
        means.append(sum(k * weight for k, weight in enumerate(weights)) / sum(weights))
    return means


def box_giou_loops(box: Box, other: Box) -> float:
    """1 - generalised IoU of two boxes with area."""
    area = (box[2] - box[0]) * (box[3] - box[1])
    other_area = (other[2] - other[0]) * (other[3] - other[1])
    width = min(box[2], other[2]) - max(box[0], other[0])
    height = min(box[3], other[3]) - max(box[1], other[1])
    overlap = width * height if width > 0 and height > 0 else 0.0
    union = area + other_area - overlap
    hull = (max(box[2], other[2]) - min(box[0], other[0])) * (
        max(box[3], other[3]) - min(box[1], other[1])
    )
    return 1 - overlap / union + (hull - union) / hull


def smooth_l1_loops(found: Sequence[float], wanted: Sequence[float], beta: float) -> float:
    """Of one box."""
    total = 0.0
    for a, b in zip(found, wanted, strict=True):
        error = abs(a - b)
        total += error**2 / (2 * beta) if error < beta else error - beta / 2
    return total


def delta_loops(anchor: Box, deltas: Sequence[float], weights: Sequence[float]) -> list[float]:
    """The box that deltas make of an anchor."""
    w, h = anchor[2] - anchor[0], anchor[3] - anchor[1]
    x = anchor[0] + w / 2 + deltas[0] / weights[0] * w
    y = anchor[1] + h / 2 + deltas[1] / weights[1] * h
    limit = math.log(1000 / 16)
    w *= math.exp(min(deltas[2] / weights[2], limit))
    h *= math.exp(min(deltas[3] / weights[3], limit))
    return [x - w / 2, y - h / 2, x + w / 2, y + h / 2]


def wanted_deltas(anchor: Box, thing: Box, weights: Sequence[float]) -> list[float]:
    """The deltas that make a box of an anchor."""
    w, h = anchor[2] - anchor[0], anchor[3] - anchor[1]
    dx = ((thing[0] + thing[2]) - (anchor[0] + anchor[2])) / 2 / w
    dy = ((thing[1] + thing[3]) - (anchor[1] + anchor[3])) / 2 / h
    dw, dh = math.log((thing[2] - thing[0]) / w), math.log((thing[3] - thing[1]) / h)
    return [d * weight for d, weight in zip((dx, dy, dw, dh), weights, strict=True)]


def centerness_loops(x: float, y: float, thing: Box) -> float:
    """FCOS's Eq. 3 at a location inside a box."""
    left, top, right, bottom = x - thing[0], y - thing[1], thing[2] - x, thing[3] - y
    horizontal = min(left, right) / max(left, right)
    return math.sqrt(horizontal * min(top, bottom) / max(top, bottom))


def entropy_loops(logit: float, wanted: float) -> float:
    """Binary cross-entropy."""
    chance = _sigmoid(logit)
    return -wanted * math.log(chance) - (1 - wanted) * math.log(1 - chance)


def _sigmoid(logit: float) -> float:
    return 1 / (1 + math.exp(-logit))
