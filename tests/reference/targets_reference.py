"""The training targets once more, as slow loops over cells and objects in single precision."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from .losses_reference import giou_loops

F = np.float32
Sizes = Sequence[tuple[int, int]]
Ranges = Sequence[tuple[float, float]]


class Object(NamedTuple):
    """One box with all that the targets need of it."""

    x1: np.float32
    y1: np.float32
    x2: np.float32
    y2: np.float32
    radius2: np.float32

    @property
    def centre(self) -> tuple[np.float32, np.float32]:
        return (self.x1 + self.x2) / F(2), (self.y1 + self.y2) / F(2)

    @property
    def size(self) -> np.float32:
        width, height = self.x2 - self.x1, self.y2 - self.y1
        return np.sqrt(width * width + height * height) / F(2)


def objects_from(boxes: Sequence[Sequence[float]]) -> list[Object]:
    """Boxes to objects, with the heat map's radius at overlap 0.8 and at least 4 pixels."""
    delta = (1 - 0.8) / (1 + 0.8)
    objects = []
    for box in boxes:
        x1, y1, x2, y2 = (F(side) for side in box)
        area = (x2 - x1) * (y2 - y1)
        objects.append(Object(x1, y1, x2, y2, max(F(2 * delta**2) * area, F(16))))
    return objects


def heatmap_loops(objects: list[Object], sizes: Sizes, strides: Sequence[int]) -> list[float]:
    """One value per cell."""
    values = []
    for (height, width), stride in zip(sizes, strides, strict=True):
        for row in range(height):
            for column in range(width):
                values.append(_heat(objects, row, column, stride))
    return values


def _heat(objects: list[Object], row: int, column: int, stride: int) -> float:
    """The largest of the objects' peaks at one cell."""
    x, y = column * stride + stride // 2, row * stride + stride // 2
    best = 0.0
    for thing in objects:
        cx, cy = thing.centre
        if math.floor(cx / stride) == column and math.floor(cy / stride) == row:
            return 1.0
        squared = (F(x) - cx) ** 2 + (F(y) - cy) ** 2
        best = max(best, math.exp(-squared / thing.radius2))
    return best if best >= 1e-4 else 0.0


def class_heatmap_loops(
    objects: list[Object],
    classes: Sequence[int],
    channels: int,
    sizes: Sizes,
    strides: Sequence[int],
) -> list[list[float]]:
    """A row of channels per cell, each of the objects of one class."""
    maps = [
        heatmap_loops([o for o, c in zip(objects, classes, strict=True) if c == k], sizes, strides)
        for k in range(channels)
    ]
    return [list(row) for row in zip(*maps, strict=True)]


def extra_positives_loops(
    objects: list[Object],
    predicted: Sequence[Sequence[float]],
    sizes: Sizes,
    strides: Sequence[int],
    ranges: Ranges,
    largest_loss: float,
    rank: int,
) -> list[tuple[int, int]]:
    """(cell, object) of each positive; `predicted` are every cell's distances in strides."""
    found = []
    for number, thing in enumerate(objects):
        losses = _losses_around(thing, predicted, sizes, strides, ranges)
        ranked = sorted(losses.values())
        limit = min([largest_loss, *ranked[rank - 1 : rank]])
        centres = positives_loops([thing], sizes, strides, ranges)
        found += [(c, number) for c, loss in losses.items() if loss < limit or c in centres]
    return found


