"""Differentiable RoIAlign over a pyramid: each box from the level that suits its size."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
import torchvision.ops  # type: ignore[import-untyped]
from torch import Tensor

from .boxes import box_areas


def assign_levels(
    boxes: Tensor, strides: Sequence[int], canonical_level: int, canonical_size: float
) -> Tensor:
    """The index into `strides` of the level that each box is pooled from.

    Args:
        boxes: (R, 4).
        strides: of the levels, pixels per cell, fine to coarse.
        canonical_level: absolute level (log2 of the stride) of a box of canonical size.
        canonical_size: pixels.
    Returns:
        (R,) int64; boxes too small or large for all levels go to the first or last.
    Source: FPN, arXiv 1612.03144, Eq. 1; the 1e-8 inside the logarithm as in the official code.
    """
    size = torch.sqrt(box_areas(boxes))
    level = torch.floor(canonical_level + torch.log2(size / canonical_size + 1e-8))
    finest, coarsest = int(math.log2(strides[0])), int(math.log2(strides[-1]))
    return level.clamp(finest, coarsest).to(torch.int64) - finest


def pool_levels(
    features: Sequence[Tensor],
    rois: Tensor,
    *,
    strides: Sequence[int],
    canonical_level: int,
    canonical_size: float,
    output_size: int,
    sampling_ratio: int,
) -> Tensor:
    """Pool every RoI from its level, aligned (half-pixel shift).

    Args:
        features: per level (B, C, h, w), fine to coarse.
        rois: (R, 5) picture index, then the box in pixels of the canvas; a coordinate that is not
            finite counts as 0 (RoIAlign would read outside its memory).
        strides: of the levels.
        canonical_level: see `assign_levels`.
        canonical_size: see `assign_levels`.
        output_size: P.
        sampling_ratio: samples per bin side; 0: ceil(RoI side / P).
    Returns:
        (R, C, P, P).
    Source: RoIAlign, arXiv 1703.06870, Sec. 3.
    """
    rois = torch.nan_to_num(rois, nan=0.0, posinf=0.0, neginf=0.0)
    levels = assign_levels(rois[:, 1:], strides, canonical_level, canonical_size)
    rows = [torch.nonzero(levels == index).squeeze(1) for index in range(len(strides))]
    pooled = [
        torchvision.ops.roi_align(
            feature, rois[row], output_size, 1.0 / stride, sampling_ratio, aligned=True
        )
        for feature, row, stride in zip(features, rows, strides, strict=True)
    ]
    return torch.cat(pooled)[torch.argsort(torch.cat(rows))]
