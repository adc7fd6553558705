"""RoIAlign over a pyramid, of standard operators."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import onnx_ir as ir
import torch

from .onnx import Value, floats, ints, number, op


def pyramid_roi_align(
    rois: Value,
    features: Sequence[Value],
    strides: Sequence[int],
    canonical_level: int,
    canonical_size: float,
    output_size: int,
    sampling_ratio: int,
) -> Value:
    """Pool each RoI from the level that fits its size: gather per level, pool, put back in order.

    Args:
        rois: (B, K, 4) xyxy, pixels.
        features: one (B, C, h, w) per level, fine to coarse, float32 or float16.
        strides: pixels per cell of each level.
        canonical_level, canonical_size: a RoI of this size (side, pixels) belongs to this level.
        output_size: P, cells per side of the result.
        sampling_ratio: samples per cell and side; 0: ceil(RoI size / P).
    Returns:
        (B, K, C, P, P), of the features' type.
    Source: arXiv 1612.03144, eq. 1; aligned as in detectron2 (half a pixel shifted).
    """
    lowered = features[0].dtype == ir.DataType.FLOAT16
    if lowered:  # RoiAlign wants rois of the features' type
        features = [op.Cast(feature, to=ir.DataType.FLOAT) for feature in features]
    level = _level_of(rois, strides, canonical_level, canonical_size)
    pooled, places = [], []
    for index, (feature, stride) in enumerate(zip(features, strides, strict=True)):
        chosen = op.NonZero(op.Equal(level, ints(index)))  # (2, R of this level): picture, row
        where = op.Transpose(chosen, perm=[1, 0])
        places.append(where)
        pooled.append(
            op.RoiAlign(
                feature,
                op.GatherND(rois, where),
                op.Gather(chosen, op.Constant(value_int=0), axis=0),
                coordinate_transformation_mode="half_pixel",
                output_height=output_size,
                output_width=output_size,
                sampling_ratio=sampling_ratio,
                spatial_scale=1.0 / stride,
            )
        )
    position = op.Range(op.Constant(value_int=0), op.Size(level), op.Constant(value_int=1))
    # Every entry of `level` is overwritten: it lends its shape (B, K) only.
    order = op.ScatterND(level, op.Concat(*places, axis=0), position)
    result = op.Gather(op.Concat(*pooled, axis=0), order, axis=0)
    return op.Cast(result, to=ir.DataType.FLOAT16) if lowered else result


def _level_of(
    rois: Value, strides: Sequence[int], canonical_level: int, canonical_size: float
) -> Value:
    """(B, K) int64, the index in `strides` of the level that each RoI is pooled from."""
    x0, y0, x1, y1 = op.Split(rois, num_outputs=4, axis=2)  # (B, K, 1) each
    area = op.Mul(op.Sub(x1, x0), op.Sub(y1, y0))
    size = op.Add(op.Div(op.Sqrt(area), number(canonical_size)), number(1e-8))
    borders = level_borders(strides, canonical_level)
    above = op.GreaterOrEqual(size, floats(*borders, math.inf))  # (B, K, L)
    return op.ReduceSum(op.Cast(above, to=ir.DataType.INT64), ints(2), keepdims=0)


def level_borders(strides: Sequence[int], canonical_level: int) -> list[float]:
    """The smallest relative RoI size of each level but the first, exact to the last bit.

    The rule floor(canonical_level + log2(size)) rounds in float32, and logarithms of two libraries
    differ in the last bit. Comparing with the borders that torch's rule has gives torch's levels.

    Args:
        strides: pixels per cell of each level, powers of two, fine to coarse.
        canonical_level: the level of relative size 1.
    Returns:
        len(strides) - 1 float32 values, ascending.
    """
    borders = []
    for stride in strides[1:]:
        level = int(math.log2(stride))
        middle = np.float32(2.0 ** (level - canonical_level)).view(np.int32)
        near = torch.from_numpy(np.arange(middle - 4096, middle + 4096, dtype=np.int32))
        sizes = near.view(torch.float32)  # all float32 values around the border, ascending
        reached = torch.floor(canonical_level + torch.log2(sizes)) >= level
        borders.append(float(sizes[reached][0]))
    return borders
