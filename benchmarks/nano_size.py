"""The detectors of the paper's Table 1 on `nano`'s backbone and widths: what a CPU can train."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from cn2.trainer.config import Config
from cn2.trainer.model_config import (
    ATSSConfig,
    CenterNetConfig,
    FirstStage,
    GFLConfig,
    ProposalFilter,
)
from cn2.trainer.presets import PRESETS
from cn2.trainer.presets.framework import FRAMEWORK_PRESETS
from cn2.trainer.presets.small import nano

TABLE_1 = ("centernet-r50-fpn", "r50-fpn-faster", "r50-fpn", *FRAMEWORK_PRESETS)
CHANNELS = 48  # of the pyramid and of every tower; `nano`'s
NORM_GROUPS = 16
SCALE = 0.5  # of anchors and sizes of interest: pictures are less than half as large as the paper's
TRAINED_PROPOSALS = ProposalFilter(pre_nms=300, post_nms=200)  # `nano`'s; the IoU stays


def at_nano_size(preset: str, scale: float = SCALE) -> Config:
    """A detector of `TABLE_1` with the widths, pictures and recipe of `nano`.

    Levels, towers, losses and what goes on at detection stay the preset's; the sizes by which
    objects are given to levels are `scale` of it.
    """
    config, small = PRESETS[preset](), nano()
    assert small.model.second_stage is not None
    first, second = config.model.first_stage, config.model.second_stage
    keep = replace(TRAINED_PROPOSALS, nms_iou=first.train_filter.nms_iou)
    narrow: dict[str, Any] = {"train_filter": keep, **scaled_sizes(first, scale)}
    if hasattr(first, "norm_groups"):
        narrow["norm_groups"] = NORM_GROUPS
    if second is not None:
        second = replace(
            second,
            fc_channels=small.model.second_stage.fc_channels,
            canonical_size=small.model.second_stage.canonical_size,
            sampling_ratio=small.model.second_stage.sampling_ratio,
            rois_per_image=small.model.second_stage.rois_per_image,
        )
    model = replace(
        config.model,
        backbone=small.model.backbone,
        neck=replace(config.model.neck, channels=CHANNELS),
        first_stage=replace(first, **narrow),
        second_stage=second,
    )
    return replace(small, preset=preset.replace("r50", "nano"), model=model)


def scaled_sizes(first: FirstStage, scale: float) -> dict[str, Any]:
    """The settings of a first stage that are sizes of objects, scaled."""
    if isinstance(first, CenterNetConfig):
        ranges = first.sizes_of_interest
        return {"sizes_of_interest": tuple((scale * low, scale * high) for low, high in ranges)}
    if isinstance(first, ATSSConfig | GFLConfig):
        return {"anchor_size": scale * first.anchor_size}
    return {"anchors": replace(first.anchors, size=scale * first.anchors.size)}
