"""GFL's head: likelihood and sides of the box of every cell."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ..layers import in_fp32, set_prior
from ..structures import FirstStageOutput
from .towers import conv_tower, initialise_head


class GFLHead(nn.Module):
    """Convolutions with GroupNorm, shared by all levels; a tower for each output, or one for both.

    Sides are distributions over distances, or distances, which have a scale for each level and
    pass a ReLU.
    Source: arXiv 2006.04388, Sec. 3; distances and merged towers: arXiv 2103.07461, Sec. 4.
    """

    def __init__(
        self,
        channels: int,
        classes: int,
        *,
        convs: int,
        norm_groups: int,
        merged: bool,
        levels: int,
        prior: float,
        largest_distance: int | None,
        regression_bias: float,
    ) -> None:
        """Take the widths and what a `GFLConfig` has."""
        super().__init__()
        self.distances = largest_distance is None
        sides = 4 if largest_distance is None else 4 * (largest_distance + 1)
        self.tower = conv_tower(channels, convs, norm_groups)
        self.class_tower = None if merged else conv_tower(channels, convs, norm_groups)
        self.logits = nn.Conv2d(channels, classes, 3, padding=1)
        self.regression = nn.Conv2d(channels, sides, 3, padding=1)
        self.level_scales = nn.Parameter(torch.ones(levels))
        initialise_head(self, self.regression, regression_bias if self.distances else 0.0)
        set_prior(self.logits, prior)

    def forward(self, features: list[Tensor]) -> FirstStageOutput:
        """Levels (B, C, h, w), fine to coarse -> logits and sides of every cell."""
        logits, sides = [], []
        for level, feature in enumerate(features):
            x = self.tower(feature)
            y = x if self.class_tower is None else self.class_tower(feature)
            logits.append(in_fp32(self.logits, y))
            scaled = self.level_scales[level] * in_fp32(self.regression, x)
            sides.append(torch.relu(scaled) if self.distances else scaled)
        return FirstStageOutput(logits, sides)
