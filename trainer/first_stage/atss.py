"""ATSS's head: likelihood, deltas of one anchor, and centerness of every cell."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ..layers import in_fp32, set_prior
from ..structures import FirstStageOutput
from .towers import conv_tower, initialise_head


class ATSSHead(nn.Module):
    """Convolutions with GroupNorm, shared by all levels; a tower for each output, or one for both.

    Centerness is read from the tower of the boxes; deltas have a scale for each level.
    Source: arXiv 1912.02424, Sec. 3 and 4, on the head of FCOS, arXiv 1904.01355, Sec. 3.
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
    ) -> None:
        """Take the widths and what an `ATSSConfig` has."""
        super().__init__()
        self.tower = conv_tower(channels, convs, norm_groups)
        self.class_tower = None if merged else conv_tower(channels, convs, norm_groups)
        self.logits = nn.Conv2d(channels, classes, 3, padding=1)
        self.regression = nn.Conv2d(channels, 4, 3, padding=1)
        self.centerness = nn.Conv2d(channels, 1, 3, padding=1)
        self.level_scales = nn.Parameter(torch.ones(levels))
        initialise_head(self)
        set_prior(self.logits, prior)

    def forward(self, features: list[Tensor]) -> FirstStageOutput:
        """Levels (B, C, h, w), fine to coarse -> logits, deltas and centerness of every cell."""
        logits, deltas, centerness = [], [], []
        for level, feature in enumerate(features):
            x = self.tower(feature)
            y = x if self.class_tower is None else self.class_tower(feature)
            logits.append(in_fp32(self.logits, y))
            deltas.append(self.level_scales[level] * in_fp32(self.regression, x))
            centerness.append(in_fp32(self.centerness, x))
        return FirstStageOutput(logits, deltas, centerness)
