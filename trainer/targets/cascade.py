"""Proposals and ground truth to the RoIs of the cascade and what they should be: no loss here."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from ..boxes import box_ious
from ..structures import Proposals, Target

BACKGROUND = -1  # class of a RoI that answers for no object
CHUNK_PAIRS = 1 << 22  # RoI x object pairs held at once: 16 MiB per float32 matrix


class Matches(NamedTuple):
    """What the RoIs of one picture answer for."""

    classes: Tensor  # (R,) int64; BACKGROUND or 0..C-1
    boxes: Tensor  # (R, 4) xyxy, pixels: the object's box; of a background RoI, any numbers


def training_proposals(proposals: Proposals, targets: Sequence[Target]) -> list[Tensor]:
    """Each picture's boxes: its proposals without the padding, then its ground truth.

    Args:
        proposals: of the batch; rows with objectness 0 are padding.
        targets: ground truth of each picture.
    Returns:
        Per picture (R, 4) xyxy, pixels, unclipped.
    """
    return [
        torch.cat([boxes[objectness > 0], target.boxes.to(boxes)])
        for boxes, objectness, target in zip(*proposals, targets, strict=True)
    ]


def match_boxes(boxes: Tensor, target: Target, iou_threshold: float) -> Matches:
    """Give each box the object that it overlaps most.

    Args:
        boxes: (R, 4) xyxy, pixels.
        target: ground truth of the picture, any number of objects.
        iou_threshold: from this IoU on, inclusive, a box is positive.
    Returns:
        The matches; of two objects with the same IoU the earlier one counts.
    """
    if len(target.boxes) == 0:
        return Matches(torch.full_like(boxes[:, 0], BACKGROUND, dtype=torch.int64), boxes)
    objects = target.boxes.to(boxes)
    rows = max(1, CHUNK_PAIRS // len(objects))
    best = [box_ious(some, objects).max(dim=1) for some in torch.split(boxes, rows)]
    iou = torch.cat([found.values for found in best])
    matched = torch.cat([found.indices for found in best])
    classes = target.classes.to(boxes.device)[matched]
    return Matches(torch.where(iou >= iou_threshold, classes, BACKGROUND), objects[matched])


def sample_rois(
    classes: Tensor,
    rois_per_image: int,
    positive_fraction: float,
    generator: torch.Generator | None = None,
) -> Tensor:
    """Draw the RoIs of one picture that the cascade trains on.

    Args:
        classes: (R,) int64, BACKGROUND for negatives.
        rois_per_image: at most so many are drawn.
        positive_fraction: at most this part of them is positive; negatives fill the rest.
        generator: on the CPU; None for torch's global one.
    Returns:
        (S,) int64 indices into the RoIs, ascending, without repetition.
    """
    background = classes == BACKGROUND
    positives = (~background).nonzero().flatten()
    negatives = background.nonzero().flatten()
    wanted = min(int(rois_per_image * positive_fraction), len(positives))
    kept = torch.cat(
        [
            _draw(positives, wanted, generator),
            _draw(negatives, min(rois_per_image - wanted, len(negatives)), generator),
        ]
    )
    return kept.sort().values


def _draw(indices: Tensor, count: int, generator: torch.Generator | None) -> Tensor:
    """`count` of the indices, each at most once; drawn on the CPU, so a seed means one thing."""
    order = torch.randperm(len(indices), generator=generator)[:count]
    return indices[order.to(indices.device)]


def has_area(boxes: Tensor) -> Tensor:
    """(R,) bool: the box is wider and higher than 0."""
    return (boxes[:, 2:] > boxes[:, :2]).all(dim=1)
