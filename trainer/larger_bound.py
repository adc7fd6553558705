"""Which stage learns background from a proposal: the one whose lower bound is the larger."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from .second_stage.cascade import CascadeRCNN
from .structures import Proposals, Target
from .targets.cascade import BACKGROUND, match_boxes
from .theory import first_stage_bound, second_stage_bound


@torch.no_grad()
def share_background(
    second_stage: CascadeRCNN,
    features: list[Tensor],
    proposals: Proposals,
    places: Tensor,
    targets: Sequence[Target],
    positive_iou: float,
    count: int,
) -> tuple[Proposals, Tensor]:
    """Give each proposal without an object to one of the stages.

    P(background | object) is what the second stage's first box head says now.

    Args:
        second_stage: with a softmax.
        features: of each level.
        proposals: (B, K) of the first stage; objectness is the root of P(object).
        places: (B, K) int64, of the proposals.
        targets: ground truth of each picture.
        positive_iou: from this IoU with an object on a proposal has one.
        count: places in all.
    Returns:
        The proposals, without those that train the first stage alone (their objectness is 0), and
        (B, count) bool, the places that are left to the second stage.
    Source: arXiv 2103.07461, Sec. 4: the larger of Eq. 3 and 4.
    """
    exists = proposals.objectness > 0
    p_background = torch.ones_like(proposals.objectness)
    pooled = second_stage.pool(
        features, [some[real] for some, real in zip(proposals.boxes, exists, strict=True)]
    )
    logits, _ = second_stage.stages[0](pooled)
    p_background[exists] = logits.float().softmax(dim=1)[:, -1]
    p_object = proposals.objectness**2
    second_learns = second_stage_bound(p_object, p_background) >= first_stage_bound(p_object)
    background = torch.stack(
        [
            match_boxes(boxes, target, positive_iou).classes == BACKGROUND
            for boxes, target in zip(proposals.boxes, targets, strict=True)
        ]
    )
    settled = torch.zeros(len(places), count, dtype=torch.bool, device=places.device)
    left = exists & background & second_learns
    pictures, rows = torch.nonzero(left, as_tuple=True)
    settled[pictures, places[pictures, rows]] = True
    kept = ~background | second_learns
    return Proposals(proposals.boxes, proposals.objectness * kept), settled
