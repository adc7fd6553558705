"""The order of training pictures: each once an epoch, shapes apart, by seed and epoch alone."""

import numpy as np
import pytest

from cn2.trainer.data.order import epoch_batches


@pytest.mark.parametrize(
    ("pictures", "batch"),
    [(1, 4), (3, 4), (4, 4), (5, 4), (101, 8), (64, 1)],  # fewer than a batch, exact, ragged
)
def test_every_picture_once_but_the_filled_up_ones(pictures: int, batch: int) -> None:
    portrait = np.arange(pictures) % 3 == 0
    batches = epoch_batches(portrait, batch, seed=7, epoch=2)
    assert batches.shape == (-(-pictures // batch), batch)
    seen = np.bincount(batches.ravel(), minlength=pictures)
    assert seen.min() >= 1
    assert seen.sum() - pictures == -pictures % batch


def test_portraits_lie_apart() -> None:
    portrait = np.arange(103) % 3 == 0
    batches = epoch_batches(portrait, 8, seed=1, epoch=0)
    shapes = portrait[batches]
    mixed = (shapes.any(axis=1) & ~shapes.all(axis=1)).sum()
    assert mixed <= 2


def test_seed_and_epoch_decide() -> None:
    portrait = np.zeros(50, bool)
    first = epoch_batches(portrait, 4, seed=1, epoch=0)
    np.testing.assert_array_equal(first, epoch_batches(portrait, 4, seed=1, epoch=0))
    assert (first != epoch_batches(portrait, 4, seed=1, epoch=1)).any()
    assert (first != epoch_batches(portrait, 4, seed=2, epoch=0)).any()
