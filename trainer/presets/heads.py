"""Presets of ResNet-50 on FPN with other heads: one-stage, one box head, LVIS, Objects365."""

from __future__ import annotations

from dataclasses import replace

from ..class_lists import ClassListName, class_list
from ..config import Config
from ..model_config import (
    CascadeRCNNConfig,
    CenterNetConfig,
    ExtraPositivesConfig,
    FederatedConfig,
    ProposalFilter,
)
from .resnet import r50_fpn
from .shared import SIZES_P3_P7

LEVELS = (3, 4, 5, 6, 7)
ONE_STAGE_FILTER = ProposalFilter(pre_nms=1000, post_nms=100, nms_iou=0.6)


def centernet_r50_fpn() -> Config:
    """CenterNet* without a second stage: official `CenterNet-FPN_R50_1x`."""
    base = r50_fpn()
    first_stage = one_stage(
        sizes_of_interest=SIZES_P3_P7, convs=4, class_convs=4, regression_weight=2.0
    )
    return replace(
        base,
        preset="centernet-r50-fpn",
        model=replace(base.model, first_stage=first_stage, second_stage=None),
        train=replace(base.train, base_lr=0.01),
    )


def one_stage(
    sizes_of_interest: tuple[tuple[float, float], ...],
    convs: int,
    class_convs: int,
    regression_weight: float,
) -> CenterNetConfig:
    """What the official one-stage detectors share."""
    return CenterNetConfig(
        sizes_of_interest=sizes_of_interest,
        convs=convs,
        class_convs=class_convs,
        objectness_floor=0.05,
        test_filter=ONE_STAGE_FILTER,
        train_filter=ONE_STAGE_FILTER,  # nothing in training reads it
        ignore_high_negatives=1.0,  # none are ignored
        heatmap_weight=1.0,
        regression_weight=regression_weight,
        extra_positives=ExtraPositivesConfig(),
    )


def r50_fpn_faster() -> Config:
    """`r50-fpn` with a single box head, Faster R-CNN: official `CenterNet2-F_R50_1x`."""
    second_stage = CascadeRCNNConfig(
        levels=LEVELS, ious=(0.6,), delta_weights=((10.0, 10.0, 5.0, 5.0),)
    )
    return _with_second_stage("r50-fpn-faster", r50_fpn(), second_stage)


def r50_fpn_lvis() -> Config:
    """`r50-fpn` for the 1203 classes of LVIS v1: official `LVIS_CenterNet2_R50_1x`."""
    second_stage = CascadeRCNNConfig(
        levels=LEVELS, score_threshold=0.02, nms_iou=0.5, detections=300
    )
    return _with_second_stage("r50-fpn-lvis", _r50_fpn_for("lvis-v1"), second_stage)


def r50_fpn_lvis_fed() -> Config:
    """The same with sigmoids and the federated loss: official `LVIS_CenterNet2_R50_Fed_1x`."""
    second_stage = CascadeRCNNConfig(
        levels=LEVELS,
        score_threshold=0.02,
        nms_iou=0.5,
        detections=300,
        classifier="sigmoid",
        federated=FederatedConfig(),
    )
    return _with_second_stage("r50-fpn-lvis-fed", _r50_fpn_for("lvis-v1"), second_stage)


def r50_fpn_o365() -> Config:
    """`r50-fpn` for the 365 classes of Objects365 v1: official `O365_CenterNet2_R50_1x`."""
    second_stage = CascadeRCNNConfig(levels=LEVELS, detections=300)
    return _with_second_stage("r50-fpn-o365", _r50_fpn_for("objects365-v1"), second_stage)


def _r50_fpn_for(name: ClassListName) -> Config:
    """`r50-fpn` for the classes of a published data set."""
    classes = class_list(name)
    return replace(r50_fpn(), class_names=classes.names, category_ids=classes.category_ids)


def _with_second_stage(preset: str, config: Config, second_stage: CascadeRCNNConfig) -> Config:
    return replace(config, preset=preset, model=replace(config.model, second_stage=second_stage))
