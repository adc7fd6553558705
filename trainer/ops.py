"""The steps of inference that have data-dependent shapes inside, as operators of namespace `cn2`.

Each returns fixed shapes, so the detector around them exports as it is; cn2.export translates them
by name. On the CPU and on CUDA they run on torchvision.ops. No gradients.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torchvision.ops  # type: ignore[import-untyped]
from torch import Tensor

from .roi_pooling import pool_levels


@torch.library.custom_op("cn2::stable_topk", mutates_args=())
def stable_topk(scores: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """The k largest of each row, descending; ties go to the lower index.

    Args:
        scores: (B, N).
        k: columns to return, also when N < k.
    Returns:
        values (B, k) and indices (B, k) int64; columns past N are 0 and 0.
    """
    values, indices = torch.sort(scores, dim=1, descending=True, stable=True)
    missing = max(k - scores.shape[1], 0)
    pad = torch.nn.functional.pad
    return pad(values[:, :k], (0, missing)), pad(indices[:, :k], (0, missing))


@stable_topk.register_fake
def _(scores: Tensor, k: int) -> tuple[Tensor, Tensor]:
    batch = scores.shape[0]
    return scores.new_empty(batch, k), scores.new_empty(batch, k, dtype=torch.int64)


@torch.library.custom_op("cn2::proposal_nms", mutates_args=())
def proposal_nms(
    boxes: Tensor, scores: Tensor, k: int, iou_threshold: float
) -> tuple[Tensor, Tensor]:
    """Greedy suppression over all boxes of a picture, whatever their class.

    Args:
        boxes: (B, N, 4).
        scores: (B, N); rows with score 0 are padding.
        k: rows to return.
        iou_threshold: a box goes where its IoU with a better one is above this.
    Returns:
        boxes (B, k, 4) and scores (B, k), best first, ties by the lower index, padded with zeros.
    """
    kept_boxes = boxes.new_zeros(boxes.shape[0], k, 4)
    kept_scores = scores.new_zeros(scores.shape[0], k)
    for picture in range(boxes.shape[0]):
        valid = torch.nonzero(scores[picture] > 0).squeeze(1)
        rows, row_scores = boxes[picture, valid], scores[picture, valid]
        keep = torchvision.ops.nms(rows, row_scores, iou_threshold)[:k]
        kept_boxes[picture, : len(keep)] = rows[keep]
        kept_scores[picture, : len(keep)] = row_scores[keep]
    return kept_boxes, kept_scores


@proposal_nms.register_fake
def _(boxes: Tensor, scores: Tensor, k: int, iou_threshold: float) -> tuple[Tensor, Tensor]:
    batch = boxes.shape[0]
    return boxes.new_empty(batch, k, 4), scores.new_empty(batch, k)


@torch.library.custom_op("cn2::detection_nms", mutates_args=())
def detection_nms(
    boxes: Tensor, scores: Tensor, score_threshold: Tensor, detections: int, iou_threshold: float
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Greedy suppression within each class, then the best over all classes.

    Args:
        boxes: (B, K, 4), shared by the classes, or (B, K, C, 4), of each class.
        scores: (B, K, C).
        score_threshold: () float32; scores at or below never count.
        detections: D, rows to return.
        iou_threshold: a box goes where its IoU with a better one of its class is above this.
    Returns:
        number (B,) int32, boxes (B, D, 4), scores (B, D), classes (B, D) int32; descending scores,
        ties by the lower box index, then the lower class; zeros past the number.
    """
    found = []
    for some, by_class in zip(boxes, scores, strict=True):
        rows, classes = torch.nonzero(by_class > score_threshold, as_tuple=True)
        own = some[rows] if some.ndim == 2 else some[rows, classes]
        candidates = (own, by_class[rows, classes], classes)
        found.append(_best_per_class(*candidates, detections, iou_threshold))
    return _stacked(found)


