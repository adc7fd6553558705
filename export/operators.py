"""The detector's own operators (`cn2.trainer.ops`), and torchvision's deformable convolution, as
standard ONNX, operator set 20.

`standard_translations()` goes to `torch.onnx.export(custom_translation_table=...)`. Each function
gets graph values and Python numbers in the order of the operator's schema, and writes nodes of
`ai.onnx` only.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

import numpy as np
import onnx_ir as ir
import torch
from onnxscript import opset20

import cn2.trainer.ops  # noqa: F401  # registers torch.ops.cn2

OPSET = 20
op: Any = opset20  # its annotations name eager tensors, not the values of a graph being written
Value: TypeAlias = Any  # an onnx_ir.Value


def stable_topk(scores: Value, k: int) -> tuple[Value, Value]:
    """The k best of each row; ties go to the lower index, which is ONNX's own rule for TopK.

    Args:
        scores: (B, N) float32, N of any size.
        k: columns of the result.
    Returns:
        values (B, k) and indices (B, k) int64; columns past N are 0.
    """
    columns = scores.shape[1]
    if isinstance(columns, int) and columns >= k:
        values, indices = op.TopK(scores, _ints(k), axis=1)
        return values, indices
    padded = op.Pad(scores, _ints(0, 0, 0, k), _float(-math.inf))  # (B, N + k)
    values, indices = op.TopK(padded, _ints(k), axis=1)
    exists = op.Less(indices, op.Shape(scores, start=1, end=2))
    return op.Where(exists, values, _float(0.0)), op.Where(exists, indices, _ints(0))


def proposal_nms(boxes: Value, scores: Value, k: int, iou_threshold: float) -> tuple[Value, Value]:
    """Exactly k boxes per picture after greedy suppression, best first.

    k boxes without area stand behind those of each picture. They neither suppress nor are
    suppressed, so every picture fills its k places and the result's shape is static.

    Args:
        boxes: (B, N, 4) xyxy, pixels.
        scores: (B, N) in [0, 1]; rows with score 0 are padding.
        k: rows kept per picture.
        iou_threshold: a box is suppressed above this, strictly.
    Returns:
        boxes (B, k, 4), scores (B, k); rows without a box are zero.
    """
    present = op.Unsqueeze(op.Greater(scores, _float(0.0)), _ints(2))
    solid = op.Pad(op.Where(present, boxes, _float(0.0)), _ints(0, 0, 0, 0, k, 0))  # (B, N + k, 4)
    padded = op.Pad(scores, _ints(0, 0, 0, k))  # (B, N + k)
    by_class = op.Unsqueeze(padded, _ints(1))
    threshold = _floats(largest_float32(iou_threshold))
    selected = op.NonMaxSuppression(solid, by_class, _ints(k), threshold)
    rows = op.Gather(selected, _ints(0, 2), axis=1)  # (B * k, 2): picture, row
    return (
        op.Reshape(op.GatherND(solid, rows), _ints(-1, k, 4)),
        op.Reshape(op.GatherND(padded, rows), _ints(-1, k)),
    )


def detection_nms(
    boxes: Value, scores: Value, score_threshold: Value, detections: int, iou_threshold: float
) -> tuple[Value, Value, Value, Value]:
    """Greedy suppression per class, then the best detections over all classes.

    Args:
        boxes: (B, K, 4) xyxy, pixels, shared by the classes; K is static.
        scores: (B, K, C) in [0, 1]; C is static.
        score_threshold: () float32; a score at or below it is dropped.
        detections: D, rows of the result.
        iou_threshold: a box is suppressed above this, strictly.
    Returns:
        num_detections (B,) int32, boxes (B, D, 4), scores (B, D), classes (B, D) int32; zeros past
        num_detections; ties to the lower row of `boxes`, then to the lower class.
    """
    _, proposals, classes = scores.shape
    selected = op.NonMaxSuppression(
        boxes,
        op.Transpose(scores, perm=[0, 2, 1]),
        _ints(detections),
        _floats(largest_float32(iou_threshold)),
        op.Reshape(score_threshold, _ints(1)),
    )  # (survivors, 3): picture, class, row
    where = op.Gather(selected, _ints(0, 2, 1), axis=1)
    nothing = op.ConstantOfShape(op.Shape(scores))
    kept = op.ScatterND(nothing, where, op.GatherND(scores, where))  # (B, K, C), 0 if suppressed
    flat = op.Reshape(kept, _ints(-1, proposals * classes))
    if proposals * classes < detections:
        flat = op.Pad(flat, _ints(0, 0, 0, detections))
    values, places = op.TopK(flat, _ints(detections), axis=1)
    valid = op.Greater(values, _float(0.0))
    places = op.Where(valid, places, _ints(0))
    rows = op.Unsqueeze(op.Div(places, _ints(classes)), _ints(2))
    found = op.GatherND(boxes, rows, batch_dims=1)  # (B, D, 4)
    return (
        op.ReduceSum(op.Cast(valid, to=ir.DataType.INT32), _ints(1), keepdims=0),
        op.Where(op.Unsqueeze(valid, _ints(2)), found, _float(0.0)),
        values,
        op.Cast(op.Mod(places, _ints(classes)), to=ir.DataType.INT32),
    )


def class_nms(
    boxes: Value,
    scores: Value,
    classes: Value,
    class_count: int,
    detections: int,
    iou_threshold: float,
) -> tuple[Value, Value, Value, Value]:
    """Greedy suppression among the boxes of each class, then the best detections.

    Args:
        boxes: (B, N, 4) xyxy, pixels; N is static.
        scores: (B, N) in [0, 1]; rows with score 0 are padding.
        classes: (B, N) int64, one for each box.
        class_count: C.
        detections: D, rows of the result.
        iou_threshold: a box is suppressed above this, strictly.
    Returns:
        num_detections (B,) int32, boxes (B, D, 4), scores (B, D), classes (B, D) int32; zeros past
        num_detections; ties to the lower row.
    """
    labels = op.Constant(value=ir.tensor(np.arange(class_count).reshape(1, -1, 1)))
    own = op.Equal(op.Unsqueeze(classes, _ints(1)), labels)  # (B, C, N)
    selected = op.NonMaxSuppression(
        boxes,
        op.Where(own, op.Unsqueeze(scores, _ints(1)), _float(0.0)),
        _ints(detections),
        _floats(largest_float32(iou_threshold)),
        _floats(0.0),
    )  # (survivors, 3): picture, class, row
    where = op.Gather(selected, _ints(0, 2), axis=1)
    nothing = op.ConstantOfShape(op.Shape(scores))
    kept = op.ScatterND(nothing, where, op.GatherND(scores, where))  # (B, N), 0 if suppressed
    if scores.shape[1] < detections:
        kept = op.Pad(kept, _ints(0, 0, 0, detections))
    values, places = op.TopK(kept, _ints(detections), axis=1)
    valid = op.Greater(values, _float(0.0))
    rows = op.Unsqueeze(op.Where(valid, places, _ints(0)), _ints(2))
    found = op.GatherND(boxes, rows, batch_dims=1)  # (B, D, 4)
    label = op.Where(valid, op.GatherND(classes, rows, batch_dims=1), _ints(0))
    return (
        op.ReduceSum(op.Cast(valid, to=ir.DataType.INT32), _ints(1), keepdims=0),
        op.Where(op.Unsqueeze(valid, _ints(2)), found, _float(0.0)),
        values,
        op.Cast(label, to=ir.DataType.INT32),
    )


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
        features: one (B, C, h, w) per level, fine to coarse.
        strides: pixels per cell of each level.
        canonical_level, canonical_size: a RoI of this size (side, pixels) belongs to this level.
        output_size: P, cells per side of the result.
        sampling_ratio: samples per cell and side; 0: ceil(RoI size / P).
    Returns:
        (B, K, C, P, P).
    Source: arXiv 1612.03144, eq. 1; aligned as in detectron2 (half a pixel shifted).
    """
    level = _level_of(rois, strides, canonical_level, canonical_size)
    pooled, places = [], []
    for index, (feature, stride) in enumerate(zip(features, strides, strict=True)):
        chosen = op.NonZero(op.Equal(level, _ints(index)))  # (2, R of this level): picture, row
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
    return op.Gather(op.Concat(*pooled, axis=0), order, axis=0)


