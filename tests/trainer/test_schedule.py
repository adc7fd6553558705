"""The learning rate: warm-up, steps, cosine, and their corners."""

import pytest

from cn2.trainer.schedule import learning_rate
from cn2.trainer.train_config import TrainConfig

STEPS = TrainConfig(steps=90, base_lr=0.02, warmup_steps=10, warmup_factor=0.001)
COSINE = TrainConfig(steps=90, base_lr=0.02, warmup_steps=0, schedule="cosine")


@pytest.mark.parametrize(
    ("step", "expected"),
    [
        (0, 0.02 * 0.001),  # the first step is warmup_factor of the rate
        (5, 0.02 * (0.001 * 0.5 + 0.5)),  # half way
        (10, 0.02),  # warm
        (59, 0.02),
        (60, 0.002),  # 2/3 of the steps
        (79, 0.002),
        (80, 0.0002),  # 8/9
        (89, 0.0002),
    ],
)
def test_steps(step: int, expected: float) -> None:
    assert learning_rate(step, STEPS) == pytest.approx(expected)


@pytest.mark.parametrize(
    ("step", "expected"), [(0, 0.02), (30, 0.015), (45, 0.01), (60, 0.005), (90, 0.0), (99, 0.0)]
)
def test_cosine(step: int, expected: float) -> None:
    assert learning_rate(step, COSINE) == pytest.approx(expected)


def test_warm_up_applies_to_the_cosine_too() -> None:
    train = TrainConfig(
        steps=100, base_lr=1.0, warmup_steps=50, warmup_factor=0.0, schedule="cosine"
    )
    assert learning_rate(25, train) == pytest.approx(0.5 * 0.853553, rel=1e-5)


def test_the_rate_grows_with_the_batch() -> None:
    train = TrainConfig(batch=64, base_lr=0.02, lr_batch=16, warmup_steps=0)
    assert learning_rate(0, train) == pytest.approx(0.08)


@pytest.mark.parametrize(
    ("step", "expected"),
    [
        (0, 1.0),
        (19, 1.0),
        (20, 0.1),  # 2/3 of the first cycle
        (29, 0.01),
        (30, 1.0),  # the second cycle begins, without a warm-up
        (50, 0.1),
        (60, 1.0),
        (89, 0.01),
        (95, 0.01),  # beyond the last step
    ],
)
def test_cycles_of_steps(step: int, expected: float) -> None:
    train = TrainConfig(steps=90, cycles=3, base_lr=1.0, warmup_steps=0)
    assert learning_rate(step, train) == pytest.approx(expected)


def test_cycles_of_cosines() -> None:
    train = TrainConfig(steps=90, cycles=2, base_lr=1.0, warmup_steps=0, schedule="cosine")
    assert learning_rate(15, train) == pytest.approx(0.75)
    assert learning_rate(45, train) == pytest.approx(1.0)
    assert learning_rate(60, train) == pytest.approx(0.75)
    assert learning_rate(90, train) == pytest.approx(0.0)
