"""Backbones of which the first stages can be held as they are."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Self

from torch import nn


class Backbone(nn.Module):
    """What every backbone shares: five stages, counted from the picture, that can be frozen.

    A stage ends where the resolution halves next: strides 2, 4, 8, 16 and 32. ResNet's first stage
    is its stem, whose pooling is at stride 4 already.
    """

    channels: tuple[int, ...]  # of the features at strides 4, 8, 16 and 32
    _frozen: Sequence[nn.Module] = ()

    def freeze(self, stages: Sequence[Sequence[nn.Module]], count: int) -> None:
        """Hold the first `count` stages: no gradient, BatchNorm keeps its running statistics.

        Args:
            stages: the modules of each stage, finest first.
            count: 0 holds none.
        Raises:
            ValueError: there are not so many stages.
        """
        if not 0 <= count <= len(stages):
            raise ValueError(f"frozen_stages: expected 0 to {len(stages)}, got {count}")
        self._frozen = [module for stage in stages[:count] for module in stage]
        for module in self._frozen:
            module.requires_grad_(False)
            module.eval()

    def train(self, mode: bool = True) -> Self:
        """As torch has it, but what is frozen stays in eval mode."""
        super().train(mode)
        for module in self._frozen:
            module.eval()
        return self
