"""One step: parts of a batch, mean weights, precision, clipping."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from cn2.trainer.build import build_detector
from cn2.trainer.data.batch import Batch
from cn2.trainer.distributed import Ranks
from cn2.trainer.mean_weights import MeanWeights
from cn2.trainer.structures import Target
from cn2.trainer.train_config import TrainConfig
from cn2.trainer.train_step import Stepper
from cn2.trainer.training_losses import DetectorLosses
from factories import TINY_HEIGHT, TINY_WIDTH, picture, tiny_config

HERE = Ranks(device=torch.device("cpu"))
RATE = 0.05


def batch(*numbers: int) -> Batch:
    """Pictures with one object each; a sample's number decides its pixels."""
    images = np.stack([picture(seed=number) for number in numbers])
    sizes = torch.tensor([[TINY_HEIGHT, TINY_WIDTH]] * len(numbers))
    box = torch.tensor([[10.0, 8.0, 40.0, 36.0]])
    targets = [Target(boxes=box + number, classes=torch.tensor([1])) for number in numbers]
    return Batch(
        images=torch.from_numpy(images),
        image_sizes=sizes,
        targets=targets,
        pictures=[],
        numbers=list(numbers),
    )


def stepper(**settings: Any) -> Stepper:
    torch.manual_seed(0)
    config = tiny_config()
    train = replace(config.train, **settings)
    return Stepper(build_detector(config), DetectorLosses(config.model), train, HERE)


def weights(of: Stepper) -> list[Tensor]:
    return [parameter.detach().clone() for parameter in of.model.parameters()]


def test_the_gradient_of_parts_is_their_mean() -> None:
    plain = {"momentum": 0.0, "weight_decay": 0.0, "clip_norm": 0.0}
    start = weights(stepper(**plain))
    moves = []
    for part in (batch(0), batch(1)):
        one = stepper(**plain)
        one.step([part], RATE)
        moves.append([after - before for after, before in zip(weights(one), start, strict=True)])
    both = stepper(**plain)
    result = both.step([batch(0), batch(1)], RATE)
    for after, before, first, second in zip(weights(both), start, *moves, strict=True):
        torch.testing.assert_close(after - before, (first + second) / 2, rtol=1e-4, atol=1e-6)
    separate = [stepper(**plain).step([batch(number)], RATE).losses for number in (0, 1)]
    for name, value in result.losses.items():
        assert value == pytest.approx((separate[0][name] + separate[1][name]) / 2, rel=1e-5)


def test_rois_are_drawn_by_the_samples_number() -> None:
    first, again = stepper(), stepper()
    losses = first.step([batch(3, 4)], RATE).losses
    torch.rand(17)  # the global random state does not matter
    assert again.step([batch(3, 4)], RATE).losses == losses
    renamed = replace(batch(3, 4), numbers=[5, 6])
    assert stepper().step([renamed], RATE).losses != losses
    assert stepper(seed=1).step([batch(3, 4)], RATE).losses != losses


def test_mean_weights_trail_the_model() -> None:
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Linear(3, 2), torch.nn.BatchNorm1d(2))
    mean = MeanWeights(model, decay=0.5)
    expected = model[0].weight.detach().clone()
    for update in range(12):
        with torch.no_grad():
            model[0].weight += 1.0
            model[1].num_batches_tracked += 1
        mean.update(model)
        decay = min(0.5, (1 + update) / (10 + update))  # 0.1, 2/11, ... then 0.5
        expected = decay * expected + (1 - decay) * model[0].weight.detach()
    averaged = mean.model.state_dict()
    torch.testing.assert_close(averaged["0.weight"], expected)
    assert averaged["1.num_batches_tracked"] == 12  # counters are copied
    assert not any(parameter.requires_grad for parameter in mean.model.parameters())


def test_a_step_moves_the_mean_less_than_the_model() -> None:
    moved = stepper(ema_decay=0.9)
    assert moved.mean is not None
    moved.mean.updates = 1000  # past its warm-up
    before = weights(moved)
    moved.step([batch(0, 1)], RATE)
    means = list(moved.mean.model.parameters())
    for mean, after, start in zip(means, weights(moved), before, strict=True):
        torch.testing.assert_close(mean - start, 0.1 * (after - start), rtol=1e-3, atol=1e-7)


@pytest.mark.parametrize("settings", [{"clip_value": 1e-4}, {"clip_norm": 1e-4}])
def test_clipping(settings: dict[str, float]) -> None:
    plain = {"momentum": 0.0, "weight_decay": 0.0, "clip_norm": 0.0}
    clipped = stepper(**(plain | settings))
    before = weights(clipped)
    norm = clipped.step([batch(0)], 1.0).norm
    assert norm == pytest.approx(stepper(**plain).step([batch(0)], 1.0).norm)  # before clipping
    moves = [after - start for after, start in zip(weights(clipped), before, strict=True)]
    if "clip_norm" in settings:
        assert torch.stack([move.norm() for move in moves]).norm() == pytest.approx(1e-4, rel=0.01)
    else:
        assert max(move.abs().max() for move in moves) == pytest.approx(1e-4, rel=0.01)


def loud_losses(*arguments: Any) -> dict[str, Tensor]:
    """The real losses a thousand times over: more than fp16 holds at the first scale."""
    losses = DetectorLosses(tiny_config().model)
    return {name: 1000 * value for name, value in losses(*arguments).items()}


def test_fp16_lowers_its_scale_where_a_gradient_overflows() -> None:
    torch.manual_seed(0)
    config = tiny_config()
    train = replace(config.train, precision="fp16", ema_decay=0.5)
    moved = Stepper(build_detector(config), loud_losses, train, HERE)  # type: ignore[arg-type]
    scale, before = moved.scaler.get_scale(), weights(moved)
    result = moved.step([batch(0)], RATE)
    assert result.good  # no reason to give up
    assert not math.isfinite(result.norm)
    assert moved.scaler.get_scale() == scale / 2
    assert all(torch.equal(a, b) for a, b in zip(weights(moved), before, strict=True))
    assert moved.mean is not None
    assert moved.mean.updates == 0
    for _ in range(20):
        result = moved.step([batch(0)], RATE)
    assert math.isfinite(result.norm)  # the scale is small enough now
    assert not all(torch.equal(a, b) for a, b in zip(weights(moved), before, strict=True))


def test_fp16_loss_is_near_that_of_fp32() -> None:
    exact = stepper().step([batch(0, 1)], RATE)
    lowered = stepper(precision="fp16").step([batch(0, 1)], RATE)
    assert lowered.good
    assert lowered.losses["heatmap_positive"] != exact.losses["heatmap_positive"]
    assert sum(lowered.losses.values()) == pytest.approx(sum(exact.losses.values()), rel=0.01)


def test_settings_that_nothing_can_follow() -> None:
    with pytest.raises(ValueError, match="accumulate: expected a divisor"):
        TrainConfig(batch=16, accumulate=3)
    with pytest.raises(ValueError, match=r"clip_norm.* expected 0 or more"):
        TrainConfig(clip_norm=-1.0)
    with pytest.raises(ValueError, match=r"ema_decay: expected 0 <= decay < 1"):
        TrainConfig(ema_decay=1.0)
    with pytest.raises(ValueError, match=r"broken_limit: expected 0 to 1"):
        TrainConfig(broken_limit=1.5)
