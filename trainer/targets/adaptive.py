"""Locations and ground truth to positives, by a threshold of overlap that each object sets."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from ..boxes import box_ious
from .grid import PyramidGrid

NOBODY = -1


class Candidates(NamedTuple):
    """Locations near the centres of N objects."""

    cells: Tensor  # (N, K) int64 among all cells
    ious: Tensor  # (N, K) of the locations' anchors with the object


def assign_adaptively(
    boxes: Tensor, grid: PyramidGrid, anchor_size: float, candidates: int
) -> Tensor:
    """The object that each location answers for, as ATSS chooses.

    An object's candidates are, on each level, the locations nearest to its centre, of equal ones
    the earlier. Those are positive whose anchor overlaps it by the mean plus the standard deviation
    of its candidates' IoUs or more, and whose location is strictly inside its box. A location with
    several objects takes the one that its anchor overlaps most, of equal ones the earlier.

    Args:
        boxes: (N, 4) xyxy, pixels, any number.
        grid: the cells, M in all.
        anchor_size: side of a location's square anchor, strides.
        candidates: locations per level; all of a level that has fewer.
    Returns:
        (M,) int64, rows of `boxes`; NOBODY for background.
    Source: arXiv 1912.02424, Algorithm 1.
    """
    owners = torch.full_like(grid.locations[:, 0], NOBODY, dtype=torch.int64)
    if len(boxes) == 0:
        return owners
    near = nearest_candidates(boxes, grid, anchor_size, candidates)
    limit = near.ious.mean(dim=1)  # (N,)
    if near.ious.shape[1] > 1:
        limit = limit + near.ious.std(dim=1)
    locations = grid.locations[near.cells]  # (N, K, 2)
    ltrb = torch.cat([locations - boxes[:, None, :2], boxes[:, None, 2:] - locations], dim=2)
    positive = (near.ious >= limit[:, None]) & (ltrb.amin(dim=2) > 0)
    objects, _ = positive.nonzero(as_tuple=True)
    return _most_overlapping(owners, near.cells[positive], objects, near.ious[positive])


def nearest_candidates(
    boxes: Tensor, grid: PyramidGrid, anchor_size: float, count: int
) -> Candidates:
    """The locations of each level nearest to each object's centre, level after level."""
    centres = (boxes[:, :2] + boxes[:, 2:]) / 2
    cells = []
    sizes = (grid.heights * grid.widths).tolist()
    for offset, level in zip(
        grid.offsets.tolist(), torch.split(grid.locations, sizes), strict=True
    ):
        squared = ((centres[:, None] - level[None]) ** 2).sum(dim=2)  # (N, m)
        order = squared.sort(dim=1, stable=True).indices[:, :count]
        cells.append(order + offset)
    chosen = torch.cat(cells, dim=1)
    half = grid.strides.repeat_interleave(grid.heights * grid.widths)[chosen] * (anchor_size / 2)
    locations, half = grid.locations[chosen], half[..., None]
    anchors = torch.cat([locations - half, locations + half], dim=2)  # (N, K, 4)
    ious = [box_ious(some, box[None])[:, 0] for some, box in zip(anchors, boxes, strict=True)]
    return Candidates(chosen, torch.stack(ious))


def _most_overlapping(owners: Tensor, cells: Tensor, objects: Tensor, ious: Tensor) -> Tensor:
    """Owners with each of the cells given to its object of largest IoU; they come in order."""
    order = ious.argsort(stable=True, descending=True)
    order = order[cells[order].argsort(stable=True)]
    cells = cells[order]
    first = torch.ones_like(cells, dtype=torch.bool)
    first[1:] = cells[1:] != cells[:-1]
    owners[cells[first]] = objects[order[first]]
    return owners
