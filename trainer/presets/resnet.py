"""Presets with ResNet, ResNeXt and Res2Net."""

from __future__ import annotations

from dataclasses import replace

from ..coco_classes import COCO_CATEGORY_IDS, COCO_NAMES
from ..config import Config, InputConfig
from ..model_config import (
    BiFPNConfig,
    CascadeRCNNConfig,
    CenterNetConfig,
    FPNConfig,
    ModelConfig,
    Neck,
    Res2NetConfig,
    ResNetConfig,
)
from ..train_config import ResizeCropConfig, ShortEdgeConfig
from .shared import (
    IMAGENET_MEAN,
    IMAGENET_STD,
    SIZES_P3_P7,
    caffe_input,
    imagenet_input,
    official_training,
)

RES2NET_BIFPN = BiFPNConfig(flavour="efficientdet", levels=(3, 4, 5, 6, 7), channels=288, repeats=7)


def r50_fpn() -> Config:
    """The paper's ResNet-50 detector: official `CenterNet2_R50_1x`."""
    return Config(
        preset="r50-fpn",
        class_names=COCO_NAMES,
        category_ids=COCO_CATEGORY_IDS,
        input=caffe_input(short_edge=800, long_edge=1333, divisor=32),
        model=ModelConfig(
            backbone=ResNetConfig(depth=50),
            neck=FPNConfig(levels=(3, 4, 5, 6, 7), channels=256),
            first_stage=CenterNetConfig(sizes_of_interest=SIZES_P3_P7),
            second_stage=CascadeRCNNConfig(levels=(3, 4, 5, 6, 7)),
        ),
        train=official_training(
            steps=90_000,  # 1x
            resize=ShortEdgeConfig(smallest=640, largest=800, long_edge=1333),
        ),
    )


def x101_dcn_fpn() -> Config:
    """ResNeXt-101 32x8d with deformable convolutions: official `CenterNet2_X101-DCN_2x`."""
    return Config(
        preset="x101-dcn-fpn",
        class_names=COCO_NAMES,
        category_ids=COCO_CATEGORY_IDS,
        input=replace(
            caffe_input(short_edge=800, long_edge=1333, divisor=32),
            pixel_std=(57.375, 57.12, 58.395),
        ),
        model=ModelConfig(
            backbone=ResNetConfig(
                depth=101, stride_in="3x3", groups=32, group_width=8, deformable_stages=(4, 5)
            ),
            neck=FPNConfig(levels=(3, 4, 5, 6, 7), channels=256),
            first_stage=CenterNetConfig(sizes_of_interest=SIZES_P3_P7, deformable=True),
            second_stage=CascadeRCNNConfig(levels=(3, 4)),
        ),
        train=official_training(
            steps=180_000,  # 2x
            resize=ShortEdgeConfig(smallest=480, largest=960, step=1, long_edge=1333),
        ),
    )


def r2_101_dcn_fpn() -> Config:
    """Official `CenterNet2_R2-101-DCN_896_4x`."""
    return _res2net_detector(
        "r2-101-dcn-fpn", _mixed_input(divisor=32), FPNConfig(levels=(3, 4, 5, 6, 7)), crop=896
    )


def r2_101_dcn_bifpn_1280() -> Config:
    """Official `CenterNet2_R2-101-DCN-BiFPN_1280_4x`."""
    return _res2net_detector(
        "r2-101-dcn-bifpn-1280", _mixed_input(divisor=128), RES2NET_BIFPN, crop=1280
    )


def r2_101_dcn_bifpn_1560() -> Config:
    """Official `CenterNet2_R2-101-DCN-BiFPN_4x+4x_1560_ST`.

    Its training is the second 4x, which starts from a model of the first; the official file was
    not at hand, so it is that of the first (docs/training.md).
    """
    input = replace(imagenet_input(short_edge=1560, long_edge=1560, divisor=128), rounding="down")
    return _res2net_detector("r2-101-dcn-bifpn-1560", input, RES2NET_BIFPN, crop=1280)


def _mixed_input(divisor: int) -> InputConfig:
    """BGR pictures less RGB's mean: the official files say RGB in a section that a later one hides.

    The published weights were trained so (docs/differences.md).
    """
    return InputConfig(
        color_order="BGR",
        pixel_mean=IMAGENET_MEAN,
        pixel_std=IMAGENET_STD,
        short_edge=800,
        long_edge=1333,
        divisor=divisor,
    )


def _res2net_detector(preset: str, input: InputConfig, neck: Neck, crop: int) -> Config:
    """Res2Net-101 with deformable convolutions; RoIs are pooled from P3 and P4 alone."""
    return Config(
        preset=preset,
        class_names=COCO_NAMES,
        category_ids=COCO_CATEGORY_IDS,
        input=input,
        model=ModelConfig(
            backbone=Res2NetConfig(depth=101, deformable_stages=(4, 5)),
            neck=neck,
            first_stage=CenterNetConfig(sizes_of_interest=SIZES_P3_P7, deformable=True),
            second_stage=CascadeRCNNConfig(levels=(3, 4)),
        ),
        train=official_training(
            batch=32,
            steps=180_000,  # 4x
            schedule="cosine",
            resize=ResizeCropConfig(size=crop),
        ),
    )
