"""Best of many, and the non-maximum suppressions, of standard operators."""

from __future__ import annotations

import math

import numpy as np
import onnx_ir as ir

from .onnx import Value, floats, ints, number, op


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
        values, indices = op.TopK(scores, ints(k), axis=1)
        return values, indices
    padded = op.Pad(scores, ints(0, 0, 0, k), number(-math.inf))  # (B, N + k)
    values, indices = op.TopK(padded, ints(k), axis=1)
    exists = op.Less(indices, op.Shape(scores, start=1, end=2))
    return op.Where(exists, values, number(0.0)), op.Where(exists, indices, ints(0))


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
    present = op.Unsqueeze(op.Greater(scores, number(0.0)), ints(2))
    solid = op.Pad(op.Where(present, boxes, number(0.0)), ints(0, 0, 0, 0, k, 0))  # (B, N + k, 4)
    padded = op.Pad(scores, ints(0, 0, 0, k))  # (B, N + k)
    by_class = op.Unsqueeze(padded, ints(1))
    threshold = floats(largest_float32(iou_threshold))
    selected = op.NonMaxSuppression(solid, by_class, ints(k), threshold)
    rows = op.Gather(selected, ints(0, 2), axis=1)  # (B * k, 2): picture, row
    return (
        op.Reshape(op.GatherND(solid, rows), ints(-1, k, 4)),
        op.Reshape(op.GatherND(padded, rows), ints(-1, k)),
    )


def detection_nms(
    boxes: Value, scores: Value, score_threshold: Value, detections: int, iou_threshold: float
) -> tuple[Value, Value, Value, Value]:
    """Greedy suppression per class, then the best detections over all classes.

    Args:
        boxes: (B, K, 4) xyxy, pixels, shared by the classes, or (B, K, C, 4); K is static.
        scores: (B, K, C) in [0, 1]; C is static.
        score_threshold: () float32; a score at or below it is dropped.
        detections: D, rows of the result.
        iou_threshold: a box is suppressed above this, strictly.
    Returns:
        num_detections (B,) int32, boxes (B, D, 4), scores (B, D), classes (B, D) int32; zeros past
        num_detections; ties to the lower row of `boxes`, then to the lower class.
    """
    of = shared_box_nms if len(boxes.shape) == 3 else own_box_nms
    return of(boxes, scores, score_threshold, detections, iou_threshold)


def shared_box_nms(
    boxes: Value, scores: Value, score_threshold: Value, detections: int, iou_threshold: float
) -> tuple[Value, Value, Value, Value]:
    """`detection_nms` of boxes (B, K, 4) that the classes share."""
    classes = scores.shape[2]
    selected = op.NonMaxSuppression(
        boxes,
        op.Transpose(scores, perm=[0, 2, 1]),
        ints(detections),
        floats(largest_float32(iou_threshold)),
        op.Reshape(score_threshold, ints(1)),
    )  # (survivors, 3): picture, class, row
    where = op.Gather(selected, ints(0, 2, 1), axis=1)
    values, valid, places = _best_pairs(scores, where, detections)
    rows = op.Unsqueeze(op.Div(places, ints(classes)), ints(2))
    found = op.GatherND(boxes, rows, batch_dims=1)  # (B, D, 4)
    return _detections(found, values, valid, op.Mod(places, ints(classes)))


def own_box_nms(
    boxes: Value, scores: Value, score_threshold: Value, detections: int, iou_threshold: float
) -> tuple[Value, Value, Value, Value]:
    """`detection_nms` of boxes (B, K, C, 4): to the suppression every class is a picture."""
    _, proposals, classes = scores.shape
    selected = op.NonMaxSuppression(
        op.Reshape(op.Transpose(boxes, perm=[0, 2, 1, 3]), ints(-1, proposals, 4)),
        op.Reshape(op.Transpose(scores, perm=[0, 2, 1]), ints(-1, 1, proposals)),
        ints(detections),
        floats(largest_float32(iou_threshold)),
        op.Reshape(score_threshold, ints(1)),
    )  # (survivors, 3): picture * C + class, 0, row
    both, row = (op.Gather(selected, ints(column), axis=1) for column in (0, 2))
    where = op.Concat(op.Div(both, ints(classes)), row, op.Mod(both, ints(classes)), axis=1)
    values, valid, places = _best_pairs(scores, where, detections)
    pairs = op.Reshape(boxes, ints(-1, proposals * classes, 4))
    found = op.GatherND(pairs, op.Unsqueeze(places, ints(2)), batch_dims=1)  # (B, D, 4)
    return _detections(found, values, valid, op.Mod(places, ints(classes)))


