"""`background_bounds: larger`: each proposal without an object trains one stage alone."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from cn2.trainer.build import build_detector
from cn2.trainer.build_first_stage import build_first_stage_losses, build_proposal_stage
from cn2.trainer.first_stage_config import (
    ATSSConfig,
    CenterNetConfig,
    FirstStage,
    GFLConfig,
    ProposalFilter,
    RetinaNetConfig,
    RPNConfig,
)
from cn2.trainer.larger_bound import share_background
from cn2.trainer.structures import FirstStageOutput, Proposals, Target
from cn2.trainer.training_losses import DetectorLosses
from factories import tiny_config, tiny_federated_config

SIZES, STRIDES = ((8, 12), (4, 6), (2, 3)), (8, 16, 32)
TRUTH = Target(boxes=torch.tensor([[10.0, 8, 50, 44]]), classes=torch.tensor([0]), seed=1)
RANGES = ((0.0, 64.0), (24.0, 64.0), (48.0, 1e6))
KINDS: list[tuple[FirstStage, int]] = [
    (CenterNetConfig(sizes_of_interest=RANGES, convs=1, norm_groups=2), 1),
    (RetinaNetConfig(convs=1), 9),
    (ATSSConfig(convs=1, norm_groups=2), 1),
    (GFLConfig(convs=1, norm_groups=2), 1),
    (RPNConfig(sampled=None), 3),
]


def random_output(per_cell: int, centerness: bool) -> FirstStageOutput:
    generator = torch.Generator().manual_seed(0)

    def normal(channels: int) -> list[Tensor]:
        return [torch.randn(2, channels, *size, generator=generator) for size in SIZES]

    return FirstStageOutput(
        normal(per_cell),
        [level.abs() for level in normal(4 * per_cell)],
        normal(1) if centerness else None,
    )


@pytest.mark.parametrize(("config", "per_cell"), KINDS)
def test_places_are_those_of_the_proposals(config: FirstStage, per_cell: int) -> None:
    output = random_output(per_cell, config.kind == "atss")
    stage = build_proposal_stage(config, (3, 4, 5), 8)
    keep = ProposalFilter(pre_nms=30, post_nms=100, nms_iou=0.6)
    expected = stage.propose(output, keep)
    found, places = stage.propose_with_places(output, keep)
    assert torch.equal(found.boxes, expected.boxes)
    assert torch.equal(found.objectness, expected.objectness)
    assert (found.objectness == 0).any()  # some are padding
    likelihood = torch.cat([stage.likelihood(output, level) for level in range(3)], dim=1)
    exists = found.objectness > 0
    torch.testing.assert_close(
        likelihood.gather(1, places)[exists].sqrt(), found.objectness[exists]
    )


class Judge(nn.Module):
    """A second stage whose first box head says so for each RoI, in their order."""

    def __init__(self, p_background: list[float]) -> None:
        super().__init__()
        background = torch.tensor(p_background)[:, None]
        self.logits = torch.cat([1 - background, background], dim=1).log()
        self.stages = nn.ModuleList([self])

    def pool(self, features: list[Tensor], boxes: list[Tensor]) -> Tensor:
        return torch.cat(boxes)

    def forward(self, pooled: Tensor) -> tuple[Tensor, Tensor]:
        assert len(pooled) == len(self.logits)  # padding is not pooled
        return self.logits, pooled


def test_the_larger_bound_decides() -> None:
    """P(object) 0.8: Eq. 4 is log 0.2, Eq. 3 is 0.8 log P(background | object)."""
    border = 0.2 ** (1 / 0.8)  # of P(background | object), where both are the same
    judge: Any = Judge([0.9, border * 1.01, border * 0.99, 0.0, 0.0])
    far = [60.0, 10, 90, 40]
    boxes = torch.tensor([[far, far, far, far, [10.0, 8, 50, 44], [0.0] * 4]])
    roots = torch.tensor([[math.sqrt(0.8)] * 5 + [0.0]])
    places = torch.tensor([[3, 5, 7, 9, 11, 0]])
    kept, settled = share_background(
        judge, [], Proposals(boxes, roots), places, [TRUTH], positive_iou=0.6, count=12
    )
    assert torch.nonzero(settled[0]).flatten().tolist() == [3, 5]  # the second stage learns these
    # It does not learn the third and fourth; the fifth is an object, the sixth is padding.
    assert (kept.objectness[0] > 0).tolist() == [True, True, False, False, True, False]


def first_stage_losses(
    config: FirstStage, output: FirstStageOutput, settled: Tensor | None
) -> list[Tensor]:
    """The gradients of the logits times the divisor, which is the same with and without."""
    for level in output.logits:
        level.grad = None
        level.requires_grad_()
    empty = Target(boxes=torch.zeros(0, 4), classes=torch.zeros(0, dtype=torch.int64))
    losses = build_first_stage_losses(config, lambda count: max(count, 1.0))(
        output, [TRUTH, empty], STRIDES, settled
    )
    torch.stack(list(losses.values())).sum().backward()  # type: ignore[no-untyped-call]
    rows = [level.grad.permute(0, 2, 3, 1).flatten(1) for level in output.logits]
    return [torch.cat(rows, dim=1)]


@pytest.mark.parametrize(("config", "per_cell"), KINDS)
def test_settled_places_are_no_negatives(config: FirstStage, per_cell: int) -> None:
    output = random_output(per_cell, config.kind == "atss")
    (plain,) = first_stage_losses(config, output, None)
    everywhere = torch.ones_like(plain, dtype=torch.bool)
    (positive,) = first_stage_losses(config, output, everywhere)
    assert 0 < int((positive != 0).sum()) < 200  # what is left are the positives
    assert not positive[1].any()
    some = torch.rand(plain.shape, generator=torch.Generator().manual_seed(1)) < 0.5
    (half,) = first_stage_losses(config, output, some)
    torch.testing.assert_close(half, torch.where(some, positive, plain))


def test_a_step_by_the_larger_bound() -> None:
    """Whatever a proposal trains, it trains one stage: both losses of background are smaller."""
    config = tiny_config()
    found = {}
    for bounds in ("both", "larger"):
        model = replace(
            config.model,
            background_bounds=bounds,
            second_stage=replace(config.model.second_stage, rois_per_image=1000),
        )
        torch.manual_seed(0)
        detector = build_detector(replace(config, model=model)).train()
        nn.init.constant_(detector.first_stage.head.heatmap.bias, 0.5)
        images = torch.randint(
            0, 256, (1, 64, 96, 3), generator=torch.Generator().manual_seed(1)
        ).to(torch.uint8)
        losses = DetectorLosses(model)(detector, images, torch.tensor([[64, 96]]), [TRUTH])
        torch.stack(list(losses.values())).sum().backward()  # type: ignore[no-untyped-call]
        assert all(p.grad is not None and p.grad.isfinite().all() for p in detector.parameters())
        found[bounds] = losses
    assert 0 < found["larger"]["heatmap_negative"] < found["both"]["heatmap_negative"]
    assert found["larger"]["heatmap_positive"] == found["both"]["heatmap_positive"]


@pytest.mark.parametrize("second_stage", ["none", "sigmoid"])
def test_the_larger_bound_needs_a_probability_of_background(second_stage: str) -> None:
    model = tiny_config().model if second_stage == "none" else tiny_federated_config().model
    if second_stage == "none":
        model = replace(model, second_stage=None)
    with pytest.raises(ValueError, match="background_bounds: expected both without a second stage"):
        replace(model, background_bounds="larger")
