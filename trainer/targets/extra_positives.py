"""More positives of the heat map: cells beside a centre that predict the object's box well."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from ..losses import giou_losses
from ..model_config import CenterNetConfig, ExtraPositivesConfig
from ..structures import Target
from .centernet import heat_channels, objects_on_levels
from .grid import CENTRE, PyramidGrid, around_centres


def extra_positives(
    targets: Sequence[Target],
    ltrb_strides: Tensor,
    grid: PyramidGrid,
    config: CenterNetConfig,
    channels: int,
) -> Tensor:
    """The positives of a batch, those of `centernet_targets` among them.

    Args:
        targets: ground truth of each picture.
        ltrb_strides: (B, M, 4) predicted distances of every cell, stride units, no gradient.
        grid: the cells of the canvas that all pictures share.
        config: with `extra_positives`.
        channels: of the heat map; 1: it does not tell classes apart.
    Returns:
        (P,) int64 indices into the heat map, as `FirstStageTargets.positives`.
    """
    extra = config.extra_positives
    assert extra is not None
    found = []
    for picture, (target, predicted) in enumerate(zip(targets, ltrb_strides, strict=True)):
        boxes = target.boxes.float()
        on_level = objects_on_levels(boxes, config.sizes_of_interest)
        cells, objects = well_predicted(boxes, on_level, predicted, grid, extra)
        labels = heat_channels(target, channels)[objects]
        found.append((cells + picture * len(grid.locations)) * channels + labels)
    return torch.cat(found)


def well_predicted(
    boxes: Tensor,
    on_level: Tensor,
    ltrb_strides: Tensor,
    grid: PyramidGrid,
    config: ExtraPositivesConfig,
) -> tuple[Tensor, Tensor]:
    """Cells near the centres of one picture's objects that predict their boxes.

    Of each object the 3x3 cells around its centre, on all levels, whose location is strictly
    inside its box: those whose GIoU loss is below the limit and below the object's `rank`-th
    smallest. The centre cell on the object's own levels counts as predicted without loss.

    Args:
        boxes: (N, 4) xyxy, pixels.
        on_level: (N, L) bool, the objects' own levels.
        ltrb_strides: (M, 4) predicted distances, stride units.
        grid: the cells.
        config: limit and rank.
    Returns:
        Cell indices (P,) and the objects (P,) they belong to, object by object.
    """
    objects, levels = torch.ones_like(on_level).nonzero(as_tuple=True)  # every object, every level
    near = around_centres(boxes, objects, levels, grid)  # A = N * L
    index = torch.where(near.exists, near.cells, 0)
    losses = giou_losses(
        ltrb_strides[index].flatten(0, 1), near.ltrb_strides.clamp(min=0).flatten(0, 1)
    ).reshape(index.shape)  # (N * L, 9)
    losses = torch.where(near.legal, losses, torch.inf)
    centre = losses[:, CENTRE]
    own = on_level.flatten() & near.exists[:, CENTRE]
    losses[:, CENTRE] = torch.where(own, 0.0, centre)
    losses = losses.reshape(len(boxes), on_level.shape[1] * 9)  # (N, L * 9)
    limit = losses.sort(dim=1).values[:, config.rank - 1 : config.rank]  # (N, 1)
    chosen = losses < limit.clamp(max=config.largest_loss)
    chosen[:, CENTRE::9] |= own.reshape(on_level.shape)  # also where all predictions are perfect
    rows, places = chosen.nonzero(as_tuple=True)
    return index.reshape(losses.shape)[rows, places], rows
