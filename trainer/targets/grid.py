"""The cells of a pyramid, in one row of M: levels fine to coarse, each level row by row."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from ..first_stage.coding import cell_locations


class PyramidGrid(NamedTuple):
    """The cells of all levels of one canvas."""

    locations: Tensor  # (M, 2) x, y of the cells, pixels
    strides: Tensor  # (L,) int64, pixels per cell
    heights: Tensor  # (L,) int64, cells
    widths: Tensor  # (L,) int64, cells
    offsets: Tensor  # (L,) int64, index of each level's first cell


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


def centre_cells(centres: Tensor, grid: PyramidGrid) -> tuple[Tensor, Tensor]:
    """Cells (N, L, 2) as x, y of each centre on every level, and whether they exist (N, L)."""
    cells = _cell_of(centres[:, None], grid.strides[None])
    size = torch.stack([grid.widths, grid.heights], dim=1)
    return cells, ((cells >= 0) & (cells < size)).all(dim=2)


def _cell_of(points: Tensor, strides: Tensor) -> Tensor:
    """The cell, int64 x, y, that contains each point."""
    return (points / strides[..., None]).floor().long()


def flat_index(cells: Tensor, grid: PyramidGrid) -> Tensor:
    """(N, L, 2) cells on every level to indices (N, L) among all cells."""
    return grid.offsets + cells[..., 1] * grid.widths + cells[..., 0]
