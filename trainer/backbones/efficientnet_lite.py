"""EfficientNet-Lite0: inverted residuals with depthwise convolutions, small and pretrained.

Source: Tan and Le, arXiv 1905.11946, Table 1 (B0); the block of Sandler et al., arXiv 1801.04381,
Sec. 3.3, with ReLU6. The Lite variants leave out squeeze-and-excitation and keep the stem's width.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch.nn.functional as F
from torch import Tensor, nn

from ..layers import initialise_convolutions
from .frozen import Backbone

NORM_EPS = 1e-3  # what the published weights were trained with
STEM_WIDTH = 32


@dataclass(frozen=True)
class Row:
    """One row of Table 1: blocks of equal width, of which the first may halve the resolution."""

    expansion: int
    kernel: int
    stride: int
    width: int
    blocks: int


ROWS = (  # grouped by stride: 2, 4, 8, 16, 32
    (Row(1, 3, 1, 16, 1),),
    (Row(6, 3, 2, 24, 2),),
    (Row(6, 5, 2, 40, 2),),
    (Row(6, 3, 2, 80, 3), Row(6, 5, 1, 112, 3)),
    (Row(6, 5, 2, 192, 4), Row(6, 3, 1, 320, 1)),
)


def conv_norm(
    inputs: int, outputs: int, kernel: int, *, stride: int = 1, groups: int = 1, relu: bool = True
) -> nn.Sequential:
    """A bias-free convolution padded as TensorFlow's "SAME", BatchNorm and, if asked, ReLU6."""
    layers: list[nn.Module] = [
        SameConv2d(inputs, outputs, kernel, stride, groups),
        nn.BatchNorm2d(outputs, eps=NORM_EPS),
    ]
    if relu:
        layers.append(nn.ReLU6(inplace=True))
    return nn.Sequential(*layers)


class SameConv2d(nn.Conv2d):
    """At stride 2 the border lies more to the right and below, for inputs of even height and width.

    The weights were trained so; with a symmetric border all features would shift by half a cell.
    """

    def __init__(self, inputs: int, outputs: int, kernel: int, stride: int, groups: int) -> None:
        padding = kernel // 2 if stride == 1 else 0
        super().__init__(inputs, outputs, kernel, stride, padding, groups=groups, bias=False)
        before, after = (kernel - stride) // 2, (kernel - stride + 1) // 2
        self.border = (before, after, before, after) if stride > 1 else None

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x if self.border is None else F.pad(x, self.border))


class InvertedResidual(nn.Module):
    """1x1 to a wide middle, a depthwise convolution, 1x1 back; x is added where shapes agree."""

    def __init__(self, inputs: int, row: Row, stride: int) -> None:
        super().__init__()
        middle = inputs * row.expansion
        self.expand = conv_norm(inputs, middle, 1) if row.expansion > 1 else nn.Identity()
        self.depthwise = conv_norm(middle, middle, row.kernel, stride=stride, groups=middle)
        self.project = conv_norm(middle, row.width, 1, relu=False)
        self.adds = stride == 1 and inputs == row.width

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.project(self.depthwise(self.expand(x)))
        return x + y if self.adds else y


class EfficientNetLite(Backbone):
    """Returns the features of strides 4, 8, 16 and 32; height and width are multiples of 32."""

    channels = (24, 40, 112, 320)

    def __init__(self, frozen_stages: int = 0) -> None:
        """Take how many stages are frozen; the first one is the stem and its block, stride 2."""
        super().__init__()
        self.stem = conv_norm(3, STEM_WIDTH, 3, stride=2)
        self.stages = nn.ModuleList()
        inputs = STEM_WIDTH
        for rows in ROWS:
            blocks = []
            for row in rows:
                for k in range(row.blocks):
                    blocks.append(InvertedResidual(inputs, row, row.stride if k == 0 else 1))
                    inputs = row.width
            self.stages.append(nn.Sequential(*blocks))
        initialise_convolutions(self)
        _initialise_depthwise(self)
        first, *others = self.stages
        self.freeze([[self.stem, first], *([stage] for stage in others)], frozen_stages)

    def forward(self, x: Tensor) -> list[Tensor]:
        """(B, 3, H, W) -> features of strides 4, 8, 16, 32."""
        x = self.stem(x)
        features = []
        for stage in self.stages:
            x = stage(x)
            features.append(x)
        return features[1:]


def _initialise_depthwise(module: nn.Module) -> None:
    """An output of a depthwise convolution sees one channel; torch's fan out counts them all."""
    for layer in module.modules():
        if isinstance(layer, nn.Conv2d) and layer.groups > 1:
            nn.init.kaiming_normal_(layer.weight, mode="fan_in", nonlinearity="relu")
