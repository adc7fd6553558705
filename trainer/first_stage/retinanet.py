"""RetinaNet's head: likelihoods and deltas of the anchors of every cell."""

from __future__ import annotations

from torch import Tensor, nn

from ..layers import in_fp32, set_prior
from ..structures import FirstStageOutput
from .towers import conv_tower, initialise_head, plain_std


class RetinaNetHead(nn.Module):
    """Convolutions with ReLU, shared by all levels; a tower for each output, or one for both.

    Source: arXiv 1708.02002, Sec. 4; merged and class-agnostic: arXiv 2103.07461, Sec. 4.
    """

    def __init__(
        self, channels: int, classes: int, anchors: int, *, convs: int, merged: bool, prior: float
    ) -> None:
        """Take the widths and what a `RetinaNetConfig` has."""
        super().__init__()
        self.tower = conv_tower(channels, convs, 0)
        self.class_tower = None if merged else conv_tower(channels, convs, 0)
        self.logits = nn.Conv2d(channels, anchors * classes, 3, padding=1)
        self.regression = nn.Conv2d(channels, anchors * 4, 3, padding=1)
        initialise_head(self, std=plain_std(channels))
        set_prior(self.logits, prior)

    def forward(self, features: list[Tensor]) -> FirstStageOutput:
        """Levels (B, C, h, w), fine to coarse -> logits and deltas of every anchor."""
        logits, deltas = [], []
        for feature in features:
            x = self.tower(feature)
            y = x if self.class_tower is None else self.class_tower(feature)
            logits.append(in_fp32(self.logits, y))
            deltas.append(in_fp32(self.regression, x))
        return FirstStageOutput(logits, deltas)
