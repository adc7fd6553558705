"""The positives of a batch where a location answers for one object or none."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from ..structures import Target
from ..targets.adaptive import NOBODY, assign_adaptively
from ..targets.grid import PyramidGrid
from .shared import labels_of


class Positives(NamedTuple):
    """P positive locations of a batch, picture by picture."""

    pictures: Tensor  # (P,) int64
    cells: Tensor  # (P,) int64 among the cells of all levels
    labels: Tensor  # (P,) int64, the column of the object's class
    boxes: Tensor  # (P, 4) xyxy, pixels, of the object
    locations: Tensor  # (P, 2) x, y, pixels
    strides: Tensor  # (P,) pixels per cell, float
    ltrb: Tensor  # (P, 4) distances to the object's sides, pixels, > 0


def assign_locations(
    targets: Sequence[Target], grid: PyramidGrid, anchor_size: float, candidates: int, classes: int
) -> Positives:
    """The positives of a batch; see `assign_adaptively`."""
    pictures, cells, labels, boxes = [], [], [], []
    for picture, target in enumerate(targets):
        objects = target.boxes.to(grid.locations)
        owners = assign_adaptively(objects, grid, anchor_size, candidates)
        own = torch.nonzero(owners != NOBODY).squeeze(1)
        cells.append(own)
        pictures.append(torch.full_like(own, picture))
        labels.append(labels_of(target, classes).to(own.device)[owners[own]])
        boxes.append(objects[owners[own]])
    cell, box = torch.cat(cells), torch.cat(boxes)
    locations = grid.locations[cell]
    strides = grid.strides.repeat_interleave(grid.heights * grid.widths)[cell]
    return Positives(
        pictures=torch.cat(pictures),
        cells=cell,
        labels=torch.cat(labels),
        boxes=box,
        locations=locations,
        strides=strides.to(locations),
        ltrb=torch.cat([locations - box[:, :2], box[:, 2:] - locations], dim=1),
    )
