"""A small residual network of ours: dense 3x3 convolutions and ReLU, quick on small CPUs."""

from __future__ import annotations

from torch import Tensor, nn

from ..layers import conv_batch_norm, initialise_convolutions
from .frozen import Backbone


class ResidualBlock(nn.Module):
    """x + two 3x3 convolutions through a narrower middle, then ReLU; keeps the shape."""

    def __init__(self, channels: int, hidden: int) -> None:
        super().__init__()
        self.reduce = conv_batch_norm(channels, hidden, 3)
        self.expand = conv_batch_norm(hidden, channels, 3, relu=False)
        self.relu = nn.ReLU(inplace=True)
        nn.init.constant_(self.expand[1].weight, 0.5)  # type: ignore[arg-type]  # calm at the start

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.relu(x + self.expand(self.reduce(x)))
        return y


class NanoBackbone(Backbone):
    """Five stages of halving resolution; returns the features of strides 4, 8, 16 and 32."""

    def __init__(
        self,
        widths: tuple[int, ...],
        hidden: tuple[int, ...],
        blocks: tuple[int, ...],
        frozen_stages: int = 0,
    ) -> None:
        """Take the widths at strides 2..32, and at strides 4..32 inner widths and block counts."""
        super().__init__()
        self.channels = widths[1:]  # of the returned features
        self.stem = conv_batch_norm(3, widths[0], 3, stride=2)
        self.stages = nn.ModuleList(
            nn.Sequential(
                conv_batch_norm(before, width, 3, stride=2),
                *(ResidualBlock(width, inner) for _ in range(count)),
            )
            for before, width, inner, count in zip(
                widths[:-1], widths[1:], hidden, blocks, strict=True
            )
        )
        initialise_convolutions(self)
        self.freeze([[self.stem], *([stage] for stage in self.stages)], frozen_stages)

    def forward(self, x: Tensor) -> list[Tensor]:
        """(B, 3, H, W) -> features of strides 4, 8, 16, 32."""
        x = self.stem(x)
        features = []
        for stage in self.stages:
            x = stage(x)
            features.append(x)
        return features
