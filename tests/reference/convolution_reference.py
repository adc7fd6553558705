"""Slow plain loops for convolutions that read between cells, and for blocks made of splits."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]


def between_cells(channel: Array, y: float, x: float) -> float:
    """The value of (h, w) cells at y, x: weighted by nearness, cells outside count as 0."""
    top, left = math.floor(y), math.floor(x)
    value = 0.0
    for i in (top, top + 1):
        for j in (left, left + 1):
            if 0 <= i < channel.shape[0] and 0 <= j < channel.shape[1]:
                value += (1 - abs(y - i)) * (1 - abs(x - j)) * channel[i, j]
    return value


def deformable_convolution(
    x: Array, weight: Array, bias: Array, offsets: Array, mask: Array, stride: int, groups: int
) -> Array:
    """One picture through a 3x3 convolution padded by 1 whose taps move and have weights.

    Args:
        x: (C, h, w).
        weight: (C', C / groups, 3, 3).
        bias: (C',).
        offsets: (18, h', w') dy and dx of each tap, row by row.
        mask: (9, h', w').
    Returns:
        (C', h', w').
    """
    outputs, per_group = weight.shape[:2]
    height, width = mask.shape[1:]
    out = np.zeros((outputs, height, width))
    for o in range(outputs):
        group = o // (outputs // groups)
        for i in range(height):
            for j in range(width):
                out[o, i, j] = bias[o]
                for tap in range(9):
                    dy, dx = offsets[2 * tap, i, j], offsets[2 * tap + 1, i, j]
                    row = i * stride - 1 + tap // 3 + dy
                    column = j * stride - 1 + tap % 3 + dx
                    for c in range(per_group):
                        value = between_cells(x[group * per_group + c], row, column)
                        share = weight[o, c, tap // 3, tap % 3] * mask[tap, i, j]
                        out[o, i, j] += share * value
    return out


def split_block(
    splits: Sequence[Array], convolutions: Sequence[Callable[[Array], Array]], adds: bool
) -> list[Array]:
    """What a Res2Net block hands to its last convolution, before they are joined."""
    given: list[Array] = []
    for index, convolution in enumerate(convolutions):
        x = splits[index]
        if adds and index > 0:
            x = x + given[index - 1]
        given.append(np.maximum(convolution(x), 0))
    given.append(splits[-1])
    return given


def pool_shortcut(x: Array, stride: int) -> Array:
    """(C, h, w) -> means of stride x stride cells; at the border of those that there are."""
    height, width = (-(-side // stride) for side in x.shape[1:])
    out = np.zeros((x.shape[0], height, width))
    for i in range(height):
        for j in range(width):
            rows = slice(i * stride, i * stride + stride)
            columns = slice(j * stride, j * stride + stride)
            out[:, i, j] = x[:, rows, columns].mean(axis=(1, 2))
    return out
