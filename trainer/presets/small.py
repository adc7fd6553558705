"""Presets of ours: small detectors for CPUs."""

from __future__ import annotations

from ..coco_classes import COCO_CATEGORY_IDS, COCO_NAMES
from ..config import Config, InputConfig
from ..model_config import (
    Backbone,
    CascadeRCNNConfig,
    CenterNetConfig,
    EfficientNetLiteConfig,
    FPNConfig,
    ModelConfig,
    NanoConfig,
    ProposalFilter,
)
from ..train_config import ShortEdgeConfig, TrainConfig
from .shared import IMAGENET_MEAN, IMAGENET_STD


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
