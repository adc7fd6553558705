"""Named detectors; each preset is a function that returns a whole `Config`.

Settings of the published detectors are those of the official configs; `nano` is ours.
"""

from __future__ import annotations

from collections.abc import Callable

from .coco_classes import COCO_CATEGORY_IDS, COCO_NAMES
from .config import (
    BiFPNConfig,
    CascadeRCNNConfig,
    CenterNetConfig,
    Config,
    DLAConfig,
    FPNConfig,
    InputConfig,
    ModelConfig,
    NanoConfig,
    ProposalFilter,
    ResizeCropConfig,
    ResNetConfig,
    ShortEdgeConfig,
    TrainConfig,
)

# Half box diagonals, pixels, of P3-P7 and of P3-P5; neighbours overlap.
SIZES_P3_P7 = ((0, 80), (64, 160), (128, 320), (256, 640), (512, 1e7))
SIZES_P3_P5 = ((0, 64), (48, 192), (128, 1e6))

REAL_TIME_FILTER = ProposalFilter(pre_nms=1000, post_nms=128)


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
        train=TrainConfig(
            steps=360_000,
            warmup_steps=4000,
            milestones=(5 / 6, 17 / 18),
            resize=ShortEdgeConfig(smallest=256, largest=608, long_edge=900),
        ),
    )


def dla34_bifpn_p5() -> Config:
    """Trained with self-training: official `CenterNet2_DLA-BiFPN-P5_640_16x_ST` and `..._24x_ST`."""
    return Config(
        preset="dla34-bifpn-p5",
        class_names=COCO_NAMES,
        category_ids=COCO_CATEGORY_IDS,
        input=InputConfig(
            color_order="RGB",
            pixel_mean=(123.675, 116.28, 103.53),
            pixel_std=(58.395, 57.12, 57.375),
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
        train=TrainConfig(
            batch=64,
            steps=360_000,
            warmup_steps=4000,
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
        train=TrainConfig(steps=90_000, warmup_steps=4000),
    )


def nano() -> Config:
    """Our small detector for CPUs: 2.4 M parameters, about 2 GMAC at 384 x 512 pixels."""
    return Config(
        preset="nano",
        class_names=COCO_NAMES,
        category_ids=COCO_CATEGORY_IDS,
        input=InputConfig(
            color_order="RGB",
            pixel_mean=(123.675, 116.28, 103.53),
            pixel_std=(58.395, 57.12, 57.375),
            short_edge=384,
            long_edge=576,
            divisor=32,
            interpolation="linear",
        ),
        model=ModelConfig(
            backbone=NanoConfig(),
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
}
