"""Inputs of the detector's operators that are rich in ties, overlaps and odd boxes."""

from __future__ import annotations

import torch
from torch import Tensor

STRIDES = (8, 16, 32)
CANVASES = ((64, 96), (96, 64), (256, 160))


def random_boxes(batch: int, count: int, seed: int) -> Tensor:
    """(batch, count, 4) boxes on a coarse grid: many are equal, overlap, or are empty."""
    generator = torch.Generator().manual_seed(seed)
    start = torch.randint(0, 30, (batch, count, 2), generator=generator)
    size = torch.randint(0, 30, (batch, count, 2), generator=generator)
    return torch.cat([start, start + size], dim=-1).float()


def random_scores(*shape: int, seed: int, steps: int = 8) -> Tensor:
    """Few distinct values in [0, 1), so ties everywhere, some exactly 0."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, steps, shape, generator=generator).float() / steps


def pyramid(
    batch: int, canvas: tuple[int, int], strides: tuple[int, ...] = STRIDES
) -> list[Tensor]:
    """Random features of 5 channels for a canvas."""
    return [torch.randn(batch, 5, -(-canvas[0] // s), -(-canvas[1] // s)) for s in strides]


def rois_of_all_kinds(batch: int, canvas: tuple[int, int]) -> Tensor:
    """(batch, 12, 4): inside, at, across and beyond the edges, empty, tiny, larger than all."""
    h, w = canvas
    rows = [
        [3.2, 4.7, 30.1, 22.9],
        [0, 0, w, h],  # the whole canvas
        [-20, -15, 17, 11],  # across the top left edge
        [w - 9, h - 7, w + 30, h + 44],  # across the bottom right edge
        [w + 40, h + 50, w + 90, h + 99],  # beyond
        [-200, -200, -100, -100],  # beyond, on the other side
        [0, 0, 0, 0],  # padding
        [11, 13, 11.01, 40],  # as thin as a box can be
        [-900, -900, 2000, 2000],  # larger than all levels
        [0, 0, 112, 112],  # sizes on the level borders
        [0, 0, 224, 224],
        [0, 0, 448, 448],
    ]
    shift = torch.rand(batch, 1, 1) * torch.tensor([1.0] * 9 + [0.0] * 3)[None, :, None]
    return torch.tensor(rows, dtype=torch.float32) + shift