@detection_nms.register_fake
def _(
    boxes: Tensor, scores: Tensor, score_threshold: Tensor, detections: int, iou_threshold: float
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    return _empty_detections(boxes, detections)


@torch.library.custom_op("cn2::class_nms", mutates_args=())
def class_nms(
    boxes: Tensor,
    scores: Tensor,
    classes: Tensor,
    class_count: int,
    detections: int,
    iou_threshold: float,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Greedy suppression within each class of boxes that have one class each, then the best.

    Args:
        boxes: (B, N, 4).
        scores: (B, N); rows with score 0 are padding.
        classes: (B, N) int64 in 0..class_count - 1.
        class_count: C.
        detections: D, rows to return.
        iou_threshold: a box goes where its IoU with a better one of its class is above this.
    Returns:
        number (B,) int32, boxes (B, D, 4), scores (B, D), classes (B, D) int32; descending scores,
        ties by the lower index; zeros past the number.
    """
    found = []
    for some, some_scores, labels in zip(boxes, scores, classes, strict=True):
        valid = torch.nonzero(some_scores > 0).squeeze(1)
        candidates = (some[valid], some_scores[valid], labels[valid])
        found.append(_best_per_class(*candidates, detections, iou_threshold))
    return _stacked(found)


@class_nms.register_fake
def _(
    boxes: Tensor,
    scores: Tensor,
    classes: Tensor,
    class_count: int,
    detections: int,
    iou_threshold: float,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    return _empty_detections(boxes, detections)


def _best_per_class(
    boxes: Tensor, scores: Tensor, classes: Tensor, count: int, iou_threshold: float
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Of boxes (N, 4) with a score and a class each the best that survive: a row of detections."""
    rows = surviving_rows(boxes, scores, classes, count, iou_threshold)
    missing = count - len(rows)
    pad = torch.nn.functional.pad
    return (
        torch.tensor(len(rows), dtype=torch.int32, device=boxes.device),
        pad(boxes[rows], (0, 0, 0, missing)),
        pad(scores[rows], (0, missing)),
        pad(classes[rows].to(torch.int32), (0, missing)),
    )


def surviving_rows(
    boxes: Tensor, scores: Tensor, classes: Tensor, count: int, iou_threshold: float
) -> Tensor:
    """The rows, at most `count`, best first, of boxes (N, 4) that survive within their class.

    One class after the other: shifting the classes apart to suppress all at once, as torchvision
    does, rounds the coordinates.
    """
    survives = torch.zeros_like(classes, dtype=torch.bool)
    for label in torch.unique(classes):
        members = torch.nonzero(classes == label).squeeze(1)
        keep = torchvision.ops.nms(boxes[members], scores[members], iou_threshold)
        survives[members[keep]] = True
    rows = torch.nonzero(survives).squeeze(1)
    return rows[torch.sort(scores[rows], descending=True, stable=True).indices[:count]]


def _stacked(
    found: list[tuple[Tensor, Tensor, Tensor, Tensor]],
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """The detections of each picture as those of a batch."""
    number, boxes, scores, classes = (torch.stack(part) for part in zip(*found, strict=True))
    return number, boxes, scores, classes


def _empty_detections(boxes: Tensor, count: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """The shapes and types of detections."""
    batch = boxes.shape[0]
    return (
        boxes.new_empty(batch, dtype=torch.int32),
        boxes.new_empty(batch, count, 4),
        boxes.new_empty(batch, count),
        boxes.new_empty(batch, count, dtype=torch.int32),
    )


@torch.library.custom_op("cn2::pyramid_roi_align", mutates_args=())
def pyramid_roi_align(
    rois: Tensor,
    features: Sequence[Tensor],
    strides: Sequence[int],
    canonical_level: int,
    canonical_size: float,
    output_size: int,
    sampling_ratio: int,
) -> Tensor:
    """RoIAlign of each box on the pyramid level that suits its size; see `pool_levels`.

    Args:
        rois: (B, K, 4), row b on picture b.
        features: per level (B, C, h, w), fine to coarse.
        strides: of the levels, pixels per cell.
        canonical_level: absolute level of a box of canonical size.
        canonical_size: pixels.
        output_size: P.
        sampling_ratio: samples per bin side; 0: ceil(RoI side / P).
    Returns:
        (B, K, C, P, P).
    """
    batch, count = rois.shape[:2]
    pictures = torch.arange(batch, device=rois.device, dtype=rois.dtype).repeat_interleave(count)
    indexed = torch.cat([pictures[:, None], rois.reshape(-1, 4)], dim=1)  # (B * K, 5)
    pooled = pool_levels(
        [level.to(rois.dtype) for level in features],  # in half precision boxes would be rounded
        indexed,
        strides=strides,
        canonical_level=canonical_level,
        canonical_size=canonical_size,
        output_size=output_size,
        sampling_ratio=sampling_ratio,
    )
    return pooled.to(features[0].dtype).reshape(batch, count, *pooled.shape[1:])


@pyramid_roi_align.register_fake
def _(
    rois: Tensor,
    features: Sequence[Tensor],
    strides: Sequence[int],
    canonical_level: int,
    canonical_size: float,
    output_size: int,
    sampling_ratio: int,
) -> Tensor:
    batch, count = rois.shape[:2]
    return features[0].new_empty(batch, count, features[0].shape[1], output_size, output_size)
