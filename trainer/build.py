"""From a config to a detector: with build_first_stage.py all that chooses between parts."""

from __future__ import annotations

from typing import assert_never

import torch
from torch import nn

from .backbones import frozen
from .backbones.dla import DLA34
from .backbones.efficientnet_lite import EfficientNetLite
from .backbones.nano import NanoBackbone
from .backbones.res2net import Res2Net
from .backbones.resnet import ResNet
from .build_first_stage import build_class_stage, build_proposal_stage, strides_of
from .config import Config, InputConfig
from .detector import AnyDetector, Normalizer, OneStageDetector, TwoStageDetector
from .layers import set_prior
from .model_config import (
    Backbone,
    BiFPNConfig,
    CascadeRCNNConfig,
    DLAConfig,
    DLAUpConfig,
    EfficientNetLiteConfig,
    FPNConfig,
    NanoConfig,
    Neck,
    Res2NetConfig,
    ResNetConfig,
)
from .necks.bifpn import BiFPN
from .necks.dla_up import DLAUp
from .necks.fpn import FPN
from .second_stage.cascade import CascadeRCNN, CascadeStage, Pooling, Selection

P2 = 2  # the level of a backbone's finest feature, stride 4


def build_detector(config: Config) -> AnyDetector:
    """A detector with fresh weights, in training mode; seed torch before for the same weights."""
    model, classes = config.model, len(config.class_names)
    preprocess = build_normalizer(config.input)
    backbone = build_backbone(model.backbone)
    neck = build_neck(model.neck, backbone.channels)
    pyramid = model.neck.levels, model.neck.channels
    if model.second_stage is None:
        return OneStageDetector(
            preprocess=preprocess,
            backbone=backbone,
            neck=neck,
            first_stage=build_class_stage(model.first_stage, *pyramid, classes),
            test_filter=model.first_stage.test_filter,
        )
    return TwoStageDetector(
        preprocess=preprocess,
        backbone=backbone,
        neck=neck,
        first_stage=build_proposal_stage(model.first_stage, *pyramid),
        second_stage=build_second_stage(model.second_stage, *pyramid, classes),
        test_filter=model.first_stage.test_filter,
    )


def build_normalizer(config: InputConfig) -> Normalizer:
    """The step from grey levels to the network's input."""
    return Normalizer(config.color_order, config.pixel_mean, config.pixel_std)


def build_backbone(config: Backbone) -> frozen.Backbone:
    """A backbone; its `channels` are those of its features at strides 4, 8, 16, 32."""
    match config:
        case NanoConfig():
            return NanoBackbone(config.widths, config.hidden, config.blocks, config.frozen_stages)
        case DLAConfig():
            return DLA34(config.frozen_stages)
        case ResNetConfig():
            return ResNet(
                config.depth,
                config.frozen_stages,
                config.stride_in,
                groups=config.groups,
                group_width=config.group_width,
                deformable_stages=config.deformable_stages,
            )
        case Res2NetConfig():
            return Res2Net(
                config.depth,
                config.frozen_stages,
                splits=config.splits,
                split_width=config.split_width,
                deformable_stages=config.deformable_stages,
            )
        case EfficientNetLiteConfig():
            return EfficientNetLite(config.frozen_stages)
        case _:
            assert_never(config)


def build_neck(config: Neck, channels: tuple[int, ...]) -> nn.Module:
    """The pyramid over the backbone features of its own finest level and above.

    Args:
        config: of the neck.
        channels: of the backbone's features, P2 and above.
    Raises:
        ValueError: the neck has no way to its number of channels.
    """
    inputs = channels[config.levels[0] - P2 :]
    match config:
        case FPNConfig():
            return FPN(
                inputs,
                config.channels,
                len(config.levels),
                subsample=config.coarser == "subsampling",
            )
        case BiFPNConfig():
            return BiFPN(
                inputs,
                config.channels,
                levels=len(config.levels),
                repeats=config.repeats,
                norm_groups=config.norm_groups,
                flavour=config.flavour,
            )
        case DLAUpConfig():
            if config.channels != inputs[0]:
                raise ValueError(
                    f"neck.channels: expected {inputs[0]}, what the backbone has at level "
                    f"P{config.levels[0]}, got {config.channels}"
                )
            return DLAUp(inputs)
        case _:
            assert_never(config)


def build_second_stage(
    config: CascadeRCNNConfig, levels: tuple[int, ...], channels: int, classes: int
) -> CascadeRCNN:
    """The cascade over pyramid levels of these numbers and channels."""
    pooled = channels * config.pool_size**2
    stages = [
        CascadeStage(
            pooled, config.fc_channels, classes, weights, per_class_boxes=config.per_class_boxes
        )
        for weights in config.delta_weights
    ]
    pooling = Pooling(
        levels=tuple(levels.index(level) for level in config.levels),
        strides=strides_of(config.levels),
        canonical_level=config.canonical_level,
        canonical_size=config.canonical_size,
        output_size=config.pool_size,
        sampling_ratio=config.sampling_ratio,
    )
    selection = Selection(
        config.score_rule, config.score_threshold, config.nms_iou, config.detections
    )
    if config.classifier == "sigmoid":
        for stage in stages:
            set_prior(stage.class_logits, config.class_prior)
    freq_weight = None if config.federated is None else torch.ones(classes)
    return CascadeRCNN(stages, pooling, selection, config.classifier, freq_weight)