def _best_pairs(scores: Value, where: Value, count: int) -> tuple[Value, Value, Value]:
    """The best of the pairs of box and class that are left.

    Args:
        scores: (B, K, C).
        where: (S, 3) those that are left: picture, box, class.
        count: D.
    Returns:
        their scores (B, D), which of them there are, and K * C indices, 0 where there is none.
    """
    _, proposals, classes = scores.shape
    nothing = op.ConstantOfShape(op.Shape(scores))
    kept = op.ScatterND(nothing, where, op.GatherND(scores, where))  # (B, K, C), 0 if suppressed
    flat = op.Reshape(kept, ints(-1, proposals * classes))
    if proposals * classes < count:
        flat = op.Pad(flat, ints(0, 0, 0, count))
    values, places = op.TopK(flat, ints(count), axis=1)
    valid = op.Greater(values, number(0.0))
    return values, valid, op.Where(valid, places, ints(0))


def _detections(
    boxes: Value, scores: Value, valid: Value, classes: Value
) -> tuple[Value, Value, Value, Value]:
    """Number, boxes, scores, classes; zeros where there is none."""
    return (
        op.ReduceSum(op.Cast(valid, to=ir.DataType.INT32), ints(1), keepdims=0),
        op.Where(op.Unsqueeze(valid, ints(2)), boxes, number(0.0)),
        scores,
        op.Cast(classes, to=ir.DataType.INT32),
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
    best = best_of_classes(boxes, scores, classes, class_count, detections, iou_threshold)
    return count_found(best[1]), *best


def best_of_classes(
    boxes: Value,
    scores: Value,
    classes: Value,
    class_count: int,
    count: int,
    iou_threshold: float,
) -> tuple[Value, Value, Value]:
    """Boxes, scores and classes of `class_nms`, without their number."""
    labels = op.Constant(value=ir.tensor(np.arange(class_count).reshape(1, -1, 1)))
    own = op.Equal(op.Unsqueeze(classes, ints(1)), labels)  # (B, C, N)
    selected = op.NonMaxSuppression(
        boxes,
        op.Where(own, op.Unsqueeze(scores, ints(1)), number(0.0)),
        ints(count),
        floats(largest_float32(iou_threshold)),
        floats(0.0),
    )  # (survivors, 3): picture, class, row
    where = op.Gather(selected, ints(0, 2), axis=1)
    nothing = op.ConstantOfShape(op.Shape(scores))
    kept = op.ScatterND(nothing, where, op.GatherND(scores, where))  # (B, N), 0 if suppressed
    if scores.shape[1] < count:
        kept = op.Pad(kept, ints(0, 0, 0, count))
    values, places = op.TopK(kept, ints(count), axis=1)
    valid = op.Greater(values, number(0.0))
    rows = op.Unsqueeze(op.Where(valid, places, ints(0)), ints(2))
    found = op.GatherND(boxes, rows, batch_dims=1)  # (B, D, 4)
    label = op.Where(valid, op.GatherND(classes, rows, batch_dims=1), ints(0))
    return (
        op.Where(op.Unsqueeze(valid, ints(2)), found, number(0.0)),
        values,
        op.Cast(label, to=ir.DataType.INT32),
    )


def count_found(scores: Value) -> Value:
    """(B,) int32, how many scores (B, D) are above 0."""
    found = op.Cast(op.Greater(scores, number(0.0)), to=ir.DataType.INT32)
    return op.ReduceSum(found, ints(1), keepdims=0)


def largest_float32(threshold: float) -> float:
    """The largest float32 that is not above the threshold.

    A float32 IoU is above the one exactly if it is above the other, so an ONNX graph, which holds
    float32 thresholds, decides as torch does, which compares with the float64 number.
    """
    rounded = np.float32(threshold)
    if float(rounded) > threshold:
        rounded = np.nextafter(rounded, np.float32(-np.inf))
    return float(rounded)
