"""Ground-truth boxes to the targets of the CenterNet first stage: no loss, no gradient.

The pyramid's cells are numbered in one row of M: levels fine to coarse, each level row by row.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from ..model_config import CenterNetConfig
from ..structures import Target
from .grid import CENTRE, PyramidGrid, around_centres, centre_cells, flat_index

SMALLEST_HEAT = 1e-4  # smaller heat map values count as 0, as in the official code
CHUNK_ELEMENTS = 1 << 22  # locations x objects held at once: 16 MiB per float32 matrix


class RegressionTargets(NamedTuple):
    """Cells that the regression is trained on."""

    indices: Tensor  # (P,) int64, ascending, each cell once
    ltrb_strides: Tensor  # (P, 4) left, top, right, bottom, stride units, > 0


class FirstStageTargets(NamedTuple):
    """The targets of a batch; cell indices count through it, picture b starting at b * M.

    The heat map has C channels, one per class, or one for all classes.
    """

    heatmap: Tensor  # (B * M * C,) in [0, 1], the channels of a cell one after another
    positives: Tensor  # (P,) int64 into `heatmap`, one per object and level of it; can repeat
    regression: RegressionTargets  # indices of cells, in 0..B * M - 1


def centernet_targets(
    targets: Sequence[Target], grid: PyramidGrid, config: CenterNetConfig, channels: int = 1
) -> FirstStageTargets:
    """The first-stage targets of a batch.

    Args:
        targets: ground truth of each picture; pictures without objects are legal.
        grid: the cells of the canvas that all pictures share.
        config: sizes of interest and radius of the heat map.
        channels: of the heat map, one per class; 1: it does not tell classes apart.
    Returns:
        Everything concatenated over the batch.
    Source: arXiv 2103.07461, Sec. 5; the numbers follow the official code.
    """
    cells = len(grid.locations)
    heatmaps, positives, indices, ltrb = [], [], [], []
    for picture, target in enumerate(targets):
        boxes = target.boxes.float()
        radius2 = squared_radius(boxes, config.min_overlap, config.min_radius)
        on_level = objects_on_levels(boxes, config.sizes_of_interest)
        regression = assign_regression(boxes, radius2, on_level, grid)
        labels = heat_channels(target, channels)
        heatmaps.append(render_heatmaps(boxes, labels, channels, radius2, grid).flatten())
        centres, objects = positive_cells(boxes, on_level, grid)
        positives.append((centres + picture * cells) * channels + labels[objects])
        indices.append(regression.indices + picture * cells)
        ltrb.append(regression.ltrb_strides)
    return FirstStageTargets(
        torch.cat(heatmaps),
        torch.cat(positives),
        RegressionTargets(torch.cat(indices), torch.cat(ltrb)),
    )


def heat_channels(target: Target, channels: int) -> Tensor:
    """The channel (N,) of the heat map, of so many, that each object appears on."""
    return target.classes if channels > 1 else torch.zeros_like(target.classes)


def squared_radius(boxes: Tensor, min_overlap: float, min_radius: float) -> Tensor:
    """Squared radius of each object's peak on the heat map.

    Args:
        boxes: (N, 4) xyxy, pixels.
        min_overlap: IoU with the object that a shifted box should keep, in (0, 1].
        min_radius: floor of the radius, pixels.
    Returns:
        (N,) r^2 = max(2 * delta^2 * area, min_radius^2), delta = (1 - overlap) / (1 + overlap).
    """
    delta = (1 - min_overlap) / (1 + min_overlap)
    sides = boxes[:, 2:] - boxes[:, :2]
    return (2 * delta**2 * sides.prod(dim=1)).clamp(min=min_radius**2)


def objects_on_levels(boxes: Tensor, sizes_of_interest: Sequence[tuple[float, float]]) -> Tensor:
    """Which levels answer for which object.

    Args:
        boxes: (N, 4) xyxy, pixels.
        sizes_of_interest: per level, range of half the box diagonal, pixels, ends inclusive;
            ranges overlap, so an object can be on several levels.
    Returns:
        (N, L) bool.
    """
    sides = boxes[:, 2:] - boxes[:, :2]
    sizes = (sides**2).sum(dim=1).sqrt() / 2  # (N,)
    ranges = boxes.new_tensor(sizes_of_interest)  # (L, 2)
    return (sizes[:, None] >= ranges[:, 0]) & (sizes[:, None] <= ranges[:, 1])


def render_heatmaps(
    boxes: Tensor, labels: Tensor, channels: int, radius2: Tensor, grid: PyramidGrid
) -> Tensor:
    """The likelihood targets of object centres, on every level for every object.

    Args:
        boxes: (N, 4) xyxy, pixels.
        labels: (N,) int64, the channel that each object appears on.
        channels: C.
        radius2: (N,) squared radius of each peak, pixels^2, > 0.
        grid: the cells.
    Returns:
        (M, C) max over the channel's objects of exp(-d^2 / r^2), d from the location to the box
        centre; exactly 1 at the cell that contains the centre; 0 below 1e-4 and where there are no
        objects.
    """
    locations = grid.locations
    nearest = locations.new_full((channels, len(locations)), torch.inf)  # smallest d^2 / r^2
    centres = (boxes[:, :2] + boxes[:, 2:]) / 2
    chunk = max(1, CHUNK_ELEMENTS // len(locations))
    for some, radii, channel in zip(
        torch.split(centres, chunk), torch.split(radius2, chunk), torch.split(labels, chunk),
        strict=True,
    ):  # fmt: skip
        x = locations[:, 0] - some[:, 0, None]  # (chunk, M)
        y = locations[:, 1] - some[:, 1, None]
        _lower(nearest, channel, (x * x + y * y) / radii[:, None])
    cells, inside = centre_cells(centres, grid)
    objects, _ = inside.nonzero(as_tuple=True)
    nearest[labels[objects], flat_index(cells, grid)[inside]] = 0.0
    heatmap = (-nearest).exp().T
    return torch.where(heatmap < SMALLEST_HEAT, 0.0, heatmap)


def _lower(nearest: Tensor, channel: Tensor, costs: Tensor) -> None:
    """Lower entries of `nearest` (C, M) to the costs (n, M), each row in its channel (n,)."""
    if not len(costs):
        return
    if len(nearest) == 1:
        nearest.copy_(torch.minimum(nearest, costs.amin(dim=0)))
    else:
        nearest.scatter_reduce_(0, channel[:, None].expand_as(costs), costs, "amin")


def positive_cells(boxes: Tensor, on_level: Tensor, grid: PyramidGrid) -> tuple[Tensor, Tensor]:
    """The cell of each object's centre, on each of the object's levels.

    Args:
        boxes: (N, 4) xyxy, pixels.
        on_level: (N, L) bool, from `objects_on_levels`.
        grid: the cells.
    Returns:
        Cell indices (P,) int64 and the objects (P,) they belong to, object by object; objects that
        share a cell give it twice, as in the official code. A centre outside the canvas gives none.
    """
    cells, inside = centre_cells((boxes[:, :2] + boxes[:, 2:]) / 2, grid)
    chosen = inside & on_level
    return flat_index(cells, grid)[chosen], chosen.nonzero()[:, 0]


def assign_regression(
    boxes: Tensor, radius2: Tensor, on_level: Tensor, grid: PyramidGrid
) -> RegressionTargets:
    """Decide which cells learn which object's box.

    The candidates are the 3x3 cells around an object's centre cell, on the object's levels, whose
    location is strictly inside its box. A cell with several objects takes the one with the
    smallest d^2 / r^2 (0 at the centre cell); ties go to the earlier object.

    Args:
        boxes: (N, 4) xyxy, pixels.
        radius2: (N,) squared radius of each peak, pixels^2.
        on_level: (N, L) bool, from `objects_on_levels`.
        grid: the cells.
    Returns:
        Cell indices and the distances to their object's sides.
    """
    objects, levels = on_level.nonzero(as_tuple=True)  # (A,) each: objects on their levels
    near = around_centres(boxes, objects, levels, grid)
    centres = (boxes[objects, :2] + boxes[objects, 2:]) / 2
    cost = ((near.locations - centres[:, None]) ** 2).sum(dim=2) / radius2[objects, None]
    cost[:, CENTRE] = 0.0
    legal = near.legal
    return _cheapest_per_cell(near.cells[legal], cost[legal], near.ltrb_strides[legal])


def _cheapest_per_cell(index: Tensor, cost: Tensor, ltrb_strides: Tensor) -> RegressionTargets:
    """Of the candidates of one cell keep the cheapest; candidates come object by object."""
    order = cost.argsort(stable=True)
    order = order[index[order].argsort(stable=True)]
    index = index[order]
    first = torch.ones_like(index, dtype=torch.bool)
    first[1:] = index[1:] != index[:-1]
    return RegressionTargets(index[first], ltrb_strides[order[first]])
