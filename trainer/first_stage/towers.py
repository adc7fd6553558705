"""Towers of convolutions, which the dense heads of all first stages are made of."""

from __future__ import annotations

from torch import nn

from ..deformable import DeformableConv2d
from ..layers import OffsetConv2d

STD, WIDTH = 0.01, 256  # of initial weights, and the channels that the papers have


def conv_tower(
    channels: int, convs: int, norm_groups: int, *, deformable: bool = False
) -> nn.Sequential:
    """So many 3x3 convolutions with GroupNorm and ReLU.

    Args:
        channels: of input and output.
        convs: convolutions; 0: the input as it is.
        norm_groups: of GroupNorm; 0: none.
        deformable: the last convolution.
    """
    layers: list[nn.Module] = []
    for index in range(convs):
        layers.append(
            DeformableConv2d(channels, channels, bias=True)
            if deformable and index == convs - 1
            else nn.Conv2d(channels, channels, 3, padding=1)
        )
        if norm_groups:
            layers.append(nn.GroupNorm(norm_groups, channels))
        layers.append(nn.ReLU(inplace=True))
    return nn.Sequential(*layers)


def plain_std(channels: int) -> float:
    """Deviation of the weights of a tower without normalisation: 0.01 at the papers' 256 channels.

    A narrower tower with the papers' own weights passes on less from layer to layer, and after four
    of them hardly a gradient: at 48 channels nothing was learned in the first hundred steps.
    """
    return float(STD * (WIDTH / channels) ** 0.5)


def initialise_head(
    head: nn.Module,
    regression: nn.Conv2d | None = None,
    regression_bias: float = 0.0,
    *,
    std: float = STD,
) -> None:
    """Small normal weights and zero biases, but the regression's bias, in strides."""
    for layer in head.modules():
        if isinstance(layer, nn.Conv2d) and not isinstance(layer, OffsetConv2d):
            nn.init.normal_(layer.weight, std=std)
            nn.init.zeros_(layer.bias)  # type: ignore[arg-type]  # every one has a bias
    if regression is not None:
        nn.init.constant_(regression.bias, regression_bias)  # type: ignore[arg-type]
