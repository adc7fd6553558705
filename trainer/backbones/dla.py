"""Deep layer aggregation, DLA-34: residual blocks whose outputs trees of 1x1 convolutions join.

Source: Yu et al., arXiv 1707.06484, Sec. 3 and Table 1 (DLA-34).
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..layers import conv_batch_norm, initialise_convolutions
from .frozen import Backbone

WIDTHS = (16, 32, 64, 128, 256, 512)  # of levels 0..5, strides 1..32
DEPTHS = (1, 2, 2, 1)  # of the trees of levels 2..5


class BasicBlock(nn.Module):
    """Two 3x3 convolutions around a shortcut that the caller may give."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.conv1 = conv_batch_norm(inputs, outputs, 3, stride)
        self.conv2 = conv_batch_norm(outputs, outputs, 3, relu=False)

    def forward(self, x: Tensor, shortcut: Tensor) -> Tensor:
        return F.relu(self.conv2(self.conv1(x)) + shortcut)


class Tree(nn.Module):
    """A tree of blocks: two subtrees (or blocks), and at its end a root that joins outputs.

    Hierarchical and iterative aggregation, Sec. 3.1 and 3.2: the second subtree's root joins the
    outputs of every subtree before it, and the level's own input where `join_input`.
    """

    def __init__(
        self,
        inputs: int,
        outputs: int,
        *,
        depth: int,
        stride: int,
        join_input: bool = False,
        joined: int = 0,
    ) -> None:
        """Take channels, tree depth, and `joined`: the channels that come from outside the tree."""
        super().__init__()
        self.join_input = join_input
        self.stride = stride
        joined += inputs if join_input else 0
        self.first: Tree | BasicBlock
        self.second: Tree | BasicBlock
        self.root: nn.Sequential | None = None
        if depth == 1:
            self.first = BasicBlock(inputs, outputs, stride)
            self.second = BasicBlock(outputs, outputs, 1)
            self.root = conv_batch_norm(2 * outputs + joined, outputs, 1)
        else:
            self.first = Tree(inputs, outputs, depth=depth - 1, stride=stride)
            self.second = Tree(outputs, outputs, depth=depth - 1, stride=1, joined=joined + outputs)
        self.project = (
            conv_batch_norm(inputs, outputs, 1, relu=False) if inputs != outputs else None
        )
        if depth > 1 and self.project is not None:  # in published weights, but only depth 1 uses it
            self.project.requires_grad_(False)

    def forward(self, x: Tensor, outside: Sequence[Tensor] = ()) -> Tensor:
        """(B, C, h, w) and what to join besides -> (B, C', h / stride, w / stride)."""
        reduced = F.max_pool2d(x, self.stride) if self.stride > 1 else x
        outside = [*outside, reduced] if self.join_input else list(outside)
        if self.root is None:
            first = self.first(x)
            deeper: Tensor = self.second(first, [*outside, first])
            return deeper
        shortcut = reduced if self.project is None else self.project(reduced)
        first = self.first(x, shortcut)
        second = self.second(first, first)
        joined: Tensor = self.root(torch.cat([second, first, *outside], dim=1))
        return joined


class DLA34(Backbone):
    """Returns the features of levels 2 to 5: strides 4, 8, 16, 32."""

    channels = WIDTHS[2:]

    def __init__(self, frozen_stages: int = 0) -> None:
        """Take how many stages are frozen; the first one is all before the trees, stride 2."""
        super().__init__()
        self.stem = conv_batch_norm(3, WIDTHS[0], 7)
        self.level0 = conv_batch_norm(WIDTHS[0], WIDTHS[0], 3)
        self.level1 = conv_batch_norm(WIDTHS[0], WIDTHS[1], 3, stride=2)
        self.trees = nn.ModuleList(
            Tree(WIDTHS[1 + i], WIDTHS[2 + i], depth=depth, stride=2, join_input=i > 0)
            for i, depth in enumerate(DEPTHS)
        )
        initialise_convolutions(self)
        before = [self.stem, self.level0, self.level1]
        self.freeze([before, *([tree] for tree in self.trees)], frozen_stages)

    def forward(self, x: Tensor) -> list[Tensor]:
        """(B, 3, H, W) -> features of strides 4, 8, 16, 32."""
        x = self.level1(self.level0(self.stem(x)))
        features = []
        for tree in self.trees:
            x = tree(x)
            features.append(x)
        return features
