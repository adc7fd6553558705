"""The loss functions of dense first stages against slow loops, and by hand."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from cn2.trainer import dense_losses
from reference import anchors_reference as loops


def normal(*shape: int, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=generator, dtype=torch.float64)


def boxes(count: int, seed: int) -> Tensor:
    corners = 20 * normal(count, 2, seed=seed)
    return torch.cat([corners, corners + 1 + 15 * normal(count, 2, seed=seed + 1).abs()], dim=1)


@pytest.mark.parametrize(("alpha", "gamma"), [(0.25, 2.0), (0.5, 0.0), (0.75, 1.5)])
def test_focal_loss(alpha: float, gamma: float) -> None:
    logits = 3 * normal(30, 4)
    targets = (normal(30, 4, seed=1) > 0.8).double()
    found = dense_losses.focal_loss(logits, targets, alpha=alpha, gamma=gamma)
    expected = loops.focal_loops(logits.tolist(), targets.tolist(), alpha, gamma)
    assert found.item() == pytest.approx(expected)


def test_focal_loss_by_hand() -> None:
    """A positive at probability 1/2: 0.25 * (1/2)^2 * log 2."""
    found = dense_losses.focal_loss(torch.zeros(1, 1), torch.ones(1, 1), alpha=0.25, gamma=2.0)
    assert found.item() == pytest.approx(0.0625 * math.log(2))


@pytest.mark.parametrize("beta", [2.0, 1.0])
def test_quality_focal_loss(beta: float) -> None:
    logits, qualities = 3 * normal(30, 4), normal(30, 4, seed=1).clamp(0, 1)
    found = dense_losses.quality_focal_loss(logits, qualities, beta=beta)
    expected = loops.quality_loops(logits.tolist(), qualities.tolist(), beta)
    assert found.item() == pytest.approx(expected)


def test_quality_focal_loss_is_zero_where_the_likelihood_is_the_quality() -> None:
    qualities = torch.tensor([[0.2, 0.7]])
    logits = qualities.logit().requires_grad_()
    loss = dense_losses.quality_focal_loss(logits, qualities, beta=2.0)
    loss.backward()  # type: ignore[no-untyped-call]
    assert loss.item() == pytest.approx(0, abs=1e-6)
    assert logits.grad is not None
    assert logits.grad.abs().max() < 1e-6


@pytest.mark.parametrize("bins", [2, 5, 17])
def test_distribution_focal_loss(bins: int) -> None:
    logits = 2 * normal(20, 4 * bins)
    distances = (bins * normal(20, 4, seed=1)).abs()  # some above the last bin
    found = dense_losses.distribution_focal_loss(logits, distances)
    expected = [
        loops.distribution_loops(*pair)
        for pair in zip(logits.tolist(), distances.tolist(), strict=True)
    ]
    torch.testing.assert_close(found, torch.tensor(expected, dtype=torch.float64))


def test_distribution_focal_loss_by_hand() -> None:
    """Three bins alike, 0.25 of a stride: 3/4 of bin 0, 1/4 of bin 1, log 3 each."""
    found = dense_losses.distribution_focal_loss(torch.zeros(1, 12), torch.full((1, 4), 0.25))
    assert found.tolist() == pytest.approx([math.log(3)])
    sure = torch.zeros(1, 4, 3)
    sure[:, :, 1] = 50.0
    found = dense_losses.distribution_focal_loss(sure.reshape(1, 12), torch.full((1, 4), 1.0))
    assert found.tolist() == pytest.approx([0.0])


def test_box_giou_losses() -> None:
    first = boxes(40, 0)
    second = first + 5 * normal(40, 1, seed=2)
    second[20:] = boxes(20, 3)
    found = dense_losses.box_giou_losses(first, second)
    pairs = zip(first.tolist(), second.tolist(), strict=True)
    expected = torch.tensor([loops.box_giou_loops(*pair) for pair in pairs], dtype=torch.float64)
    torch.testing.assert_close(found, expected, atol=1e-6, rtol=0)
    assert (found > 1).any()  # apart
    assert (found < 1).any()


def test_box_giou_loss_by_hand() -> None:
    """Two unit squares with a unit between them: hull 3, so 1 + 1/3; and equal ones: 0."""
    square = torch.tensor([[0.0, 0, 1, 1]])
    found = dense_losses.box_giou_losses(square, torch.tensor([[2.0, 0, 3, 1]]))
    assert found.tolist() == pytest.approx([4 / 3])
    assert dense_losses.box_giou_losses(square, square).tolist() == pytest.approx([0], abs=1e-6)


@pytest.mark.parametrize("beta", [0.0, 0.1, 1.0])
def test_smooth_l1_loss(beta: float) -> None:
    first, second = normal(20, 4), normal(20, 4, seed=1)
    found = dense_losses.smooth_l1_loss(first, second, beta=beta)
    pairs = zip(first.tolist(), second.tolist(), strict=True)
    assert found.item() == pytest.approx(sum(loops.smooth_l1_loops(*p, beta) for p in pairs))


def test_centerness() -> None:
    assert dense_losses.centerness_of(
        torch.tensor([[1.0, 1, 1, 1], [1, 2, 4, 8], [2, 2, 6, 6]])
    ).tolist() == pytest.approx([1.0, 0.25, 1 / 3])


def test_no_rows_give_zero_with_a_gradient() -> None:
    empty = torch.zeros(0, 4, requires_grad=True)
    some = torch.zeros(0, 4)
    losses = (
        dense_losses.focal_loss(empty, some, alpha=0.25, gamma=2.0),
        dense_losses.quality_focal_loss(empty, some, beta=2.0),
        dense_losses.box_giou_losses(empty, some).sum(),
        dense_losses.smooth_l1_loss(empty, some, beta=0.1),
        dense_losses.smooth_l1_loss(empty, some, beta=0.0),
        dense_losses.distribution_focal_loss(torch.zeros(0, 12, requires_grad=True), some).sum(),
    )
    for loss in losses:
        assert loss == 0
        assert loss.requires_grad
