"""The theory as code: Eq. 1 to 4 of the paper and what its Appendix A claims of the bounds."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from cn2.trainer import theory

ENDS = torch.tensor([0.0, 1e-12, 1e-6, 1e-3])


def unit_square() -> tuple[Tensor, Tensor]:
    """P(object) (N, 1) and P(background | object) (1, N), dense at the ends, in float64."""
    middle = torch.linspace(0.01, 0.99, 99, dtype=torch.float64)
    side = torch.cat([ENDS.double(), middle, 1 - ENDS.double()]).sort().values
    return side[:, None], side[None, :]


def gap(bound: Tensor, p_object: Tensor, p_background: Tensor) -> Tensor:
    """How far a bound is below log P(background); 0 where both are -inf."""
    exact = theory.background_objective(p_object, p_background).expand(bound.shape)
    return torch.where(bound == exact, 0.0, exact - bound)


def test_by_hand() -> None:
    """P(object) 0.8; of objects, 0.6 are of the class and 0.3 background."""
    p_object, p_class, p_background = (torch.tensor(p) for p in (0.8, 0.6, 0.3))
    assert theory.class_probability(p_object, p_class).item() == pytest.approx(0.48)
    assert theory.background_probability(p_object, p_background).item() == pytest.approx(0.44)
    found = theory.background_objective(p_object, p_background).item()
    assert found == pytest.approx(math.log(0.24 + 0.2))
    second = theory.second_stage_bound(p_object, p_background).item()
    assert second == pytest.approx(0.8 * math.log(0.3))
    assert theory.first_stage_bound(p_object).item() == pytest.approx(math.log(0.2))
    assert theory.larger_bound(p_object, p_background).item() == pytest.approx(second)


def test_probabilities_sum_to_one() -> None:
    generator = torch.Generator().manual_seed(0)
    of_object = torch.rand(100, 1, generator=generator, dtype=torch.float64)
    classes = torch.randn(100, 6, generator=generator, dtype=torch.float64).softmax(dim=1)
    total = theory.class_probability(of_object, classes[:, :-1]).sum(dim=1)
    total += theory.background_probability(of_object[:, 0], classes[:, -1])
    torch.testing.assert_close(total, torch.ones_like(total))


def test_the_positive_objective_factorises() -> None:
    """Each stage's gradient is the one it has alone, whatever the other says."""
    p_object = torch.tensor([0.1, 0.5, 0.9], dtype=torch.float64, requires_grad=True)
    p_class = torch.tensor([0.7, 0.2, 0.99], dtype=torch.float64, requires_grad=True)
    found = theory.positive_objective(p_object, p_class)
    torch.testing.assert_close(found, theory.class_probability(p_object, p_class).log())
    found.sum().backward()  # type: ignore[no-untyped-call]
    torch.testing.assert_close(p_object.grad, 1 / p_object.detach())
    torch.testing.assert_close(p_class.grad, 1 / p_class.detach())


def test_the_background_objective_does_not() -> None:
    p_object = torch.tensor([0.5, 0.5], dtype=torch.float64, requires_grad=True)
    p_background = torch.tensor([0.1, 0.9], dtype=torch.float64)
    theory.background_objective(p_object, p_background).sum().backward()  # type: ignore[no-untyped-call]
    assert p_object.grad is not None
    assert p_object.grad[0] != pytest.approx(p_object.grad[1])


def test_bounds_are_bounds_over_the_unit_square() -> None:
    p_object, p_background = unit_square()
    for bound in (
        theory.second_stage_bound(p_object, p_background),
        theory.first_stage_bound(p_object).expand(len(p_object), len(p_object)),
        theory.larger_bound(p_object, p_background),
    ):
        assert (gap(bound, p_object, p_background) >= -1e-12).all()


def test_the_larger_bound_is_within_log_2_over_the_unit_square() -> None:
    p_object, p_background = unit_square()
    gaps = gap(theory.larger_bound(p_object, p_background), p_object, p_background)
    assert gaps.max() <= theory.LARGEST_GAP + 1e-12
    assert gaps.max() > theory.LARGEST_GAP - 1e-3  # at P(object) = 1 - e, P(bg | object) = e
    both = [theory.first_stage_bound(p_object), theory.second_stage_bound(p_object, p_background)]
    for one in both:  # neither has such a limit alone
        assert gap(one.expand_as(gaps), p_object, p_background).max() > 10


@pytest.mark.parametrize(
    ("p_object", "p_background", "first", "second"),
    [
        (0.0, 0.4, True, True),  # nothing is proposed
        (0.7, 1.0, False, True),  # the second stage is sure of background
        (0.7, 0.0, True, False),  # it is sure of an object: Eq. 3 is -inf
        (1.0, 0.4, False, True),  # the first stage is sure of an object: all is the second's
        (1.0, 0.0, True, True),  # both stages are wrong: all is -inf
        (0.5, 0.5, False, False),
    ],
)
def test_where_the_bounds_are_exact(
    p_object: float, p_background: float, first: bool, second: bool
) -> None:
    p, q = torch.tensor(p_object).double(), torch.tensor(p_background).double()
    assert (gap(theory.first_stage_bound(p), p, q).item() == pytest.approx(0, abs=1e-12)) is first
    found = gap(theory.second_stage_bound(p, q), p, q).item()
    assert (found == pytest.approx(0, abs=1e-12)) is second
