"""The loss functions against slow loops, hand-worked numbers and numerical gradients."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from cn2.trainer.losses import (
    box_delta_loss,
    classification_loss,
    giou_loss,
    heatmap_focal_loss,
    scale_gradient,
    sigmoid_classification_loss,
)
from reference.losses_reference import (
    cross_entropy_loops,
    delta_loops,
    focal_loops,
    giou_loops,
    sigmoid_loops,
)

NONE = torch.zeros(0, dtype=torch.int64)


def generator(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize("ignore_high_negatives", [1.0, 0.85])
@pytest.mark.parametrize("seed", range(3))
def test_focal_loss_equals_the_loops(seed: int, ignore_high_negatives: float) -> None:
    logits = 4 * torch.randn(60, generator=generator(seed), dtype=torch.float64)
    targets = torch.rand(60, generator=generator(seed + 1), dtype=torch.float64)
    positives = torch.randint(0, 60, (9,), generator=generator(seed + 2))
    found = heatmap_focal_loss(
        logits, targets, positives, ignore_high_negatives=ignore_high_negatives
    )
    expected = focal_loops(
        logits.tolist(), targets.tolist(), positives.tolist(), ignore_high_negatives
    )
    assert found.positive.item() == pytest.approx(expected[0], rel=1e-9)
    assert found.negative.item() == pytest.approx(expected[1], rel=1e-9)


def test_focal_loss_of_even_odds() -> None:
    """p = 1/2 everywhere: positive 0.25 * 1/4 * ln 2; negatives of target 0 and 1/2."""
    found = heatmap_focal_loss(
        torch.zeros(3), torch.tensor([1.0, 0.0, 0.5]), torch.tensor([0]), alpha=0.25
    )
    assert found.positive.item() == pytest.approx(0.0625 * math.log(2))
    assert found.negative.item() == pytest.approx(0.75 * 0.25 * math.log(2) * (1 + 0.5**4))


def test_focal_loss_counts_a_repeated_positive_twice() -> None:
    logits, targets = torch.tensor([0.3, -1.0]), torch.tensor([1.0, 0.0])
    once = heatmap_focal_loss(logits, targets, torch.tensor([0])).positive
    twice = heatmap_focal_loss(logits, targets, torch.tensor([0, 0])).positive
    assert twice.item() == pytest.approx(2 * once.item())


def test_negatives_at_the_bound_are_dropped() -> None:
    logits = torch.tensor([1.7, 1.8])  # p = 0.8455, 0.8581
    logits.requires_grad_()
    found = heatmap_focal_loss(logits, torch.zeros(2), NONE, ignore_high_negatives=0.85)
    found.negative.backward()  # type: ignore[no-untyped-call]
    assert logits.grad is not None
    assert logits.grad[0] > 0
    assert logits.grad[1] == 0


@pytest.mark.parametrize("logit", [-1e4, -100.0, 0.0, 100.0, 1e4])
def test_focal_loss_is_finite_for_any_logit(logit: float) -> None:
    logits = torch.full((4,), logit, requires_grad=True)
    found = heatmap_focal_loss(logits, torch.tensor([1.0, 0, 0, 0.5]), torch.tensor([0]))
    (found.positive + found.negative).backward()
    assert torch.stack(found).isfinite().all()
    assert logits.grad is not None
    assert logits.grad.isfinite().all()


def test_focal_loss_leaves_its_arguments_alone_and_is_0_without_positives() -> None:
    logits = torch.randn(5, generator=generator(0), requires_grad=True)
    before = logits.detach().clone()
    found = heatmap_focal_loss(logits, torch.zeros(5), NONE)
    found.positive.backward()  # type: ignore[no-untyped-call]
    assert found.positive == 0
    assert torch.equal(logits, before)
    assert torch.equal(logits.grad, torch.zeros(5))  # type: ignore[arg-type]


def test_focal_loss_refuses_other_shapes() -> None:
    with pytest.raises(ValueError, match=r"expected targets \(4,\) as the logits, got \(3,\)"):
        heatmap_focal_loss(torch.zeros(4), torch.zeros(3), NONE)


@pytest.mark.parametrize(("seed", "count"), [(0, 0), (1, 1), (2, 50)])
def test_giou_loss_equals_the_loops(seed: int, count: int) -> None:
    ltrb = 8 * torch.rand(count, 4, generator=generator(seed), dtype=torch.float64)
    targets = 0.01 + 8 * torch.rand(count, 4, generator=generator(seed + 9), dtype=torch.float64)
    expected = giou_loops(ltrb.tolist(), targets.tolist())
    assert giou_loss(ltrb, targets).item() == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize(
    ("ltrb", "expected"),
    [
        ((2, 2, 2, 2), 0.0),  # the box itself
        ((0, 0, 0, 0), 1 - 1 / 17),  # no box: inter 0, union 16 = hull
        ((1, 1, 1, 1), 1 - 5 / 17),  # inside: inter 4, union 16 = hull
        ((4, 2, 0, 2), 1 - 9 / 25),  # shifted by half: inter 8, union 24 = hull
        ((0, 2, 4, 4), 1 - (9 / 33 - (36 - 32) / 36)),  # hull larger than the union
    ],
)
def test_giou_loss_by_hand(ltrb: tuple[float, ...], expected: float) -> None:
    """Against the box (2, 2, 2, 2), of area 16."""
    loss = giou_loss(torch.tensor([ltrb], dtype=torch.float32), torch.full((1, 4), 2.0))
    assert loss.item() == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize("side", [0.0, 1e-6, 1e6])
def test_giou_loss_is_finite_for_any_prediction(side: float) -> None:
    ltrb = torch.full((3, 4), side, requires_grad=True)
    loss = giou_loss(ltrb, torch.tensor([[1e-6] * 4, [1.0] * 4, [1e4] * 4]))
    loss.backward()  # type: ignore[no-untyped-call]
    assert loss.isfinite()
    assert ltrb.grad is not None
    assert ltrb.grad.isfinite().all()


@pytest.mark.parametrize(
    ("ltrb", "targets"),
    [((2, 4), (3, 4)), ((2, 3), (2, 3)), ((4,), (4,))],
)
def test_giou_loss_refuses_other_shapes(ltrb: tuple[int, ...], targets: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match=r"expected two tensors \(P, 4\), got"):
        giou_loss(torch.zeros(ltrb), torch.zeros(targets))


@pytest.mark.parametrize("rois", [1, 7])
def test_class_and_box_losses_equal_the_loops(rois: int) -> None:
    logits = 3 * torch.randn(rois, 4, generator=generator(0), dtype=torch.float64)
    classes = torch.randint(0, 4, (rois,), generator=generator(1))
    expected = cross_entropy_loops(logits.tolist(), classes.tolist())
    assert classification_loss(logits, classes).item() == pytest.approx(expected)
    deltas, targets = torch.randn(2, rois, 4, generator=generator(2), dtype=torch.float64)
    expected = delta_loops(deltas.tolist(), targets.tolist())
    assert box_delta_loss(deltas, targets).item() == pytest.approx(expected)


def test_class_and_box_losses_of_nothing_are_0_with_a_gradient() -> None:
    logits, deltas = torch.zeros(0, 4, requires_grad=True), torch.zeros(0, 4, requires_grad=True)
    loss = classification_loss(logits, NONE) + box_delta_loss(deltas, torch.zeros(0, 4))
    loss.backward()
    assert loss == 0
    assert logits.grad is not None
    assert deltas.grad is not None


def test_gradients_agree_with_differences() -> None:
    """In double precision, away from the kinks of min, max and clamp."""
    logits = torch.randn(12, generator=generator(0), dtype=torch.float64, requires_grad=True)
    targets = torch.rand(12, generator=generator(1), dtype=torch.float64)

    def focal(values: Tensor) -> Tensor:
        loss = heatmap_focal_loss(
            values, targets, torch.tensor([1, 5, 5]), ignore_high_negatives=0.85
        )
        return loss.positive + loss.negative

    assert torch.autograd.gradcheck(focal, logits)
    ltrb = torch.rand(6, 4, generator=generator(2), dtype=torch.float64, requires_grad=True)
    wanted = torch.rand(6, 4, generator=generator(3), dtype=torch.float64)
    assert torch.autograd.gradcheck(lambda values: giou_loss(values, wanted), ltrb)


def test_scaled_gradient() -> None:
    values = torch.tensor([1.0, -2.0], requires_grad=True)
    scaled = scale_gradient(values, 0.25)
    assert torch.equal(scaled, values)
    (scaled**2).sum().backward()
    assert values.grad is not None
    assert values.grad.tolist() == [0.5, -1.0]


@pytest.mark.parametrize("seed", range(3))
def test_sigmoid_loss_equals_the_loops(seed: int) -> None:
    logits = 3 * torch.randn(7, 5, generator=generator(seed), dtype=torch.float64)
    classes = torch.randint(0, 5, (7,), generator=generator(seed + 1))  # 4 is the background
    counted = torch.tensor([True, False, True, seed > 0])
    found = sigmoid_classification_loss(logits, classes, counted)
    expected = sigmoid_loops(logits.tolist(), classes.tolist(), counted.tolist())
    assert found.item() == pytest.approx(expected, rel=1e-10)
    everything = sigmoid_classification_loss(logits, classes)
    expected = sigmoid_loops(logits.tolist(), classes.tolist(), [True] * 4)
    assert everything.item() == pytest.approx(expected, rel=1e-10)


def test_sigmoid_loss_gives_what_does_not_count_no_gradient() -> None:
    logits = torch.randn(6, 4, generator=generator(0), requires_grad=True)
    classes = torch.tensor([0, 1, 2, 3, 3, 0])
    sigmoid_classification_loss(logits, classes, torch.tensor([True, False, True])).backward()
    assert logits.grad is not None
    assert (logits.grad.abs().sum(dim=0) > 0).tolist() == [True, False, True, False]


def test_sigmoid_loss_without_rois_is_zero_with_a_gradient() -> None:
    logits = torch.zeros(0, 4, requires_grad=True)
    loss = sigmoid_classification_loss(logits, NONE)
    loss.backward()
    assert loss == 0
