"""The learning rate as a function of the step, and nothing else."""

from __future__ import annotations

import math

from .train_config import TrainConfig


def learning_rate(step: int, train: TrainConfig) -> float:
    """The rate of one step: a linear warm-up, then tenfold drops at milestones, or a cosine to 0.

    Args:
        step: 0-based.
    Source: detectron2's linear warm-up, which the official code uses; the rate grows with the
        batch, arXiv 1706.02677, Sec. 2.1; cosine and cycles: arXiv 1608.03983, Sec. 3.
    """
    rate = train.base_lr * train.batch / train.lr_batch * _decay(step, train)
    if step >= train.warmup_steps:
        return rate
    done = step / train.warmup_steps
    return rate * (train.warmup_factor * (1 - done) + done)


def _decay(step: int, train: TrainConfig) -> float:
    """The share of the full rate: 1 at the begin of every cycle."""
    cycle = max(train.steps / train.cycles, 1.0)  # steps
    step_in_cycle = step - cycle * min(int(step / cycle), train.cycles - 1)
    if train.schedule == "cosine":
        return 0.5 * (1 + math.cos(math.pi * min(step_in_cycle / cycle, 1.0)))
    passed = sum(step_in_cycle >= round(milestone * cycle) for milestone in train.milestones)
    return float(0.1**passed)
