"""Arithmetic on boxes: distances and deltas to boxes and back, clipping, overlap.

Boxes are xyxy in pixels, in the last dimension; any dimensions may lead.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

MIN_SIDE_PX = 0.01  # a decoded box is at least this wide and high
MAX_LOG_SCALE = math.log(1000.0 / 16.0)  # a delta enlarges a side by at most this factor


def decode_ltrb(locations: Tensor, ltrb: Tensor) -> Tensor:
    """Turn side distances into boxes.

    Args:
        locations: (..., 2) x, y of cell centres, pixels.
        ltrb: (..., 4) distances left, top, right, bottom, pixels, each >= 0.
    Returns:
        (..., 4) boxes, not clipped to the picture, sides >= MIN_SIDE_PX.
    Source: arXiv 2103.07461, Sec. 5; distances as in FCOS, arXiv 1904.01355, Sec. 3.1.
    """
    top_left = locations - ltrb[..., :2]
    bottom_right = torch.maximum(locations + ltrb[..., 2:], top_left + MIN_SIDE_PX)
    return torch.cat([top_left, bottom_right], dim=-1)


def decode_deltas(boxes: Tensor, deltas: Tensor, weights: tuple[float, ...]) -> Tensor:
    """Move and scale boxes by predicted deltas.

    Args:
        boxes: (..., 4) the boxes that the deltas are relative to.
        deltas: (..., 4) dx, dy in box sizes; dw, dh logarithms; each times its weight.
        weights: of dx, dy, dw, dh.
    Returns:
        (..., 4) boxes, not clipped; dw and dh are limited above by MAX_LOG_SCALE, not below.
    Source: R-CNN, arXiv 1311.2524, App. C; weights as in Cascade R-CNN, arXiv 1712.00726, Sec. 4.
    """
    size = boxes[..., 2:] - boxes[..., :2]
    centre = boxes[..., :2] + 0.5 * size
    shift = torch.stack([deltas[..., 0] / weights[0], deltas[..., 1] / weights[1]], dim=-1)
    scale = torch.stack([deltas[..., 2] / weights[2], deltas[..., 3] / weights[3]], dim=-1)
    centre = centre + shift * size
    half = 0.5 * torch.exp(scale.clamp(max=MAX_LOG_SCALE)) * size
    return torch.cat([centre - half, centre + half], dim=-1)


def encode_deltas(boxes: Tensor, targets: Tensor, weights: tuple[float, ...]) -> Tensor:
    """The deltas that `decode_deltas` turns from `boxes` into `targets`; sides must be > 0.

    Args:
        boxes: (..., 4) with sides > 0.
        targets: (..., 4) with sides > 0.
        weights: of dx, dy, dw, dh.
    Returns:
        (..., 4) deltas.
    """
    size = boxes[..., 2:] - boxes[..., :2]
    target_size = targets[..., 2:] - targets[..., :2]
    centre = boxes[..., :2] + 0.5 * size
    target_centre = targets[..., :2] + 0.5 * target_size
    shift = (target_centre - centre) / size
    scale = torch.log(target_size / size)
    return torch.cat([shift, scale], dim=-1) * boxes.new_tensor(weights)


def clip_boxes(boxes: Tensor, image_sizes: Tensor) -> Tensor:
    """Clip boxes to their pictures.

    Args:
        boxes: (B, K, 4) or (B, K, C, 4).
        image_sizes: (B, 2) height, width in pixels, any number type.
    Returns:
        The same with 0 <= x <= width, 0 <= y <= height.
    """
    sizes = image_sizes.to(boxes.dtype)
    limits = torch.stack([sizes[:, 1], sizes[:, 0], sizes[:, 1], sizes[:, 0]], dim=-1)
    limits = limits[:, None, :] if boxes.ndim == 3 else limits[:, None, None, :]
    return torch.minimum(boxes.clamp(min=0.0), limits)


def box_areas(boxes: Tensor) -> Tensor:
    """(..., 4) -> (...) areas in square pixels."""
    return (boxes[..., 2] - boxes[..., 0]) * (boxes[..., 3] - boxes[..., 1])


def paired_ious(first: Tensor, second: Tensor) -> Tensor:
    """Intersection over union of each box (P, 4) with the one of its row: (P,) in [0, 1]."""
    top_left = torch.maximum(first[:, :2], second[:, :2])
    bottom_right = torch.minimum(first[:, 2:], second[:, 2:])
    overlap = (bottom_right - top_left).clamp(min=0.0).prod(dim=1)
    union = box_areas(first) + box_areas(second) - overlap
    return torch.where(union > 0, overlap / union.clamp(min=1e-12), torch.zeros_like(union))


def box_ious(first: Tensor, second: Tensor) -> Tensor:
    """Intersection over union of every pair.

    Args:
        first: (N, 4).
        second: (M, 4).
    Returns:
        (N, M) in [0, 1]; 0 where both boxes are empty.
    """
    top_left = torch.maximum(first[:, None, :2], second[None, :, :2])
    bottom_right = torch.minimum(first[:, None, 2:], second[None, :, 2:])
    overlap = (bottom_right - top_left).clamp(min=0.0).prod(dim=-1)
    union = box_areas(first)[:, None] + box_areas(second)[None, :] - overlap
    return torch.where(union > 0, overlap / union.clamp(min=1e-12), torch.zeros_like(union))
