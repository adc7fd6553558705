"""The cascade: joint scores, clipping between stages, padding, thresholds, pooling to train."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from cn2.trainer.boxes import clip_boxes, decode_deltas
from cn2.trainer.build import build_second_stage
from cn2.trainer.second_stage.cascade import CascadeRCNN
from cn2.trainer.structures import Proposals
from cn2.trainer.theory import class_probability
from factories import tiny_config

SIZES = torch.tensor([[60, 90], [64, 96]], dtype=torch.int32)


def cascade(score_rule: str = "sqrt", score_threshold: float = 0.05, **values: Any) -> CascadeRCNN:
    """Three stages of 8 channels and 3 classes with larger weights than at the start."""
    config = tiny_config().model.second_stage
    config = replace(config, score_rule=score_rule, score_threshold=score_threshold, **values)
    torch.manual_seed(0)
    built = build_second_stage(config, (3, 4, 5), 8, 3)
    for stage in built.stages:
        torch.nn.init.normal_(stage.class_logits.weight, std=1.0)
        torch.nn.init.normal_(stage.deltas.weight, std=1.0)
    return built.eval()


def features(batch: int = 2) -> list[Tensor]:
    generator = torch.Generator().manual_seed(1)
    return [torch.randn(batch, 8, 8 // 2**i, 12 // 2**i, generator=generator) for i in range(3)]


def proposals(batch: int = 2, count: int = 10) -> Proposals:
    generator = torch.Generator().manual_seed(2)
    start = torch.rand(batch, count, 2, generator=generator) * 70 - 10
    size = torch.rand(batch, count, 2, generator=generator) * 50 + 2
    objectness = torch.rand(batch, count, generator=generator).sort(descending=True).values
    return Proposals(torch.cat([start, start + size], dim=-1), objectness)


@pytest.mark.parametrize(
    ("rule", "expected"),
    [
        ("sqrt", (0.81 * 0.25) ** 0.5),  # objectness is a root already
        ("product", 0.81 * 0.25**2),  # P(class | object) * P(object)
        ("class", 0.81),
    ],
)
def test_joint_score(rule: str, expected: float) -> None:
    scores = cascade(rule).joint_score(torch.tensor([[[0.81, 0.0]]]), torch.tensor([[0.25]]))
    torch.testing.assert_close(scores, torch.tensor([[[expected, 0.0]]]))


def test_the_product_is_the_papers_equation() -> None:
    """Of the root of P(object), which is what a first stage gives."""
    p_object, p_class = torch.rand(1, 5), torch.rand(1, 5, 3)
    found = cascade("product").joint_score(p_class, p_object.sqrt())
    torch.testing.assert_close(found, class_probability(p_object[..., None], p_class))


@torch.no_grad()
@pytest.mark.parametrize("rule", ["sqrt", "product", "class"])
def test_padding_never_becomes_a_detection(rule: str) -> None:
    model, found = cascade(rule), proposals()
    padded = Proposals(
        torch.cat([found.boxes, torch.zeros(2, 6, 4)], dim=1),
        torch.cat([found.objectness, torch.zeros(2, 6)], dim=1),
    )
    for threshold in (0.0, 0.3):
        plain = model(features(), found, SIZES, torch.tensor(threshold))
        longer = model(features(), padded, SIZES, torch.tensor(threshold))
        assert plain.num_detections.tolist() == longer.num_detections.tolist()
        torch.testing.assert_close(plain.boxes, longer.boxes, atol=1e-4, rtol=0)
    only_padding = Proposals(torch.zeros(2, 6, 4), torch.zeros(2, 6))
    assert model(features(), only_padding, SIZES, torch.tensor(0.0)).num_detections.tolist() == [
        0,
        0,
    ]


@torch.no_grad()
def test_detections_lie_in_their_picture_best_first() -> None:
    found = cascade()(features(), proposals(), SIZES, torch.tensor(0.0))
    assert (found.num_detections > 0).all()
    for picture, (height, width) in enumerate(SIZES.tolist()):
        boxes, scores = found.boxes[picture], found.scores[picture]
        assert boxes.min() >= 0.0
        assert boxes[:, 2].max() <= width
        assert boxes[:, 3].max() <= height
        assert torch.equal(scores, scores.sort(descending=True).values)


@torch.no_grad()
def test_probabilities_are_the_mean_over_stages_and_boxes_are_chained() -> None:
    model, levels = cascade(), features()
    boxes, total = proposals().boxes, torch.zeros(2, 10, 3)
    for index, stage in enumerate(model.stages):
        if index:
            boxes = clip_boxes(boxes, SIZES)
        logits, deltas = stage(model.pool(levels, list(boxes)))
        total += logits.softmax(dim=1)[:, :3].reshape(2, 10, 3)
        boxes = decode_deltas(boxes, deltas.reshape(2, 10, 4), stage.delta_weights)
    probabilities, refined = model.refine(levels, proposals().boxes, SIZES)
    torch.testing.assert_close(probabilities, total / 3)
    torch.testing.assert_close(refined, boxes)


@torch.no_grad()
def test_threshold_of_the_config_and_at_run_time() -> None:
    model = cascade(score_threshold=0.4)
    default = model(features(), proposals(), SIZES)
    same = model(features(), proposals(), SIZES, torch.tensor(0.4))
    lower = model(features(), proposals(), SIZES, torch.tensor(0.1))
    assert torch.equal(default.scores, same.scores)
    assert (default.scores[default.scores > 0] > 0.4).all()
    assert (lower.num_detections > default.num_detections).all()


@torch.no_grad()
def test_boxes_that_are_not_finite_are_dropped() -> None:
    model, found = cascade(), proposals()
    broken = found.boxes.clone()
    broken[0, 3] = torch.tensor([0.0, 0.0, float("nan"), 9.0])
    result = model(features(), Proposals(broken, found.objectness), SIZES, torch.tensor(0.0))
    assert torch.isfinite(result.boxes).all()
    assert torch.isfinite(result.scores).all()


def test_training_pools_what_inference_pools_with_gradient() -> None:
    model, levels = cascade(), [level.requires_grad_() for level in features()]
    boxes = list(proposals().boxes)
    pooled = model.pool(levels, [boxes[0], boxes[1][:4]])
    assert pooled.shape == (14, 8, 7, 7)
    pooled.square().sum().backward()
    assert levels[0].grad is not None
    alone = model.pool([level[1:] for level in levels], [boxes[1][:4]])
    torch.testing.assert_close(pooled[10:], alone)


def test_a_picture_without_boxes_pools_nothing() -> None:
    model, boxes = cascade(), proposals().boxes
    assert model.pool(features(), [boxes[0][:0], boxes[1][:2]]).shape == (2, 8, 7, 7)
    assert model.pool(features(), [boxes[0][:0], boxes[1][:0]]).shape == (0, 8, 7, 7)


PER_CLASS: dict[str, Any] = {
    "ious": (0.5,),
    "delta_weights": ((10.0, 10.0, 5.0, 5.0),),
    "per_class_boxes": True,
}


@torch.no_grad()
def test_boxes_of_each_class() -> None:
    """Every detection has the box that its own class's deltas make of a proposal."""
    model, found = cascade("class", 0.0, detections=30, **PER_CLASS), proposals()
    (stage,) = model.stages
    levels = [features()[position] for position in model.pooling.levels]
    pooled = model.pool(levels, list(found.boxes))
    logits, deltas = stage(pooled)
    assert deltas.shape == (20, 12)
    scores = logits.softmax(dim=1)[:, :-1].reshape(2, 10, 3)
    one_by_one = [
        decode_deltas(found.boxes, deltas[:, 4 * c : 4 * c + 4].reshape(2, 10, 4), (10, 10, 5, 5))
        for c in range(3)
    ]
    boxes = torch.stack([clip_boxes(some, SIZES) for some in one_by_one], dim=2)  # (2, 10, 3, 4)
    detections = model(features(), found, SIZES)
    for picture in range(2):
        count = int(detections.num_detections[picture])
        assert count > 3
        for box, score, label in zip(
            *(part[picture, :count] for part in detections[1:]), strict=True
        ):
            (row,) = torch.nonzero((scores[picture, :, label] - score).abs() < 1e-5)[:, 0]
            torch.testing.assert_close(box, boxes[picture, row, label], atol=1e-3, rtol=0)


@torch.no_grad()
def test_a_box_of_one_class_that_is_not_finite() -> None:
    model = cascade("class", 0.0, detections=30, **PER_CLASS)
    model.stages[0].deltas.bias[4:8] = torch.nan
    found = model(features(), proposals(), SIZES)
    assert all(torch.isfinite(part).all() for part in found)
    for picture in range(2):
        classes = found.classes[picture, : int(found.num_detections[picture])]
        assert set(classes.tolist()) == {0, 2}
