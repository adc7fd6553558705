"""The first stage: locations, decoding, exact counts, ties, floors, padding, batches."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from cn2.trainer.first_stage.centernet import CenterNetHead
from cn2.trainer.first_stage.coding import SideDistances, cell_locations
from cn2.trainer.first_stage.dense import ProposalStage
from cn2.trainer.layers import set_prior
from cn2.trainer.model_config import ProposalFilter
from cn2.trainer.structures import FirstStageOutput

CPU = torch.device("cpu")


def first_stage(strides: tuple[int, ...] = (8, 16)) -> ProposalStage:
    head = CenterNetHead(8, convs=1, norm_groups=2, levels=len(strides), regression_bias=4.0)
    return ProposalStage(head, SideDistances(), strides, objectness_floor=1e-4)


def output(batch: int = 1, seed: int = 0) -> FirstStageOutput:
    """Random predictions on levels of 4 x 6 and 2 x 3 cells."""
    generator = torch.Generator().manual_seed(seed)

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator)

    sizes = ((4, 6), (2, 3))
    return FirstStageOutput(
        [normal(batch, 1, *hw) for hw in sizes], [normal(batch, 4, *hw).abs() * 2 for hw in sizes]
    )


def test_cell_locations() -> None:
    assert cell_locations(2, 3, 8, CPU).tolist() == [
        [4.0, 4.0],
        [12.0, 4.0],
        [20.0, 4.0],
        [4.0, 12.0],
        [12.0, 12.0],
        [20.0, 12.0],
    ]
    assert cell_locations(1, 1, 1, CPU).tolist() == [
        [0.0, 0.0]
    ]  # half of an odd stride: rounded down


def test_one_certain_cell_becomes_one_proposal() -> None:
    heatmaps = [torch.full((1, 1, 4, 6), -20.0), torch.full((1, 1, 2, 3), -20.0)]
    heatmaps[1][0, 0, 1, 2] = 1.5
    regressions = [torch.zeros(1, 4, 4, 6), torch.zeros(1, 4, 2, 3)]
    regressions[1][0, :, 1, 2] = torch.tensor([1.0, 0.5, 2.0, 0.25])  # strides
    proposals = first_stage().propose(
        FirstStageOutput(heatmaps, regressions), ProposalFilter(pre_nms=10, post_nms=3)
    )
    assert proposals.boxes[0, 0].tolist() == [40 - 16, 24 - 8, 40 + 32, 24 + 4]
    likelihood = 1 / (1 + math.exp(-1.5))
    assert proposals.objectness[0, 0].item() == pytest.approx(math.sqrt(likelihood), abs=1e-6)
    assert not proposals.boxes[0, 1:].any()
    assert not proposals.objectness[0, 1:].any()


@pytest.mark.parametrize("post_nms", [1, 7, 30, 100])  # 30 cells in all
def test_exactly_as_many_rows_as_asked_for(post_nms: int) -> None:
    proposals = first_stage().propose(
        output(), ProposalFilter(pre_nms=1000, post_nms=post_nms, nms_iou=1.0)
    )
    assert proposals.boxes.shape == (1, post_nms, 4)
    objectness = proposals.objectness[0]
    assert torch.equal(objectness, objectness.sort(descending=True).values)
    assert int((objectness > 0).sum()) == min(post_nms, 30)


def test_pre_nms_counts_per_level() -> None:
    proposals = first_stage().propose(output(), ProposalFilter(pre_nms=2, post_nms=50, nms_iou=1.0))
    assert int((proposals.objectness > 0).sum()) == 4


def test_ties_go_to_the_finer_level_and_the_lower_cell() -> None:
    heatmaps = [torch.zeros(1, 1, 4, 6), torch.zeros(1, 1, 2, 3)]
    regressions = [torch.full((1, 4, 4, 6), 0.25), torch.full((1, 4, 2, 3), 0.25)]
    proposals = first_stage().propose(
        FirstStageOutput(heatmaps, regressions), ProposalFilter(pre_nms=100, post_nms=30)
    )
    centres = (proposals.boxes[0, :, :2] + proposals.boxes[0, :, 2:]) / 2
    expected = torch.cat([cell_locations(4, 6, 8, CPU), cell_locations(2, 3, 16, CPU)])
    torch.testing.assert_close(centres, expected)


@pytest.mark.parametrize(("offset", "kept"), [(1e-3, 30), (-1e-3, 0)])
def test_the_floor_is_strict(offset: float, kept: int) -> None:
    logit = math.log(1e-4 / (1 - 1e-4)) + offset
    heatmaps = [torch.full((1, 1, 4, 6), logit), torch.full((1, 1, 2, 3), logit)]
    proposals = first_stage().propose(
        FirstStageOutput(heatmaps, output().regressions),
        ProposalFilter(pre_nms=100, post_nms=40, nms_iou=1.0),
    )
    assert int((proposals.objectness > 0).sum()) == kept


def test_batch_equals_single_pictures() -> None:
    together, filter = output(batch=3), ProposalFilter(pre_nms=12, post_nms=9, nms_iou=0.4)
    stage = first_stage()
    proposals = stage.propose(together, filter)
    for picture in range(3):
        one = slice(picture, picture + 1)
        alone = stage.propose(
            FirstStageOutput(
                [h[one] for h in together.logits], [r[one] for r in together.regressions]
            ),
            filter,
        )
        assert torch.equal(alone.boxes, proposals.boxes[one])
        assert torch.equal(alone.objectness, proposals.objectness[one])


def test_proposals_carry_no_gradient() -> None:
    predictions = output()
    predictions.regressions[0].requires_grad_()
    proposals = first_stage().propose(predictions, ProposalFilter(pre_nms=9, post_nms=5))
    assert not proposals.boxes.requires_grad


def test_head_starts_at_its_prior_and_with_open_distances() -> None:
    stage = first_stage()
    set_prior(stage.head.heatmap, 0.01)
    torch.nn.init.zeros_(stage.head.heatmap.weight)
    torch.nn.init.zeros_(stage.head.regression.weight)
    result = stage([torch.randn(2, 8, 4, 6), torch.randn(2, 8, 2, 3)])
    assert torch.sigmoid(result.logits[0]).mean().item() == pytest.approx(0.01, abs=1e-6)
    assert (result.regressions[1] == 4.0).all()


def test_level_scales_and_relu() -> None:
    stage = first_stage()
    torch.nn.init.zeros_(stage.head.regression.weight)
    with torch.no_grad():
        stage.head.regression.bias.copy_(torch.tensor([1.0, -1.0, 2.0, 0.0]))
        stage.head.level_scales.copy_(torch.tensor([1.0, 3.0]))
    result = stage([torch.randn(1, 8, 4, 6), torch.randn(1, 8, 2, 3)])
    assert result.regressions[0][0, :, 0, 0].tolist() == [1.0, 0.0, 2.0, 0.0]
    assert result.regressions[1][0, :, 0, 0].tolist() == [3.0, 0.0, 6.0, 0.0]
