"""Anchors and ground truth to positives and negatives, by fixed thresholds of overlap."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from ..boxes import box_ious
from .cascade import CHUNK_PAIRS

POSITIVE, NEGATIVE, IGNORED = 1, 0, -1


class AnchorMatches(NamedTuple):
    """What the M anchors of one picture answer for."""

    kinds: Tensor  # (M,) int8; POSITIVE, NEGATIVE or IGNORED, which does not count
    objects: Tensor  # (M,) int64, the object that each overlaps most; any number without objects


def match_anchors(
    anchors: Tensor, boxes: Tensor, positive_iou: float, negative_iou: float
) -> AnchorMatches:
    """Compare each anchor with the object that it overlaps most; of equal ones, the earlier.

    The anchors that overlap an object more than any other does are positive whatever the overlap,
    if there is one, so that no object goes without. They still answer for the object that they
    overlap most, as in detectron2.

    Args:
        anchors: (M, 4) xyxy, pixels.
        boxes: (N, 4) of the objects, any number.
        positive_iou: from this IoU on, inclusive, an anchor is positive.
        negative_iou: below this it is negative; between the two it is ignored.
    Source: Faster R-CNN, arXiv 1506.01497, Sec. 3.1.2; RetinaNet, arXiv 1708.02002, Sec. 4.
    """
    kinds = torch.full_like(anchors[:, 0], NEGATIVE, dtype=torch.int8)
    if len(boxes) == 0:
        return AnchorMatches(kinds, torch.zeros_like(kinds, dtype=torch.int64))
    found = [
        box_ious(some, boxes).max(dim=1) for some in torch.split(anchors, _rows_of(len(boxes)))
    ]
    best = torch.cat([some.values for some in found])
    kinds[best >= negative_iou] = IGNORED
    kinds[best >= positive_iou] = POSITIVE
    kinds[_best_of_objects(anchors, boxes)] = POSITIVE
    return AnchorMatches(kinds, torch.cat([some.indices for some in found]))


def _best_of_objects(anchors: Tensor, boxes: Tensor) -> Tensor:
    """Indices of the anchors that overlap some object as much as the best one does."""
    found = []
    for some in torch.split(boxes, max(1, CHUNK_PAIRS // len(anchors))):
        ious = box_ious(some, anchors)  # (n, M)
        best = ious.max(dim=1, keepdim=True).values
        found.append(torch.nonzero((ious == best) & (best > 0))[:, 1])
    return torch.cat(found)


def _rows_of(objects: int) -> int:
    """Anchors compared with so many objects at once."""
    return max(1, CHUNK_PAIRS // objects)
