"""ResNet and ResNeXt with frozen norms, their strides where Caffe's weights or torchvision's are.

Source: He et al., arXiv 1512.03385, Table 1; Xie et al., arXiv 1611.05431, Table 1.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Literal

import torch.nn.functional as F
from torch import Tensor, nn

from ..deformable import DeformableConv2d
from ..layers import FrozenBatchNorm2d, initialise_convolutions
from .frozen import Backbone

StrideIn = Literal["1x1", "3x3"]  # of a block's convolutions, the one with the stride
BLOCKS = {50: (3, 4, 6, 3), 101: (3, 4, 23, 3)}  # of res2..res5, by depth
RES2 = 2  # the first stage of blocks has this number


def conv_frozen_norm(
    inputs: int, outputs: int, kernel: int, stride: int = 1, groups: int = 1
) -> nn.Sequential:
    """A bias-free convolution and a norm without gradient."""
    conv = nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, groups=groups, bias=False)
    return nn.Sequential(conv, FrozenBatchNorm2d(outputs))


class Bottleneck(nn.Module):
    """1x1, 3x3, 1x1 convolutions around a shortcut; the 3x3 one grouped or deformable if asked."""

    def __init__(
        self,
        inputs: int,
        middle: int,
        outputs: int,
        stride: int,
        stride_in: StrideIn,
        *,
        groups: int = 1,
        deformable: bool = False,
    ) -> None:
        super().__init__()
        first, second = (stride, 1) if stride_in == "1x1" else (1, stride)
        self.conv1 = conv_frozen_norm(inputs, middle, 1, first)
        if deformable:
            conv = DeformableConv2d(middle, middle, second, groups=groups)
            self.conv2 = nn.Sequential(conv, FrozenBatchNorm2d(middle))
        else:
            self.conv2 = conv_frozen_norm(middle, middle, 3, second, groups)
        self.conv3 = conv_frozen_norm(middle, outputs, 1)
        self.shortcut = (
            conv_frozen_norm(inputs, outputs, 1, stride) if inputs != outputs else nn.Identity()
        )

    def forward(self, x: Tensor) -> Tensor:
        y = F.relu(self.conv2(F.relu(self.conv1(x))))
        return F.relu(self.conv3(y) + self.shortcut(x))


class ResNet(Backbone):
    """Returns the features of res2 to res5: strides 4, 8, 16, 32."""

    channels = (256, 512, 1024, 2048)

    def __init__(
        self,
        depth: int,
        frozen_stages: int = 0,
        stride_in: StrideIn = "1x1",
        *,
        groups: int = 1,
        group_width: int = 64,
        deformable_stages: Collection[int] = (),
    ) -> None:
        """Take what a `ResNetConfig` has."""
        super().__init__()
        self.stem = conv_frozen_norm(3, 64, 7, stride=2)
        stages = []
        inputs = 64
        for index, count in enumerate(BLOCKS[depth]):
            middle, outputs = groups * group_width * 2**index, self.channels[index]
            blocks = [
                Bottleneck(
                    outputs if k else inputs,
                    middle,
                    outputs,
                    2 if index and not k else 1,
                    stride_in,
                    groups=groups,
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
        x = F.max_pool2d(F.relu(self.stem(x)), kernel_size=3, stride=2, padding=1)
        features = []
        for stage in self.stages:
            x = stage(x)
            features.append(x)
        return features
