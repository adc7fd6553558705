"""From the config of a first stage to its modules and its losses."""

from __future__ import annotations

from typing import TypeAlias, assert_never

from torch import nn

from .first_stage.atss import ATSSHead
from .first_stage.centernet import CenterNetHead, ClassHead
from .first_stage.coding import (
    AnchorDeltas,
    AnchorShapes,
    BoxCoding,
    DistanceDistributions,
    SideDistances,
    anchor_shapes,
)
from .first_stage.dense import ClassStage, ProposalStage
from .first_stage.gfl import GFLHead
from .first_stage.retinanet import RetinaNetHead
from .first_stage.rpn import RPNHead
from .first_stage_config import (
    AnchorConfig,
    ATSSConfig,
    CenterNetConfig,
    FirstStage,
    GFLConfig,
    RetinaNetConfig,
    RPNConfig,
)
from .first_stage_losses.anchors import AnchorLosses, AnchorRule
from .first_stage_losses.atss import ATSSLosses
from .first_stage_losses.centernet import CenterNetLosses
from .first_stage_losses.gfl import GFLLosses
from .first_stage_losses.shared import FirstStageLosses, Share
from .layers import set_prior

Levels: TypeAlias = tuple[int, ...]


def build_proposal_stage(config: FirstStage, levels: Levels, channels: int) -> ProposalStage:
    """The stage before a second one, over pyramid levels of these numbers and channels."""
    return ProposalStage(
        _build_head(config, levels, channels, None),
        _build_coding(config),
        strides_of(levels),
        config.objectness_floor,
        suppress_within_levels=config.suppress_within_levels,
    )


def build_class_stage(
    config: FirstStage, levels: Levels, channels: int, classes: int
) -> ClassStage:
    """The only stage of a one-stage detector, over pyramid levels of these numbers and channels."""
    head = _build_head(config, levels, channels, classes)
    return ClassStage(head, _build_coding(config), strides_of(levels), config.objectness_floor)


def _build_head(
    config: FirstStage, levels: Levels, channels: int, classes: int | None
) -> nn.Module:
    """The head; classes None: it does not tell them apart."""
    columns = classes or 1
    match config:
        case CenterNetConfig():
            return _build_centernet(config, levels, channels, classes)
        case RetinaNetConfig():
            anchors = len(_shapes(config.anchors))
            return RetinaNetHead(
                channels,
                columns,
                anchors,
                convs=config.convs,
                merged=config.merged,
                prior=config.prior,
            )
        case ATSSConfig():
            return ATSSHead(
                channels,
                columns,
                convs=config.convs,
                norm_groups=config.norm_groups,
                merged=config.merged,
                levels=len(levels),
                prior=config.prior,
            )
        case GFLConfig():
            return GFLHead(
                channels,
                columns,
                convs=config.convs,
                norm_groups=config.norm_groups,
                merged=config.merged,
                levels=len(levels),
                prior=config.prior,
                largest_distance=config.largest_distance,
                regression_bias=config.regression_bias,
            )
        case RPNConfig():
            anchors = len(_shapes(config.anchors))
            return RPNHead(channels, anchors, convs=config.convs, prior=config.prior)
        case _:
            assert_never(config)


def _build_centernet(
    config: CenterNetConfig, levels: Levels, channels: int, classes: int | None
) -> nn.Module:
    if classes is None:
        head = CenterNetHead(
            channels,
            convs=config.convs,
            norm_groups=config.norm_groups,
            levels=len(levels),
            regression_bias=config.regression_bias,
            deformable=config.deformable,
        )
        set_prior(head.heatmap, config.prior)
        return head
    class_head = ClassHead(
        channels,
        classes,
        class_convs=config.class_convs,
        convs=config.convs,
        norm_groups=config.norm_groups,
        levels=len(levels),
        regression_bias=config.regression_bias,
    )
    set_prior(class_head.class_heatmaps, config.prior)
    return class_head


def _build_coding(config: FirstStage) -> BoxCoding:
    """How the head's regression says where boxes are."""
    match config:
        case CenterNetConfig():
            return SideDistances()
        case RetinaNetConfig() | RPNConfig():
            return AnchorDeltas(_shapes(config.anchors), PLAIN_DELTAS)
        case ATSSConfig():
            return AnchorDeltas(anchor_shapes(config.anchor_size, 1, (1.0,)), config.delta_weights)
        case GFLConfig():
            return SideDistances() if config.largest_distance is None else DistanceDistributions()
        case _:
            assert_never(config)


def build_first_stage_losses(config: FirstStage, share: Share) -> FirstStageLosses:
    """The losses of a first stage, with a second one or without."""
    match config:
        case CenterNetConfig():
            return CenterNetLosses(config, share)
        case RetinaNetConfig():
            focal = config.focal_alpha, config.focal_gamma
            return _build_anchor_losses(config, None, 1.0, focal, share)
        case ATSSConfig():
            return ATSSLosses(config, share)
        case GFLConfig():
            return GFLLosses(config, share)
        case RPNConfig():
            chosen = config.focal_alpha, config.focal_gamma
            focal_or_none = chosen if config.loss == "focal" else None
            return _build_anchor_losses(
                config, config.sampled, config.positive_fraction, focal_or_none, share
            )
        case _:
            assert_never(config)


PLAIN_DELTAS = (1.0, 1.0, 1.0, 1.0)  # weights of the deltas of anchors


def _build_anchor_losses(
    config: RetinaNetConfig | RPNConfig,
    sampled: int | None,
    positive_fraction: float,
    focal: tuple[float, float] | None,
    share: Share,
) -> AnchorLosses:
    rule = AnchorRule(
        positive_iou=config.positive_iou,
        negative_iou=config.negative_iou,
        sampled=sampled,
        positive_fraction=positive_fraction,
        focal=focal,
        smooth_l1_beta=config.smooth_l1_beta,
        classification_weight=config.classification_weight,
        regression_weight=config.regression_weight,
    )
    return AnchorLosses(AnchorDeltas(_shapes(config.anchors), PLAIN_DELTAS), rule, share)


def _shapes(anchors: AnchorConfig) -> AnchorShapes:
    return anchor_shapes(anchors.size, anchors.octave_scales, anchors.height_per_width)


def strides_of(levels: Levels) -> tuple[int, ...]:
    """Pixels per cell of pyramid levels: P3 has 8."""
    return tuple(2**level for level in levels)
