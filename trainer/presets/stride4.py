"""Presets with DLA-34 and its up path: one level of stride 4."""

from __future__ import annotations

from ..class_lists import class_list
from ..coco_classes import COCO_CATEGORY_IDS, COCO_NAMES
from ..config import Config, InputConfig
from ..model_config import (
    CascadeRCNNConfig,
    CenterNetConfig,
    DLAConfig,
    DLAUpConfig,
    ExtraPositivesConfig,
    ModelConfig,
)
from ..train_config import ResizeCropConfig
from .heads import one_stage
from .shared import REAL_TIME_FILTER, imagenet_input, official_training

ALL_SIZES = ((0, 1e6),)  # half box diagonals, pixels


def centernet_dla34_s4() -> Config:
    """CenterNet* at stride 4, no second stage: official `CenterNet-S4_DLA_8x`."""
    return Config(
        preset="centernet-dla34-s4",
        class_names=COCO_NAMES,
        category_ids=COCO_CATEGORY_IDS,
        input=InputConfig(
            color_order="BGR",
            pixel_mean=(103.53, 116.28, 123.675),
            pixel_std=(57.375, 57.12, 58.395),
            short_edge=608,
            long_edge=900,
            divisor=32,
        ),
        model=ModelConfig(
            backbone=DLAConfig(),
            neck=DLAUpConfig(),
            first_stage=one_stage(
                sizes_of_interest=ALL_SIZES, convs=1, class_convs=1, regression_weight=1.0
            ),
            second_stage=None,
        ),
        train=official_training(
            batch=128,
            steps=90_000,  # 8x
            base_lr=0.08,
            lr_batch=128,
            schedule="cosine",
            resize=ResizeCropConfig(size=640),
        ),
    )


def dla34_s4_nuimages() -> Config:
    """The two-stage detector of nuImages' classes: official `nuImages_CenterNet2_DLA_640_8x`."""
    classes = class_list("nuimages")
    return Config(
        preset="dla34-s4-nuimages",
        class_names=classes.names,
        category_ids=classes.category_ids,
        input=imagenet_input(short_edge=608, long_edge=900, divisor=32),
        model=ModelConfig(
            backbone=DLAConfig(),
            neck=DLAUpConfig(),
            first_stage=CenterNetConfig(
                sizes_of_interest=ALL_SIZES,
                convs=1,
                test_filter=REAL_TIME_FILTER,
                extra_positives=ExtraPositivesConfig(),
            ),
            second_stage=CascadeRCNNConfig(levels=(2,)),
        ),
        train=official_training(
            batch=64,
            steps=180_000,  # 8x
            base_lr=0.08,
            lr_batch=64,
            resize=ResizeCropConfig(size=640),
        ),
    )
