"""Small layers that several parts share."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class FrozenBatchNorm2d(nn.Module):
    """BatchNorm whose statistics and affine are constants: buffers, no gradient, no update."""

    weight: Tensor
    bias: Tensor
    running_mean: Tensor
    running_var: Tensor

    def __init__(self, channels: int, eps: float = 1e-5) -> None:
        super().__init__()
        self.eps = eps
        self.register_buffer("weight", torch.ones(channels))
        self.register_buffer("bias", torch.zeros(channels))
        self.register_buffer("running_mean", torch.zeros(channels))
        self.register_buffer("running_var", torch.ones(channels))

    def forward(self, x: Tensor) -> Tensor:
        return F.batch_norm(
            x, self.running_mean, self.running_var, self.weight, self.bias, False, 0.0, self.eps
        )


def conv_batch_norm(
    inputs: int, outputs: int, kernel: int, stride: int = 1, relu: bool = True
) -> nn.Sequential:
    """A bias-free convolution of odd kernel, BatchNorm and, if asked, ReLU."""
    layers: list[nn.Module] = [
        nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, bias=False),
        nn.BatchNorm2d(outputs),
    ]
    if relu:
        layers.append(nn.ReLU(inplace=True))
    return nn.Sequential(*layers)


def upsample_to(x: Tensor, finer: Tensor) -> Tensor:
    """Nearest-neighbour upsampling of (B, C, h, w) to the height and width of a finer level."""
    return F.interpolate(x, size=finer.shape[-2:], mode="nearest")


class OffsetConv2d(nn.Conv2d):
    """A convolution that starts at zero, as what it predicts are corrections."""

    def reset_parameters(self) -> None:
        nn.init.zeros_(self.weight)
        if self.bias is not None:
            nn.init.zeros_(self.bias)


def initialise_convolutions(module: nn.Module) -> None:
    """Kaiming-normal weights (ReLU, fan out) and zero biases for every convolution inside.

    An `OffsetConv2d` stays zero.
    Source: He et al., arXiv 1502.01852, Sec. 2.2.
    """
    for layer in module.modules():
        if isinstance(layer, nn.Conv2d) and not isinstance(layer, OffsetConv2d):
            nn.init.kaiming_normal_(layer.weight, mode="fan_out", nonlinearity="relu")
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)


def set_prior(layer: nn.Conv2d | nn.Linear, prior: float) -> None:
    """Make a layer of logits start at this probability; RetinaNet, arXiv 1708.02002, Sec. 4.1."""
    nn.init.constant_(layer.bias, -math.log((1 - prior) / prior))  # type: ignore[arg-type]


def in_fp32(layer: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    """Apply a layer that positions or scores are read from: in fp32, also where autocast lowers."""
    kind = x.device.type
    if not torch.is_autocast_enabled(kind):
        y: Tensor = layer(x)
        return y
    with torch.autocast(kind, enabled=False):
        y = layer(x.float())
    return y
