"""Named detectors; each preset is a function that returns a whole `Config`.

Settings of the published detectors are those of the official configs, training included; `nano`
and `lite0-fpn` are ours. docs/training.md has the recipes as a table.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from .coco_classes import COCO_CATEGORY_IDS, COCO_NAMES
from .config import Config, InputConfig
from .model_config import (
    Backbone,
    BiFPNConfig,
    CascadeRCNNConfig,
    CenterNetConfig,
    DLAConfig,
    EfficientNetLiteConfig,
    FPNConfig,
    ModelConfig,
    NanoConfig,
    ProposalFilter,
    ResNetConfig,
)
from .train_config import ResizeCropConfig, ShortEdgeConfig, TrainConfig

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


def dla34_bifpn_p3() -> Config:
    """The real-time detector: official `CenterNet2_DLA-BiFPN-P3_4x` and `..._24x`."""
    return Config(
        preset="dla34-bifpn-p3",
        class_names=COCO_NAMES,
        category_ids=COCO_CATEGORY_IDS,
        input=caffe_input(short_edge=512, long_edge=736, divisor=128),
        model=ModelConfig(
            backbone=DLAConfig(),
            neck=BiFPNConfig(flavour="fcos", levels=(3, 4, 5), channels=160, repeats=4),
            first_stage=CenterNetConfig(
                sizes_of_interest=SIZES_P3_P5, test_filter=REAL_TIME_FILTER
            ),
            second_stage=CascadeRCNNConfig(levels=(3, 4, 5)),
        ),
        train=official_training(
            steps=360_000,  # 4x
            milestones=(5 / 6, 17 / 18),
            sync_batch_norm=True,
            resize=ShortEdgeConfig(smallest=256, largest=608, long_edge=900),
        ),
    )


def dla34_bifpn_p5() -> Config:
    """Official `CenterNet2_DLA-BiFPN-P5_640_16x_ST`, also called `..._24x_ST`: self-training."""
    return Config(
        preset="dla34-bifpn-p5",
        class_names=COCO_NAMES,
        category_ids=COCO_CATEGORY_IDS,
        input=InputConfig(
            color_order="RGB",
            pixel_mean=IMAGENET_MEAN,
            pixel_std=IMAGENET_STD,
            short_edge=608,
            long_edge=900,
            divisor=128,
        ),
        model=ModelConfig(
            backbone=DLAConfig(),
            neck=BiFPNConfig(
                flavour="efficientdet", levels=(3, 4, 5, 6, 7), channels=160, repeats=3
            ),
            first_stage=CenterNetConfig(
                sizes_of_interest=SIZES_P3_P7, test_filter=REAL_TIME_FILTER
            ),
            second_stage=CascadeRCNNConfig(levels=(3, 4, 5, 6, 7)),
        ),
        train=official_training(
            batch=64,
            steps=360_000,  # 16x
            schedule="cosine",
            resize=ResizeCropConfig(size=640),
        ),
    )


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


def nano() -> Config:
    """Our small detector for CPUs: 2.4 M parameters, about 2 GMAC at 384 x 512 pixels."""
    return small_detector("nano", NanoConfig(), IMAGENET_MEAN, IMAGENET_STD)


def lite0_fpn() -> Config:
    """`nano` on EfficientNet-Lite0, which has ImageNet weights: for few pictures of one's own."""
    grey, scale = (127.0, 127.0, 127.0), (128.0, 128.0, 128.0)  # of those weights
    return small_detector("lite0-fpn", EfficientNetLiteConfig(), grey, scale)


def small_detector(
    name: str,
    backbone: Backbone,
    pixel_mean: tuple[float, float, float],
    pixel_std: tuple[float, float, float],
) -> Config:
    """Neck, heads and training of our detectors for CPUs, on a small backbone."""
    return Config(
        preset=name,
        class_names=COCO_NAMES,
        category_ids=COCO_CATEGORY_IDS,
        input=InputConfig(
            color_order="RGB",
            pixel_mean=pixel_mean,
            pixel_std=pixel_std,
            short_edge=384,
            long_edge=576,
            divisor=32,
            interpolation="linear",
        ),
        model=ModelConfig(
            backbone=backbone,
            neck=FPNConfig(levels=(3, 4, 5), channels=48),
            first_stage=CenterNetConfig(
                sizes_of_interest=((0, 48), (36, 144), (96, 1e6)),
                convs=2,
                norm_groups=16,
                regression_bias=4.0,
                test_filter=ProposalFilter(pre_nms=256, post_nms=64),
                train_filter=ProposalFilter(pre_nms=300, post_nms=200),
            ),
            second_stage=CascadeRCNNConfig(
                levels=(3, 4, 5),
                fc_channels=(128, 128),
                canonical_size=96.0,  # less than half the usual, as the pictures are
                sampling_ratio=2,
                rois_per_image=64,
            ),
        ),
        train=TrainConfig(
            batch=8,
            steps=5500,
            base_lr=0.02,
            lr_batch=8,
            warmup_steps=300,
            schedule="cosine",
            clip_norm=5.0,
            precision="auto",
            resize=ShortEdgeConfig(smallest=288, largest=384, long_edge=576),
            workers=1,
            eval_every=1500,
            save_every=250,
        ),
    )


PRESETS: dict[str, Callable[[], Config]] = {
    "dla34-bifpn-p3": dla34_bifpn_p3,
    "dla34-bifpn-p5": dla34_bifpn_p5,
    "r50-fpn": r50_fpn,
    "nano": nano,
    "lite0-fpn": lite0_fpn,
}
