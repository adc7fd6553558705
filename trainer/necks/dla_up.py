"""DLA's up path: all features of the backbone joined at its finest one, stride 4 for a whole DLA.

Source: Yu et al., arXiv 1707.06484, Sec. 3.2 and 4.2 (iterative deep aggregation); its convolutions
are deformable as in Zhou et al., arXiv 1904.07850, Fig. 6 (d) and Appendix A.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ..deformable import DeformableConv2d
from ..layers import initialise_convolutions


def deformable_batch_norm(inputs: int, outputs: int) -> nn.Sequential:
    """A deformable convolution with bias, BatchNorm and ReLU."""
    conv = DeformableConv2d(inputs, outputs, bias=True)
    return nn.Sequential(conv, nn.BatchNorm2d(outputs), nn.ReLU(inplace=True))


class Upsample(nn.ConvTranspose2d):
    """Learnt enlargement of each channel alone; it starts as a bilinear one."""

    def __init__(self, channels: int, factor: int) -> None:
        """Take an even factor."""
        super().__init__(
            channels,
            channels,
            2 * factor,
            stride=factor,
            padding=factor // 2,
            groups=channels,
            bias=False,
        )

    def reset_parameters(self) -> None:
        """Weights of a tap fall linearly with its distance from the middle of the kernel."""
        size = self.kernel_size[0]
        places = torch.arange(size, dtype=self.weight.dtype, device=self.weight.device)
        tent = 1 - (places - (size - 1) / 2).abs() / (size / 2)
        with torch.no_grad():
            self.weight.copy_(tent[:, None] * tent[None, :])


class Join(nn.Module):
    """Bring a coarser feature to the size and channels of a finer one, and add the two."""

    def __init__(self, inputs: int, outputs: int, factor: int) -> None:
        """Take channels of the coarser feature and of the result, and how much coarser it is."""
        super().__init__()
        self.project = deformable_batch_norm(inputs, outputs)
        self.up = Upsample(outputs, factor)
        self.node = deformable_batch_norm(outputs, outputs)

    def forward(self, coarser: Tensor, finer: Tensor) -> Tensor:
        """(B, C, h / factor, w / factor) and (B, C', h, w) -> (B, C', h, w)."""
        y: Tensor = self.node(self.up(self.project(coarser)) + finer)
        return y


class Aggregation(nn.Module):
    """Iterative deep aggregation: each coarser feature joins with the result before it."""

    def __init__(self, channels: int, inputs: tuple[int, ...], factors: tuple[int, ...]) -> None:
        """Take channels of the first feature, then of the others, and how much coarser they are."""
        super().__init__()
        self.joins = nn.ModuleList(
            Join(width, channels, factor) for width, factor in zip(inputs, factors, strict=True)
        )

    def forward(self, features: list[Tensor]) -> list[Tensor]:
        """The first feature and coarser ones -> as many, all of the first one's shape."""
        done = features[:1]
        for feature, join in zip(features[1:], self.joins, strict=True):
            done.append(join(feature, done[-1]))
        return done


class DLAUp(nn.Module):
    """Features of halving resolution -> one of the finest resolution.

    Round by round from the coarse end: the last feature joins the one before it, then both join
    the one before that, and so on. The last result of each round is kept, one per resolution; in
    the end the finest of them is joined by the others in turn.
    """

    def __init__(self, inputs: tuple[int, ...]) -> None:
        """Take the features' channels, fine to coarse; the result has as many as the first."""
        super().__init__()
        count = len(inputs)
        self.rounds = nn.ModuleList(
            Aggregation(
                inputs[first],
                (inputs[first + 1],) * (count - 1 - first),
                (2,) * (count - 1 - first),
            )
            for first in range(count - 2, -1, -1)
        )
        kept = inputs[:-1]
        factors = tuple(2**k for k in range(1, len(kept)))
        self.last = Aggregation(kept[0], kept[1:], factors)
        initialise_convolutions(self)

    def forward(self, features: list[Tensor]) -> list[Tensor]:
        """Features, fine to coarse -> [(B, C, h, w)] of the finest one's size."""
        newest = list(features)
        results: list[Tensor] = []
        for index, aggregate in enumerate(self.rounds):
            first = len(features) - 2 - index
            newest[first:] = aggregate(newest[first:])
            results.insert(0, newest[-1])
        finest: list[Tensor] = self.last(results)[-1:]
        return finest
