"""Res2Net-101 with frozen norms, the stride of a stage in its first 1x1 convolution.

Source: Gao et al., arXiv 1904.01169, Sec. 3; stem and shortcuts are those of He et al., arXiv
1812.01187, Fig. 2 (c, d). As the stride never sits in the 3x3 convolutions, the last split passes
unpooled everywhere, unlike in the authors' own network.
"""

from __future__ import annotations

from collections.abc import Collection

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..deformable import DeformableConv2d
from ..layers import FrozenBatchNorm2d, initialise_convolutions
from .frozen import Backbone
from .resnet import BLOCKS, RES2, conv_frozen_norm

STEM_WIDTHS = (32, 32, 64)


class SplitBottleneck(nn.Module):
    """1x1, small 3x3 convolutions one after another over splits of the channels, 1x1.

    Where the block keeps its channels, a split adds what the split before it gave.
    """

    def __init__(
        self,
        inputs: int,
        split_width: int,
        outputs: int,
        stride: int,
        *,
        splits: int,
        deformable: bool,
    ) -> None:
        super().__init__()
        self.split_width = split_width
        self.adds = inputs == outputs
        self.conv1 = conv_frozen_norm(inputs, splits * split_width, 1, stride)
        self.convs = nn.ModuleList(_conv3x3(split_width, deformable) for _ in range(splits - 1))
        self.conv3 = conv_frozen_norm(splits * split_width, outputs, 1)
        self.shortcut = nn.Identity() if self.adds else _pooled_shortcut(inputs, outputs, stride)

    def forward(self, x: Tensor) -> Tensor:
        *splits, last = torch.split(F.relu(self.conv1(x)), self.split_width, dim=1)
        done: list[Tensor] = []
        for split, conv in zip(splits, self.convs, strict=True):
            split = split + done[-1] if self.adds and done else split
            done.append(F.relu(conv(split)))
        y = self.conv3(torch.cat([*done, last], dim=1))
        return F.relu(y + self.shortcut(x))


def _conv3x3(width: int, deformable: bool) -> nn.Sequential:
    if not deformable:
        return conv_frozen_norm(width, width, 3)
    conv = DeformableConv2d(width, width, offset_bias=False)
    return nn.Sequential(conv, FrozenBatchNorm2d(width))


def _pooled_shortcut(inputs: int, outputs: int, stride: int) -> nn.Sequential:
    pool = nn.AvgPool2d(stride, stride, ceil_mode=True, count_include_pad=False)
    return nn.Sequential(pool, *conv_frozen_norm(inputs, outputs, 1))


class Res2Net(Backbone):
    """Returns the features of res2 to res5: strides 4, 8, 16, 32."""

    channels = (256, 512, 1024, 2048)

    def __init__(
        self,
        depth: int,
        frozen_stages: int = 0,
        *,
        splits: int = 4,
        split_width: int = 26,
        deformable_stages: Collection[int] = (),
    ) -> None:
        """Take what a `Res2NetConfig` has."""
        super().__init__()
        widths = (3, *STEM_WIDTHS)
        self.stem = nn.Sequential(
            *(conv_frozen_norm(widths[k], widths[k + 1], 3, 1 if k else 2) for k in range(3))
        )
        stages = []
        inputs = STEM_WIDTHS[-1]
        for index, count in enumerate(BLOCKS[depth]):
            outputs = self.channels[index]
            blocks = [
                SplitBottleneck(
                    outputs if k else inputs,
                    split_width * 2**index,
                    outputs,
                    2 if index and not k else 1,
                    splits=splits,
                    deformable=RES2 + index in deformable_stages,
                )
                for k in range(count)
            ]
            stages.append(nn.Sequential(*blocks))
            inputs = outputs
        self.stages = nn.ModuleList(stages)
        initialise_convolutions(self)
        self.freeze([[self.stem], *([stage] for stage in stages)], frozen_stages)

    def forward(self, x: Tensor) -> list[Tensor]:
        """(B, 3, H, W) -> features of strides 4, 8, 16, 32."""
        for conv in self.stem:
            x = F.relu(conv(x))
        x = F.max_pool2d(x, kernel_size=3, stride=2, padding=1)
        features = []
        for stage in self.stages:
            x = stage(x)
            features.append(x)
        return features
