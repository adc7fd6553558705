"""What presets of the published detectors share: levels' sizes, inputs, training."""

from __future__ import annotations

from typing import Any

from ..config import InputConfig
from ..model_config import ProposalFilter
from ..train_config import TrainConfig

# Half box diagonals, pixels, of P3-P7 and of P3-P5; neighbours overlap.
SIZES_P3_P7 = ((0, 80), (64, 160), (128, 320), (256, 640), (512, 1e7))
SIZES_P3_P5 = ((0, 64), (48, 192), (128, 1e6))

IMAGENET_MEAN = (123.675, 116.28, 103.53)  # RGB grey levels
IMAGENET_STD = (58.395, 57.12, 57.375)

REAL_TIME_FILTER = ProposalFilter(pre_nms=1000, post_nms=128)


def official_training(**changes: Any) -> TrainConfig:
    """What all official configs share: `Base-CenterNet2` and detectron2's defaults.

    Momentum, weight decay (none on norms), flip, rate and batch are `TrainConfig`'s own defaults.
    detectron2 clips every element of the gradient at 1, not its norm.
    """
    return TrainConfig(
        warmup_steps=4000, warmup_factor=0.00025, clip_norm=0.0, clip_value=1.0, **changes
    )


def caffe_input(short_edge: int, long_edge: int, divisor: int) -> InputConfig:
    """Input of backbones pretrained in Caffe: BGR grey levels less their mean."""
    return InputConfig(
        color_order="BGR",
        pixel_mean=(103.53, 116.28, 123.675),
        pixel_std=(1.0, 1.0, 1.0),
        short_edge=short_edge,
        long_edge=long_edge,
        divisor=divisor,
    )


def imagenet_input(short_edge: int, long_edge: int, divisor: int) -> InputConfig:
    """Input of backbones pretrained in PyTorch: RGB, ImageNet's mean and deviation."""
    return InputConfig(
        color_order="RGB",
        pixel_mean=IMAGENET_MEAN,
        pixel_std=IMAGENET_STD,
        short_edge=short_edge,
        long_edge=long_edge,
        divisor=divisor,
    )
