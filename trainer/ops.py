"""The steps of inference that have data-dependent shapes inside, as operators of namespace `cn2`.

Each returns fixed shapes, so the detector around them exports as it is; cn2.export translates the
four by name. On the CPU and on CUDA they run on torchvision.ops. No gradients.
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
        boxes: (B, K, 4), shared by the classes.
        scores: (B, K, C).
        score_threshold: () float32; scores at or below never count.
        detections: D, rows to return.
        iou_threshold: a box goes where its IoU with a better one of its class is above this.
    Returns:
        number (B,) int32, boxes (B, D, 4), scores (B, D), classes (B, D) int32; descending scores,
        ties by the lower box index, then the lower class; zeros past the number.
    """
    batch, device = boxes.shape[0], boxes.device
    number = torch.zeros(batch, dtype=torch.int32, device=device)
    out_boxes = boxes.new_zeros(batch, detections, 4)
    out_scores = scores.new_zeros(batch, detections)
    out_classes = torch.zeros(batch, detections, dtype=torch.int32, device=device)
    for picture in range(batch):
        rows, classes = _suppress_per_class(
            boxes[picture], scores[picture], score_threshold, iou_threshold
        )
        found = scores[picture, rows, classes]
        order = torch.sort(found, descending=True, stable=True).indices[:detections]
        count = len(order)
        number[picture] = count
        out_boxes[picture, :count] = boxes[picture, rows[order]]
        out_scores[picture, :count] = found[order]
        out_classes[picture, :count] = classes[order].to(torch.int32)
    return number, out_boxes, out_scores, out_classes


def _suppress_per_class(
    boxes: Tensor, scores: Tensor, score_threshold: Tensor, iou_threshold: float
) -> tuple[Tensor, Tensor]:
    """Box indices and classes that survive, sorted by box index, then class.

    One class after the other: shifting the classes apart to suppress all at once, as torchvision
    does, rounds the coordinates.
    """
    rows, classes = torch.nonzero(scores > score_threshold, as_tuple=True)
    survives = torch.zeros_like(rows, dtype=torch.bool)
    for label in torch.unique(classes):
        members = torch.nonzero(classes == label).squeeze(1)
        keep = torchvision.ops.nms(
            boxes[rows[members]], scores[rows[members], label], iou_threshold
        )
        survives[members[keep]] = True
    return rows[survives], classes[survives]


@detection_nms.register_fake
def _(
    boxes: Tensor, scores: Tensor, score_threshold: Tensor, detections: int, iou_threshold: float
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    batch = boxes.shape[0]
    return (
        boxes.new_empty(batch, dtype=torch.int32),
        boxes.new_empty(batch, detections, 4),
        scores.new_empty(batch, detections),
        boxes.new_empty(batch, detections, dtype=torch.int32),
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
        features,
        indexed,
        strides=strides,
        canonical_level=canonical_level,
        canonical_size=canonical_size,
        output_size=output_size,
        sampling_ratio=sampling_ratio,
    )
    return pooled.reshape(batch, count, *pooled.shape[1:])


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
