"""An exponential moving average of a detector's weights, kept apart from those that are trained."""

from __future__ import annotations

import copy
from typing import Generic, TypeVar

import torch
from torch import nn

M = TypeVar("M", bound=nn.Module)
WARM_UP = 10  # updates: early on the mean is short, as the first weights are worth little


class MeanWeights(Generic[M]):
    """A second detector whose weights trail the first one's; it is scored and saved."""

    def __init__(self, model: M, decay: float) -> None:
        """Copy the model.

        Args:
            model: whose weights are averaged.
            decay: share of the old mean that an update keeps, in [0, 1).
        """
        self.model = copy.deepcopy(model).requires_grad_(False)
        self.decay = decay
        self.updates = 0

    @torch.no_grad()
    def update(self, model: nn.Module) -> None:
        """Move the mean towards the model's present weights and statistics; counters are copied."""
        decay = min(self.decay, (1 + self.updates) / (WARM_UP + self.updates))
        self.updates += 1
        theirs = model.state_dict()
        for name, mine in self.model.state_dict().items():
            if mine.is_floating_point():
                mine.lerp_(theirs[name], 1 - decay)
            else:
                mine.copy_(theirs[name])
