"""CenterNet's heads: one class-agnostic heat map before a second stage, or one for each class."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ..layers import in_fp32
from ..structures import FirstStageOutput
from .towers import conv_tower, initialise_head


class CenterNetHead(nn.Module):
    """A tower of convolutions, shared by all levels, with a heat map and a regression on top.

    Source: arXiv 2103.07461, Sec. 5. As in the official code the tower is shared by both outputs
    and the regression passes a ReLU, not an exponential.
    """

    def __init__(
        self,
        channels: int,
        *,
        convs: int,
        norm_groups: int,
        levels: int,
        regression_bias: float,
        deformable: bool = False,
    ) -> None:
        """Take what a `CenterNetConfig` has; `deformable`: the tower's last convolution."""
        super().__init__()
        self.tower = conv_tower(channels, convs, norm_groups, deformable=deformable)
        self.heatmap = nn.Conv2d(channels, 1, 3, padding=1)
        self.regression = nn.Conv2d(channels, 4, 3, padding=1)
        self.level_scales = nn.Parameter(torch.ones(levels))
        initialise_head(self, self.regression, regression_bias)

    def forward(self, features: list[Tensor]) -> FirstStageOutput:
        """Levels (B, C, h, w), fine to coarse -> logits and distances of every cell."""
        heatmaps, regressions = [], []
        for level, feature in enumerate(features):
            x = self.tower(feature)
            heatmaps.append(in_fp32(self.heatmap, x))
            regressions.append(torch.relu(self.level_scales[level] * in_fp32(self.regression, x)))
        return FirstStageOutput(heatmaps, regressions)


class ClassHead(nn.Module):
    """Two towers of convolutions, shared by all levels: one for class heat maps, one for boxes.

    Source: CenterNet*, arXiv 2103.07461, Sec. 5; the regression passes a ReLU as in the official
    code, not an exponential.
    """

    def __init__(
        self,
        channels: int,
        classes: int,
        *,
        class_convs: int,
        convs: int,
        norm_groups: int,
        levels: int,
        regression_bias: float,
    ) -> None:
        super().__init__()
        self.class_tower = conv_tower(channels, class_convs, norm_groups)
        self.tower = conv_tower(channels, convs, norm_groups)
        self.class_heatmaps = nn.Conv2d(channels, classes, 3, padding=1)
        self.regression = nn.Conv2d(channels, 4, 3, padding=1)
        self.level_scales = nn.Parameter(torch.ones(levels))
        initialise_head(self, self.regression, regression_bias)

    def forward(self, features: list[Tensor]) -> FirstStageOutput:
        """Levels (B, C, h, w), fine to coarse -> logits of every class and distances, per cell."""
        heatmaps, regressions = [], []
        for level, feature in enumerate(features):
            heatmaps.append(in_fp32(self.class_heatmaps, self.class_tower(feature)))
            x = in_fp32(self.regression, self.tower(feature))
            regressions.append(torch.relu(self.level_scales[level] * x))
        return FirstStageOutput(heatmaps, regressions)
