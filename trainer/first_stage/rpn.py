"""The head of a region proposal network: P(object) and deltas of the anchors of every cell."""

from __future__ import annotations

from torch import Tensor, nn

from ..layers import in_fp32, set_prior
from ..structures import FirstStageOutput
from .towers import conv_tower, initialise_head, plain_std


class RPNHead(nn.Module):
    """3x3 convolutions with ReLU, shared by all levels, and a 1x1 convolution for each output.

    Source: arXiv 1506.01497, Sec. 3.1.
    """

    def __init__(self, channels: int, anchors: int, *, convs: int, prior: float) -> None:
        """Take the widths and what an `RPNConfig` has."""
        super().__init__()
        self.tower = conv_tower(channels, convs, 0)
        self.logits = nn.Conv2d(channels, anchors, 1)
        self.regression = nn.Conv2d(channels, anchors * 4, 1)
        initialise_head(self, std=plain_std(channels))
        set_prior(self.logits, prior)

    def forward(self, features: list[Tensor]) -> FirstStageOutput:
        """Levels (B, C, h, w), fine to coarse -> logits and deltas of every anchor."""
        towers = [self.tower(feature) for feature in features]
        return FirstStageOutput(
            [in_fp32(self.logits, x) for x in towers],
            [in_fp32(self.regression, x) for x in towers],
        )
