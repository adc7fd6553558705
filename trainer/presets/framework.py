"""The paper's Table 1 on ResNet-50, but for CenterNet's rows, which are presets of their own.

Source: arXiv 2103.07461, Sec. 4 and 5; what it leaves to the detectors it builds on is theirs:
arXiv 1708.02002 (RetinaNet), 1912.02424 (ATSS), 2006.04388 (GFL), and detectron2's defaults for
Faster and Cascade R-CNN.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial

from ..config import Config
from ..model_config import (
    ATSSConfig,
    CascadeRCNNConfig,
    FirstStage,
    FPNConfig,
    GFLConfig,
    ProposalFilter,
    RetinaNetConfig,
    RPNConfig,
)
from .resnet import r50_fpn

ALONE: dict[str, FirstStage] = {
    "retinanet": RetinaNetConfig(
        merged=False,
        objectness_floor=0.05,
        test_filter=ProposalFilter(pre_nms=1000, post_nms=100, nms_iou=0.5),
    ),
    "atss": ATSSConfig(
        merged=False,
        objectness_floor=0.05,
        test_filter=ProposalFilter(pre_nms=1000, post_nms=100, nms_iou=0.6),
    ),
    "gfl": GFLConfig(
        merged=False,
        largest_distance=16,
        objectness_floor=0.05,
        test_filter=ProposalFilter(pre_nms=1000, post_nms=100, nms_iou=0.6),
    ),
}
BEFORE: dict[str, FirstStage] = {
    "retinanet": RetinaNetConfig(),
    "atss": ATSSConfig(),
    "gfl": GFLConfig(),
}
LEVELS = (3, 4, 5, 6, 7)
RPN_LEVELS = (2, 3, 4, 5, 6)
PLAIN_WEIGHTS = (10.0, 10.0, 5.0, 5.0)


def one_stage(name: str) -> Config:
    """RetinaNet, ATSS or GFL as it is: a likelihood for each class, no second stage."""
    base = r50_fpn()
    return replace(
        base,
        preset=f"{name}-r50-fpn",
        model=replace(base.model, first_stage=ALONE[name], second_stage=None),
        train=replace(base.train, base_lr=0.01),
    )


def probabilistic(name: str, second: str) -> Config:
    """The same class-agnostic, with merged towers, before Faster or Cascade R-CNN."""
    base = r50_fpn()
    stages = {
        "faster": CascadeRCNNConfig(levels=LEVELS, ious=(0.6,), delta_weights=(PLAIN_WEIGHTS,)),
        "cascade": CascadeRCNNConfig(levels=LEVELS),
    }
    model = replace(base.model, first_stage=BEFORE[name], second_stage=stages[second])
    return replace(base, preset=f"{name}-r50-fpn-{second}", model=model)


def faster_rcnn_r50_fpn() -> Config:
    """Faster R-CNN: RPN on P2-P6, 1000 proposals, a box for each class, no joint score."""
    second_stage = CascadeRCNNConfig(
        levels=RPN_LEVELS[:-1],
        ious=(0.5,),
        delta_weights=(PLAIN_WEIGHTS,),
        per_class_boxes=True,
        score_rule="class",
        nms_iou=0.5,
    )
    return _behind_rpn("faster-rcnn-r50-fpn", second_stage)


def cascade_rcnn_r50_fpn() -> Config:
    """Cascade R-CNN: the same proposals, three stages, one box for all classes."""
    second_stage = CascadeRCNNConfig(
        levels=RPN_LEVELS[:-1], ious=(0.5, 0.6, 0.7), score_rule="class", nms_iou=0.5
    )
    return _behind_rpn("cascade-rcnn-r50-fpn", second_stage)


def _behind_rpn(preset: str, second_stage: CascadeRCNNConfig) -> Config:
    base = r50_fpn()
    model = replace(
        base.model,
        neck=FPNConfig(levels=RPN_LEVELS, channels=256, coarser="subsampling"),
        first_stage=RPNConfig(),
        second_stage=second_stage,
    )
    return replace(base, preset=preset, model=model)


def _table() -> dict[str, Callable[[], Config]]:
    """Each one-stage detector alone and with each second stage, then the two with an RPN."""
    presets: dict[str, Callable[[], Config]] = {}
    for name in ALONE:
        presets[f"{name}-r50-fpn"] = partial(one_stage, name)
        for second in ("faster", "cascade"):
            presets[f"{name}-r50-fpn-{second}"] = partial(probabilistic, name, second)
    presets["faster-rcnn-r50-fpn"] = faster_rcnn_r50_fpn
    presets["cascade-rcnn-r50-fpn"] = cascade_rcnn_r50_fpn
    return presets


FRAMEWORK_PRESETS = _table()