def _losses_around(
    thing: Object,
    predicted: Sequence[Sequence[float]],
    sizes: Sizes,
    strides: Sequence[int],
    ranges: Ranges,
) -> dict[int, float]:
    """Loss of the boxes predicted in the 3x3 cells around the centre, by cell, on all levels."""
    losses: dict[int, float] = {}
    offset = 0
    cx, cy = thing.centre
    for (height, width), stride, (low, high) in zip(sizes, strides, ranges, strict=True):
        middle = (math.floor(cy / stride), math.floor(cx / stride))
        for row in range(middle[0] - 1, middle[0] + 2):
            for column in range(middle[1] - 1, middle[1] + 2):
                if not (0 <= row < height and 0 <= column < width):
                    continue
                cell = offset + row * width + column
                x, y = F(column * stride + stride // 2), F(row * stride + stride // 2)
                ltrb = [x - thing.x1, y - thing.y1, thing.x2 - x, thing.y2 - y]
                if (row, column) == middle and low <= thing.size <= high:
                    losses[cell] = 0.0
                elif min(ltrb) > 0:
                    wanted = [float(side / stride) for side in ltrb]
                    losses[cell] = giou_loops([predicted[cell]], [wanted])
        offset += height * width
    return losses


def positives_loops(
    objects: list[Object], sizes: Sizes, strides: Sequence[int], ranges: Ranges
) -> list[int]:
    """The centre cell of each object on each of its levels."""
    found = []
    for thing in objects:
        offset = 0
        cx, cy = thing.centre
        for (height, width), stride, (low, high) in zip(sizes, strides, ranges, strict=True):
            row, column = math.floor(cy / stride), math.floor(cx / stride)
            inside = 0 <= row < height and 0 <= column < width
            if low <= thing.size <= high and inside:
                found.append(offset + row * width + column)
            offset += height * width
    return found


def regression_loops(
    objects: list[Object], sizes: Sizes, strides: Sequence[int], ranges: Ranges
) -> dict[int, list[float]]:
    """Cell index to left, top, right, bottom in strides."""
    found: dict[int, list[float]] = {}
    index = 0
    for (height, width), stride, (low, high) in zip(sizes, strides, ranges, strict=True):
        on_level = [thing for thing in objects if low <= thing.size <= high]
        for row in range(height):
            for column in range(width):
                ltrb = _regression(on_level, row, column, stride)
                if ltrb is not None:
                    found[index] = ltrb
                index += 1
    return found


def _regression(objects: list[Object], row: int, column: int, stride: int) -> list[float] | None:
    """What one cell learns, if anything."""
    x, y = F(column * stride + stride // 2), F(row * stride + stride // 2)
    best_cost, best = math.inf, None
    for thing in objects:
        cx, cy = thing.centre
        down, right = row - math.floor(cy / stride), column - math.floor(cx / stride)
        ltrb = [x - thing.x1, y - thing.y1, thing.x2 - x, thing.y2 - y]
        if abs(down) > 1 or abs(right) > 1 or min(ltrb) <= 0:
            continue
        squared = (x - cx) ** 2 + (y - cy) ** 2
        cost = 0.0 if down == right == 0 else float(squared / thing.radius2)
        if cost < best_cost:
            best_cost, best = cost, [float(side / stride) for side in ltrb]
    return best


def match_loops(
    boxes: Sequence[Sequence[float]],
    objects: Sequence[Sequence[float]],
    classes: Sequence[int],
    iou_threshold: float,
) -> list[tuple[int, int]]:
    """(class or -1, object index) of each box."""
    found = []
    for box in boxes:
        best_iou, best = -1.0, -1
        for index, other in enumerate(objects):
            iou = iou_of(box, other)
            if iou > best_iou:
                best_iou, best = iou, index
        found.append((classes[best] if best_iou >= iou_threshold else -1, best))
    return found


def iou_of(box: Sequence[float], other: Sequence[float]) -> float:
    """Intersection over union of two boxes, 0 where they do not overlap."""
    width = min(box[2], other[2]) - max(box[0], other[0])
    height = min(box[3], other[3]) - max(box[1], other[1])
    if width <= 0 or height <= 0:
        return 0.0
    area = (box[2] - box[0]) * (box[3] - box[1])
    other_area = (other[2] - other[0]) * (other[3] - other[1])
    return width * height / (area + other_area - width * height)
