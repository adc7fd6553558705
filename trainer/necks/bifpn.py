"""Weighted bidirectional feature pyramid, in the two flavours that published weights use.

Written from EfficientDet (Tan et al., arXiv 1911.09070, Sec. 3) and from a description in words of
what the published detectors compute; no code of either was used (NOTICE).
"""

from __future__ import annotations

from typing import Literal, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..layers import upsample_to

Flavour = Literal["efficientdet", "fcos"]
FUSION_EPSILON = 1e-4  # added to the sum of the fusion weights, Sec. 3.3


class Node(NamedTuple):
    """One fusion: the level it belongs to, and its inputs by number.

    Numbers 0..L-1 are the cell's inputs, fine to coarse, then come its nodes in order. The first
    input lies on the node's own level.
    """

    level: int
    inputs: tuple[int, ...]


def plan_nodes(levels: int) -> list[Node]:
    """The nodes of a cell: once down from the coarsest level, then up again (Fig. 2 d)."""
    nodes: list[Node] = []
    latest = list(range(levels))  # number of the newest feature of each level
    for level in range(levels - 2, -1, -1):
        nodes.append(Node(level, (level, latest[level + 1])))
        latest[level] = levels + len(nodes) - 1
    for level in range(1, levels):
        on_level = (level,) if level == levels - 1 else (level, latest[level])
        nodes.append(Node(level, (*on_level, latest[level - 1])))
        latest[level] = levels + len(nodes) - 1
    return nodes


def downsample(x: Tensor, flavour: Flavour) -> Tensor:
    """Halve the resolution by max pooling: 2x2, or 3x3 with padding."""
    if flavour == "efficientdet":
        return F.max_pool2d(x, kernel_size=2, stride=2)
    return F.max_pool2d(x, kernel_size=3, stride=2, padding=1)


def lateral_conv(inputs: int, channels: int, norm_groups: int, *, bias: bool) -> nn.Sequential:
    """A 1x1 convolution and GroupNorm that bring a backbone feature to the pyramid's width."""
    conv = nn.Conv2d(inputs, channels, 1, bias=bias)
    return nn.Sequential(conv, nn.GroupNorm(norm_groups, channels))


class FusionNode(nn.Module):
    """Weighted sum of features brought to one level, then swish, 3x3 convolution, GroupNorm."""

    def __init__(self, inputs: int, channels: int, *, norm_groups: int, flavour: Flavour) -> None:
        """Take the number of inputs and their channels."""
        super().__init__()
        self.flavour: Flavour = flavour
        self.weights = nn.Parameter(torch.ones(inputs))
        self.conv = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.norm = nn.GroupNorm(norm_groups, channels)

    def forward(self, inputs: list[Tensor], offsets: tuple[int, ...]) -> Tensor:
        """Fuse inputs that lie `offsets` levels above (coarser, +1) or below (-1) this one."""
        weights = F.relu(self.weights)
        weights = weights / (weights.sum() + FUSION_EPSILON)
        fused = weights[0] * inputs[0]
        for index in range(1, len(inputs)):
            x = inputs[index]
            if offsets[index] > 0:
                x = upsample_to(x, inputs[0])
            elif offsets[index] < 0:
                x = downsample(x, self.flavour)
            fused = fused + weights[index] * x
        y: Tensor = self.norm(self.conv(F.silu(fused)))
        return y


class BiFPNCell(nn.Module):
    """One pass over the pyramid, down and up.

    Inputs of another width pass a lateral convolution: in the flavour `efficientdet` one for each
    node that uses the input, in `fcos` one for each level (two nodes of a level share it).
    """

    def __init__(
        self, inputs: tuple[int, ...], channels: int, *, norm_groups: int, flavour: Flavour
    ) -> None:
        """Take the channels of each level coming in, and of all going out."""
        super().__init__()
        self.flavour: Flavour = flavour
        self.plan = plan_nodes(len(inputs))
        levels = [*range(len(inputs)), *(node.level for node in self.plan)]
        self.offsets = [tuple(levels[i] - node.level for i in node.inputs) for node in self.plan]
        self.laterals = nn.ModuleDict()
        for index, node in enumerate(self.plan):
            for number in node.inputs:
                key = self._lateral_key(number, index)
                if number < len(inputs) and inputs[number] != channels:
                    self.laterals[key] = lateral_conv(
                        inputs[number], channels, norm_groups, bias=flavour == "fcos"
                    )
        self.nodes = nn.ModuleList(
            FusionNode(len(node.inputs), channels, norm_groups=norm_groups, flavour=flavour)
            for node in self.plan
        )

    def _lateral_key(self, number: int, node_index: int) -> str:
        """The name of the lateral convolution between an input and a node."""
        shared = self.flavour == "fcos"
        return f"{number}_{self.plan[node_index].level if shared else node_index}"

    def forward(self, levels: list[Tensor]) -> list[Tensor]:
        """Levels, fine to coarse, in and out; a level's output is the last node made for it."""
        features = list(levels)
        newest = list(levels)
        for index, (node, fuse) in enumerate(zip(self.plan, self.nodes, strict=True)):
            inputs = []
            for number in node.inputs:
                key = self._lateral_key(number, index)
                x = features[number]
                inputs.append(self.laterals[key](x) if key in self.laterals else x)
            features.append(fuse(inputs, self.offsets[index]))
            newest[node.level] = features[-1]
        return newest


class BiFPN(nn.Module):
    """Repeated cells over the backbone's features and, if asked, levels pooled from the last."""

    def __init__(
        self,
        inputs: tuple[int, ...],
        channels: int,
        *,
        levels: int,
        repeats: int,
        norm_groups: int,
        flavour: Flavour,
    ) -> None:
        """Take the channels of the features it reads and of the pyramid, and its level count."""
        super().__init__()
        self.inputs = len(inputs)
        self.flavour: Flavour = flavour
        self.extra_levels = levels - len(inputs)
        self.coarsest = (
            lateral_conv(inputs[-1], channels, norm_groups, bias=False)
            if self.extra_levels
            else None
        )
        first = (*inputs, *(channels for _ in range(self.extra_levels)))
        widths = [first, *((channels,) * levels for _ in range(repeats - 1))]
        self.cells = nn.ModuleList(
            BiFPNCell(width, channels, norm_groups=norm_groups, flavour=flavour) for width in widths
        )
        for layer in self.modules():
            if isinstance(layer, nn.Conv2d):
                nn.init.kaiming_uniform_(layer.weight, a=1)
                if layer.bias is not None:
                    nn.init.zeros_(layer.bias)

    def forward(self, features: list[Tensor]) -> list[Tensor]:
        """Backbone features, fine to coarse -> pyramid levels, fine to coarse.

        It reads the last features, as many as it was built for.
        """
        levels = features[-self.inputs :]
        if self.coarsest is not None:
            levels.append(downsample(self.coarsest(levels[-1]), self.flavour))
            for _ in range(self.extra_levels - 1):
                levels.append(downsample(levels[-1], self.flavour))
        for cell in self.cells:
            levels = cell(levels)
        return levels
