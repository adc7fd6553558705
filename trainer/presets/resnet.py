"""Presets with ResNet and ResNeXt."""

from __future__ import annotations

from ..coco_classes import COCO_CATEGORY_IDS, COCO_NAMES
from ..config import Config
from ..model_config import CascadeRCNNConfig, CenterNetConfig, FPNConfig, ModelConfig, ResNetConfig
from ..train_config import ShortEdgeConfig
from .shared import SIZES_P3_P7, caffe_input, official_training


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
