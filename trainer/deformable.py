"""Modulated deformable convolution: a 3x3 convolution that learns where to read, and how much."""

from __future__ import annotations

import torchvision  # type: ignore[import-untyped]
from torch import Tensor, nn

from .layers import OffsetConv2d, in_fp32

OFFSETS = 18  # channels: (dy, dx) in cells for each of the nine taps, row by row
MASKS = 9  # channels: the logit of each tap's share


class DeformableConv2d(nn.Conv2d):
    """A 3x3 convolution, padded by 1, whose taps are moved and weighted by another one.

    It starts as half a plain convolution: no offsets, and every mask is sigmoid(0).
    Source: Zhu et al., arXiv 1811.11168, Sec. 3.2; the offsets are those of Dai et al., arXiv
    1703.06211, Sec. 2.1. All channels share one set of offsets.
    """

    def __init__(
        self,
        inputs: int,
        outputs: int,
        stride: int = 1,
        *,
        groups: int = 1,
        bias: bool = False,
        offset_bias: bool = True,
    ) -> None:
        super().__init__(inputs, outputs, 3, stride, 1, groups=groups, bias=bias)
        self.offset = OffsetConv2d(inputs, OFFSETS + MASKS, 3, stride, 1, bias=offset_bias)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, h, w) -> (B, C', h / stride, w / stride), rounded up."""
        return in_fp32(self._convolve, x).to(x.dtype)

    def _convolve(self, x: Tensor) -> Tensor:
        found = self.offset(x)
        y: Tensor = torchvision.ops.deform_conv2d(
            x,
            found[:, :OFFSETS],
            self.weight,
            self.bias,
            stride=(self.stride[0], self.stride[1]),
            padding=(1, 1),
            mask=found[:, OFFSETS:].sigmoid(),
        )
        return y
