"""How the regression channels of a first stage say where boxes are.

Three ways: distances to the sides, distributions over such distances, and deltas of anchors.
"""

from __future__ import annotations

from typing import Protocol, TypeAlias

import torch
from torch import Tensor, nn

from ..boxes import decode_deltas, decode_ltrb

AnchorShapes: TypeAlias = tuple[tuple[float, float], ...]  # width, height, strides


class BoxCoding(Protocol):
    """Reads the boxes of some places of a level."""

    @property
    def per_cell(self) -> int:
        """A, boxes that a cell predicts."""
        ...

    def decode(self, regression: Tensor, places: Tensor, stride: int) -> Tensor:
        """The boxes of some places.

        Args:
            regression: (B, A * D, h, w), the level's channels.
            places: (B, K) int64, cell * A + a.
            stride: pixels per cell.
        Returns:
            (B, K, 4) xyxy, pixels, not clipped.
        """
        ...


class SideDistances:
    """Left, top, right, bottom from the location, stride units, >= 0; a box per cell."""

    per_cell = 1

    def decode(self, regression: Tensor, places: Tensor, stride: int) -> Tensor:
        """See `BoxCoding.decode`."""
        distances = regression.flatten(2) * stride  # (B, 4, h * w) pixels
        distances = distances.gather(2, places[:, None, :].expand(-1, 4, -1)).transpose(1, 2)
        return decode_ltrb(_locations_of(regression, stride)[places], distances)


class DistanceDistributions:
    """A distribution over 0, 1, ... strides for each side; its mean is the side's distance.

    Source: GFL, arXiv 2006.04388, Sec. 3.2: the general distribution of a box's sides.
    """

    per_cell = 1

    def decode(self, regression: Tensor, places: Tensor, stride: int) -> Tensor:
        """See `BoxCoding.decode`; D is 4 * bins, of logits."""
        logits = gather_places(regression, places, 1)  # (B, K, 4 * bins)
        distances = mean_distances(logits) * stride
        return decode_ltrb(_locations_of(regression, stride)[places], distances)


class AnchorDeltas(nn.Module):
    """Deltas that move and scale anchors, which are centred on the location."""

    sizes: Tensor  # (A, 2) the shapes, where the weights are: a CUDA graph copies none to the GPU

    def __init__(self, shapes: AnchorShapes, weights: tuple[float, float, float, float]) -> None:
        """Take the anchors' width and height in strides, and the weights of deltas."""
        super().__init__()
        self.shapes = shapes
        self.weights = weights
        self.register_buffer("sizes", torch.tensor(shapes), persistent=False)

    @property
    def per_cell(self) -> int:
        """Anchors of a cell."""
        return len(self.shapes)

    def decode(self, regression: Tensor, places: Tensor, stride: int) -> Tensor:
        """See `BoxCoding.decode`."""
        count = self.per_cell
        deltas = gather_places(regression, places, count)
        centres = _locations_of(regression, stride)[places // count]
        half = (self.sizes * (stride / 2))[places % count]
        return decode_deltas(torch.cat([centres - half, centres + half], -1), deltas, self.weights)


def mean_distances(logits: Tensor) -> Tensor:
    """(..., 4 * bins) logits of distributions over 0..bins - 1 -> (..., 4) their means."""
    by_side = logits.reshape(*logits.shape[:-1], 4, logits.shape[-1] // 4).softmax(dim=-1)
    bins = torch.arange(by_side.shape[-1], device=logits.device, dtype=logits.dtype)
    return (by_side * bins).sum(dim=-1)


def anchor_shapes(
    size: float, octave_scales: int, height_per_width: tuple[float, ...]
) -> AnchorShapes:
    """Width and height of a cell's anchors, in strides.

    Args:
        size: root of the area of the smallest anchors, strides.
        octave_scales: sizes per octave, each 2^(1 / octave_scales) of the one before.
        height_per_width: shapes of each size.
    Returns:
        A = octave_scales * shapes of them, size after size.
    Source: RetinaNet, arXiv 1708.02002, Sec. 4.
    """
    return tuple(
        (size * 2 ** (k / octave_scales) / ratio**0.5, size * 2 ** (k / octave_scales) * ratio**0.5)
        for k in range(octave_scales)
        for ratio in height_per_width
    )


def level_anchors(locations: Tensor, shapes: AnchorShapes, stride: int) -> Tensor:
    """The anchors of a level, place after place: (M, 2) locations -> (M * A, 4) xyxy, pixels."""
    half = locations.new_tensor(shapes) * (stride / 2)  # (A, 2)
    return torch.cat([locations[:, None] - half, locations[:, None] + half], dim=2).flatten(0, 1)


def places_first(level: Tensor, per_cell: int) -> Tensor:
    """Channels (B, A * D, h, w) as rows of places: (B, h * w * A, D)."""
    batch, channels, height, width = level.shape
    rows = level.permute(0, 2, 3, 1)
    return rows.reshape(batch, height * width * per_cell, channels // per_cell)


def gather_places(level: Tensor, places: Tensor, per_cell: int) -> Tensor:
    """Of channels (B, A * D, h, w) the rows (B, K, D) of places (B, K)."""
    rows = places_first(level, per_cell)
    return rows.gather(1, places[..., None].expand(-1, -1, rows.shape[2]))


def _locations_of(level: Tensor, stride: int) -> Tensor:
    return cell_locations(level.shape[2], level.shape[3], stride, level.device)


def cell_locations(height: int, width: int, stride: int, device: torch.device) -> Tensor:
    """The location of every cell of a level.

    Args:
        height: of the level, cells.
        width: of the level, cells.
        stride: pixels per cell.
        device: where the answer lies.
    Returns:
        (height * width, 2) x, y in pixels, row by row: index * stride + stride // 2.
    """
    x = torch.arange(width, device=device, dtype=torch.float32) * stride + stride // 2
    y = torch.arange(height, device=device, dtype=torch.float32) * stride + stride // 2
    grid = torch.stack([x[None, :].expand(height, -1), y[:, None].expand(-1, width)], dim=-1)
    return grid.reshape(-1, 2)