def deform_conv(
    x: Value,
    weight: Value,
    offset: Value,
    mask: Value,
    bias: Value,
    stride_h: int,
    stride_w: int,
    pad_h: int,
    pad_w: int,
    dilation_h: int,
    dilation_w: int,
    groups: int,
    offset_groups: int,
    use_mask: bool,
) -> Value:
    """Modulated deformable convolution; arguments and layouts are torchvision's, and ONNX's alike.

    Args:
        x: (B, C, h, w).
        weight: (C', C / groups, kh, kw), of known shape.
        offset: (B, 2 * offset_groups * kh * kw, h', w'), dy and dx of each tap, cells.
        mask: (B, offset_groups * kh * kw, h', w') in [0, 1]; not read unless `use_mask`.
        bias: (C',).
    Returns:
        (B, C', h', w').
    """
    return op.DeformConv(
        x,
        weight,
        offset,
        bias,
        mask if use_mask else None,
        dilations=[dilation_h, dilation_w],
        group=groups,
        kernel_shape=list(weight.shape[2:]),
        offset_group=offset_groups,
        pads=[pad_h, pad_w, pad_h, pad_w],
        strides=[stride_h, stride_w],
    )


def _level_of(
    rois: Value, strides: Sequence[int], canonical_level: int, canonical_size: float
) -> Value:
    """(B, K) int64, the index in `strides` of the level that each RoI is pooled from."""
    x0, y0, x1, y1 = op.Split(rois, num_outputs=4, axis=2)  # (B, K, 1) each
    area = op.Mul(op.Sub(x1, x0), op.Sub(y1, y0))
    size = op.Add(op.Div(op.Sqrt(area), _float(canonical_size)), _float(1e-8))
    borders = level_borders(strides, canonical_level)
    above = op.GreaterOrEqual(size, _floats(*borders, math.inf))  # (B, K, L)
    return op.ReduceSum(op.Cast(above, to=ir.DataType.INT64), _ints(2), keepdims=0)


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


def largest_float32(threshold: float) -> float:
    """The largest float32 that is not above the threshold.

    A float32 IoU is above the one exactly if it is above the other, so an ONNX graph, which holds
    float32 thresholds, decides as torch does, which compares with the float64 number.
    """
    rounded = np.float32(threshold)
    if float(rounded) > threshold:
        rounded = np.nextafter(rounded, np.float32(-np.inf))
    return float(rounded)


def _ints(*values: int) -> Value:
    return op.Constant(value_ints=list(values))


def _floats(*values: float) -> Value:
    return op.Constant(value_floats=list(values))


def _float(value: float) -> Value:
    return op.Constant(value_float=value)


def standard_translations() -> dict[Callable[..., Any], Callable[..., Any]]:
    """The table for `torch.onnx.export`: each operator's overload and its translation."""
    return {
        torch.ops.cn2.stable_topk.default: stable_topk,
        torch.ops.cn2.proposal_nms.default: proposal_nms,
        torch.ops.cn2.detection_nms.default: detection_nms,
        torch.ops.cn2.class_nms.default: class_nms,
        torch.ops.cn2.pyramid_roi_align.default: pyramid_roi_align,
        torch.ops.torchvision.deform_conv2d.default: deform_conv,
    }
