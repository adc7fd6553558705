"""Named detectors; each preset is a function that returns a whole `Config`.

Settings of the published detectors are those of the official configs; `nano` is ours.
"""

from __future__ import annotations

from collections.abc import Callable

from .coco_classes import COCO_CATEGORY_IDS, COCO_NAMES
from .config import (
    CascadeRCNNConfig,
    CenterNetConfig,
    Config,
    FPNConfig,
    InputConfig,
    ModelConfig,
    NanoConfig,
    ProposalFilter,
    TrainConfig,
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
                train_filter=ProposalFilter(pre_nms=1000, post_nms=500),
            ),
            second_stage=CascadeRCNNConfig(
                levels=(3, 4, 5),
                fc_channels=(128, 128),
                canonical_size=112.0,  # half the usual: the pictures are half as large
                rois_per_image=128,
            ),
        ),
        train=TrainConfig(
            batch=16,
            steps=20_000,
            base_lr=0.02,
            warmup_steps=500,
            schedule="cosine",
            clip_norm=5.0,
            short_edges=(288, 320, 352, 384, 416),
            long_edge=640,
            eval_every=2000,
        ),
    )


PRESETS: dict[str, Callable[[], Config]] = {
    "nano": nano,
}
