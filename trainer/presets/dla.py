"""Presets with DLA-34."""

from __future__ import annotations

from typing import Literal

from ..coco_classes import COCO_CATEGORY_IDS, COCO_NAMES
from ..config import Config
from ..model_config import BiFPNConfig, CascadeRCNNConfig, CenterNetConfig, DLAConfig, ModelConfig
from ..train_config import ResizeCropConfig, ShortEdgeConfig
from .shared import (
    REAL_TIME_FILTER,
    SIZES_P3_P5,
    SIZES_P3_P7,
    caffe_input,
    imagenet_input,
    official_training,
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
    return _dla34_p5("dla34-bifpn-p5", "efficientdet")


def dla34_fcosbifpn_p5() -> Config:
    """Official `CenterNet2_DLA-fcosBiFPN-P5_640_16x_ST`: the same with the other BiFPN."""
    return _dla34_p5("dla34-fcosbifpn-p5", "fcos")


def _dla34_p5(preset: str, flavour: Literal["efficientdet", "fcos"]) -> Config:
    return Config(
        preset=preset,
        class_names=COCO_NAMES,
        category_ids=COCO_CATEGORY_IDS,
        input=imagenet_input(short_edge=608, long_edge=900, divisor=128),
        model=ModelConfig(
            backbone=DLAConfig(),
            neck=BiFPNConfig(flavour=flavour, levels=(3, 4, 5, 6, 7), channels=160, repeats=3),
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
