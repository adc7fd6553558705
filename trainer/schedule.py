"""The learning rate as a function of the step, and nothing else."""

from __future__ import annotations

import math

from .config import TrainConfig


def learning_rate(step: int, train: TrainConfig) -> float:
    """The rate of one step: a linear warm-up, then tenfold drops at milestones, or a cosine to 0.

    Args:
        step: 0-based.
    Source: detectron2's linear warm-up, which the official code uses; cosine: arXiv 1608.03983.
    """
    rate = train.base_lr * _decay(step, train)
    if step >= train.warmup_steps:
        return rate
    done = step / train.warmup_steps
    return rate * (train.warmup_factor * (1 - done) + done)


def _decay(step: int, train: TrainConfig) -> float:
    if train.schedule == "cosine":
        return 0.5 * (1 + math.cos(math.pi * min(step / max(train.steps, 1), 1.0)))
    passed = sum(step >= round(milestone * train.steps) for milestone in train.milestones)
    return float(0.1**passed)
