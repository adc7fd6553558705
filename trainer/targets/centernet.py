"""Ground-truth boxes to the targets of the CenterNet first stage: no loss, no gradient.

The pyramid's cells are numbered in one row of M: levels fine to coarse, each level row by row.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from ..first_stage.centernet import cell_locations
from ..model_config import CenterNetConfig
from ..structures import Target

SMALLEST_HEAT = 1e-4  # smaller heat map values count as 0, as in the official code
CHUNK_ELEMENTS = 1 << 22  # locations x objects held at once: 16 MiB per float32 matrix


class PyramidGrid(NamedTuple):
    """The cells of all levels of one canvas."""

    locations: Tensor  # (M, 2) x, y of the cells, pixels
    strides: Tensor  # (L,) int64, pixels per cell
    heights: Tensor  # (L,) int64, cells
    widths: Tensor  # (L,) int64, cells
    offsets: Tensor  # (L,) int64, index of each level's first cell


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


class CentreCells(NamedTuple):
    """The 3x3 cells around the centres of A objects, each on one level."""

    locations: Tensor  # (A, 9, 2) x, y, pixels
    cells: Tensor  # (A, 9) int64 among all cells; any number where there is no such cell
    ltrb_strides: Tensor  # (A, 9, 4) to the object's sides, stride units; < 0 outside its box
    exists: Tensor  # (A, 9) bool, on the canvas
    legal: Tensor  # (A, 9) bool, on the canvas and the location strictly inside the box


CENTRE = 4  # of the nine cells, the one that contains the centre


def pyramid_grid(
    sizes: Sequence[tuple[int, int]], strides: Sequence[int], device: torch.device
) -> PyramidGrid:
    """Lay out the cells of all levels.

    Args:
        sizes: (height, width) of each level, cells, fine to coarse.
        strides: pixels per cell of each level.
        device: where the tensors lie.
    Returns:
        The grid.
    Raises:
        ValueError: the two lengths differ.
    """
    if len(sizes) != len(strides):
        raise ValueError(f"pyramid_grid: expected {len(sizes)} strides, got {len(strides)}")
    levels = [
        cell_locations(height, width, stride, device)
        for (height, width), stride in zip(sizes, strides, strict=True)
    ]
    shapes = torch.tensor(sizes, dtype=torch.int64, device=device).reshape(-1, 2)
    cells = shapes.prod(dim=1)
    return PyramidGrid(
        locations=torch.cat(levels),
        strides=torch.tensor(strides, dtype=torch.int64, device=device),
        heights=shapes[:, 0],
        widths=shapes[:, 1],
        offsets=cells.cumsum(0) - cells,
    )


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
    cells, inside = _centre_cells(centres, grid)
    objects, _ = inside.nonzero(as_tuple=True)
    nearest[labels[objects], _flat_index(cells, grid)[inside]] = 0.0
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
    cells, inside = _centre_cells((boxes[:, :2] + boxes[:, 2:]) / 2, grid)
    chosen = inside & on_level
    return _flat_index(cells, grid)[chosen], chosen.nonzero()[:, 0]


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


def around_centres(
    boxes: Tensor, objects: Tensor, levels: Tensor, grid: PyramidGrid
) -> CentreCells:
    """The 3x3 cells around object centres.

    Args:
        boxes: (N, 4) xyxy, pixels.
        objects: (A,) int64 rows of `boxes`.
        levels: (A,) int64, the level that each of them is looked at on.
        grid: the cells.
    """
    strides = grid.strides[levels]
    centres = (boxes[objects, :2] + boxes[objects, 2:]) / 2
    shifts = torch.cartesian_prod(torch.arange(-1, 2), torch.arange(-1, 2)).to(boxes.device)
    cells = _cell_of(centres, strides)[:, None] + shifts  # (A, 9, 2); shifts[CENTRE] is (0, 0)
    locations = (cells * strides[:, None, None] + strides[:, None, None] // 2).to(boxes.dtype)
    corners = boxes[objects, None]  # (A, 1, 4)
    ltrb = torch.cat([locations - corners[..., :2], corners[..., 2:] - locations], dim=2)
    size = torch.stack([grid.widths[levels], grid.heights[levels]], dim=1)[:, None]
    exists = ((cells >= 0) & (cells < size)).all(dim=2)
    return CentreCells(
        locations=locations,
        cells=grid.offsets[levels, None] + cells[..., 1] * size[..., 0] + cells[..., 0],
        ltrb_strides=ltrb / strides[:, None, None],
        exists=exists,
        legal=exists & (ltrb.amin(dim=2) > 0),
    )


def _cheapest_per_cell(index: Tensor, cost: Tensor, ltrb_strides: Tensor) -> RegressionTargets:
    """Of the candidates of one cell keep the cheapest; candidates come object by object."""
    order = cost.argsort(stable=True)
    order = order[index[order].argsort(stable=True)]
    index = index[order]
    first = torch.ones_like(index, dtype=torch.bool)
    first[1:] = index[1:] != index[:-1]
    return RegressionTargets(index[first], ltrb_strides[order[first]])


def _centre_cells(centres: Tensor, grid: PyramidGrid) -> tuple[Tensor, Tensor]:
    """Cells (N, L, 2) as x, y of each centre on every level, and whether they exist (N, L)."""
    cells = _cell_of(centres[:, None], grid.strides[None])
    size = torch.stack([grid.widths, grid.heights], dim=1)
    return cells, ((cells >= 0) & (cells < size)).all(dim=2)


def _cell_of(points: Tensor, strides: Tensor) -> Tensor:
    """The cell, int64 x, y, that contains each point."""
    return (points / strides[..., None]).floor().long()


def _flat_index(cells: Tensor, grid: PyramidGrid) -> Tensor:
    """(N, L, 2) cells on every level to indices (N, L) among all cells."""
    return grid.offsets + cells[..., 1] * grid.widths + cells[..., 0]
