"""The paper's framework: parts compose, and Table 1's detectors; ablations: test_ablations.py."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from cn2.trainer.build import build_detector
from cn2.trainer.config import Config, config_from_dict, config_to_dict
from cn2.trainer.model_config import (
    ATSSConfig,
    BiFPNConfig,
    CascadeRCNNConfig,
    CenterNetConfig,
    DLAUpConfig,
    FirstStage,
    FPNConfig,
    GFLConfig,
    Neck,
    ProposalFilter,
    RetinaNetConfig,
    RPNConfig,
)
from cn2.trainer.presets import PRESETS
from cn2.trainer.training_losses import DetectorLosses
from factories import shrunk, tiny_config
from framework_steps import losses_of, step, two_pictures
from reference import parameters_reference as parameters

KEEP: dict[str, Any] = {
    "test_filter": ProposalFilter(pre_nms=20, post_nms=8),
    "train_filter": ProposalFilter(pre_nms=20, post_nms=8),
}
RANGE = (0.0, 1e6)
FIRST_STAGES: dict[str, FirstStage] = {
    "centernet": CenterNetConfig(sizes_of_interest=(RANGE,), convs=1, norm_groups=2, **KEEP),
    "retinanet": RetinaNetConfig(convs=1, **KEEP),
    "atss": ATSSConfig(convs=1, norm_groups=2, **KEEP),
    "gfl": GFLConfig(convs=1, norm_groups=2, **KEEP),
    "gfl-distributions": GFLConfig(convs=1, norm_groups=2, largest_distance=4, **KEEP),
    "rpn": RPNConfig(**KEEP),
}
BIFPN: dict[str, Any] = {"levels": (3, 4, 5), "channels": 8, "repeats": 1, "norm_groups": 2}
NECKS: dict[str, Neck] = {
    "fpn": FPNConfig(levels=(3, 4, 5), channels=8),
    "fpn-p2-p6": FPNConfig(levels=(2, 3, 4, 5, 6), channels=8, coarser="subsampling"),
    "bifpn": BiFPNConfig(flavour="efficientdet", **BIFPN),
    "bifpn-fcos": BiFPNConfig(flavour="fcos", **BIFPN),
    "dla-up": DLAUpConfig(levels=(2,), channels=8),
}
ONE = ((10.0, 10.0, 5.0, 5.0),)
SMALL: dict[str, Any] = {"fc_channels": (8,), "canonical_size": 64.0, "rois_per_image": 8}
SECOND_STAGES: dict[str, dict[str, Any] | None] = {
    "none": None,
    "faster": {"ious": (0.6,), "delta_weights": ONE},
    "faster-per-class": {
        "ious": (0.5,), "delta_weights": ONE, "per_class_boxes": True, "score_rule": "class"
    },
    "cascade": {},
}  # fmt: skip


def composed(first: str, second: str, neck: str) -> Config:
    levels = NECKS[neck].levels
    first_stage, extra = FIRST_STAGES[first], SECOND_STAGES[second]
    if isinstance(first_stage, CenterNetConfig):
        first_stage = replace(first_stage, sizes_of_interest=(RANGE,) * len(levels))
    second_stage = None
    if extra is not None:
        second_stage = CascadeRCNNConfig(levels=levels, **SMALL, **extra)
    config = tiny_config()
    model = replace(
        config.model, neck=NECKS[neck], first_stage=first_stage, second_stage=second_stage
    )
    return replace(config, model=model)


@pytest.mark.parametrize("neck", NECKS)
@pytest.mark.parametrize("first", FIRST_STAGES)
def test_every_part_goes_with_every_other(first: str, neck: str) -> None:
    """No part knows another's name: each first stage before each second, on each neck.

    A whole step with the cascade; with the others losses and inference, which are quick.
    """
    for second in SECOND_STAGES:
        if first == "rpn" and second == "none":
            continue
        config = composed(first, second, neck)
        losses = step(config) if second == "cascade" else losses_of(config)
        stages = len(config.model.second_stage.ious) if config.model.second_stage else 0
        assert sum(name.startswith("class_") for name in losses) == stages
        assert config_from_dict(config_to_dict(config)) == config


def test_an_rpn_knows_no_classes() -> None:
    with pytest.raises(ValueError, match="second_stage: expected one behind an rpn"):
        composed("rpn", "none", "fpn")


def test_boxes_per_class_are_of_the_last_stage() -> None:
    with pytest.raises(ValueError, match=r"per_class_boxes: expected one stage, got 3"):
        CascadeRCNNConfig(levels=(3,), per_class_boxes=True)


# Table 1 of the paper: first stage, classes of its likelihoods, box heads; the two with RPN last.
TABLE_1 = {
    "retinanet-r50-fpn": ("retinanet", 80, 0),
    "retinanet-r50-fpn-faster": ("retinanet", 1, 1),
    "retinanet-r50-fpn-cascade": ("retinanet", 1, 3),
    "gfl-r50-fpn": ("gfl", 80, 0),
    "gfl-r50-fpn-faster": ("gfl", 1, 1),
    "gfl-r50-fpn-cascade": ("gfl", 1, 3),
    "atss-r50-fpn": ("atss", 80, 0),
    "atss-r50-fpn-faster": ("atss", 1, 1),
    "atss-r50-fpn-cascade": ("atss", 1, 3),
    "centernet-r50-fpn": ("centernet", 80, 0),
    "r50-fpn-faster": ("centernet", 1, 1),
    "r50-fpn": ("centernet", 1, 3),
    "faster-rcnn-r50-fpn": ("rpn", 1, 1),
    "cascade-rcnn-r50-fpn": ("rpn", 1, 3),
}


@pytest.mark.parametrize("name", TABLE_1)
def test_parameters_follow_from_the_layers(name: str) -> None:
    kind, classes, heads = TABLE_1[name]
    with torch.device("meta"):
        detector = build_detector(PRESETS[name]())
    neck = parameters.P2_P6 if kind == "rpn" else parameters.P3_P7
    boxes = 80 if name == "faster-rcnn-r50-fpn" else 1
    expected = {
        "backbone": parameters.resnet50(),
        "neck": neck,
        "first_stage": parameters.first_stage(kind, classes),
        "second_stage": heads * parameters.box_head(80, boxes),
    }
    for part, count in expected.items():
        if count:
            assert sum(p.numel() for p in getattr(detector, part).parameters()) == count, part
    assert sum(p.numel() for p in detector.parameters()) == sum(expected.values())


@pytest.mark.parametrize("name", TABLE_1)
def test_settings_are_the_papers(name: str) -> None:
    kind, _, heads = TABLE_1[name]
    model = PRESETS[name]().model
    assert model.first_stage.kind == kind
    assert (model.second_stage is None) == (heads == 0)
    if model.second_stage is None:
        assert PRESETS[name]().train.base_lr == 0.01
        assert_settings_of_one_stage(model.first_stage)
        return
    rivals = kind == "rpn"
    assert getattr(model.first_stage, "merged", True)
    assert getattr(model.first_stage, "largest_distance", None) is None
    assert model.first_stage.test_filter.nms_iou == (0.7 if rivals else 0.9)
    assert model.second_stage.per_class_boxes == (name == "faster-rcnn-r50-fpn")
    assert model.neck.levels == ((2, 3, 4, 5, 6) if rivals else (3, 4, 5, 6, 7))
    assert model.first_stage.test_filter.post_nms == (1000 if rivals else 256)
    assert model.second_stage.nms_iou == (0.5 if rivals else 0.7)
    assert model.second_stage.score_rule == ("class" if rivals else "sqrt")
    expected = {1: (0.5,), 3: (0.5, 0.6, 0.7)} if rivals else {1: (0.6,), 3: (0.6, 0.7, 0.8)}
    assert model.second_stage.ious == expected[heads]


def assert_settings_of_one_stage(first_stage: FirstStage) -> None:
    """Two towers; what is kept of their detections; GFL's distributions over 0..16 strides."""
    keep = first_stage.test_filter
    assert keep.nms_iou == (0.5 if first_stage.kind == "retinanet" else 0.6)
    assert (keep.pre_nms, keep.post_nms) == (1000, 100)
    assert first_stage.objectness_floor == 0.05
    if first_stage.kind == "centernet":
        assert (first_stage.convs, first_stage.class_convs) == (4, 4)
        return
    assert not first_stage.merged
    assert first_stage.convs == 4
    if first_stage.kind == "gfl":
        assert first_stage.largest_distance == 16


@pytest.mark.parametrize("name", TABLE_1)
def test_one_step_of_each_detector(name: str) -> None:
    losses = step(shrunk(PRESETS[name]()))
    assert all(loss >= 0 for loss in losses.values())


@pytest.mark.parametrize("name", ["atss-r50-fpn-faster", "faster-rcnn-r50-fpn"])
def test_a_short_overfit(name: str) -> None:
    """Sixty steps on the same two pictures more than halve what is trained."""
    config = shrunk(PRESETS[name]())
    torch.manual_seed(0)
    detector = build_detector(config).train()
    images, sizes, targets = two_pictures()
    optimiser = torch.optim.SGD(detector.parameters(), lr=0.02, momentum=0.9)
    losses = DetectorLosses(config.model)
    totals = []
    for _ in range(60):
        total = torch.stack(list(losses(detector, images, sizes, targets).values())).sum()
        optimiser.zero_grad()
        total.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(detector.parameters(), 5.0)
        optimiser.step()
        totals.append(total.item())
    assert sum(totals[-5:]) / 5 < totals[0] / 2


ROOT = Path(__file__).resolve().parents[2]
ALWAYS = {  # what every first stage has to touch; CONTRIBUTING.md names them
    "trainer/build_first_stage.py",
    "trainer/commands.py",
    "trainer/first_stage_config.py",
    "trainer/model_config.py",
    "trainer/presets/framework.py",
}
OWN = {
    "atss": {"trainer/first_stage_losses/atss.py", "trainer/first_stage/atss.py"}
    | {"trainer/targets/adaptive.py"},
    "gfl": {"trainer/first_stage_losses/gfl.py", "trainer/first_stage/gfl.py"}
    | {"trainer/dense_losses.py", "trainer/first_stage/coding.py"},
}


@pytest.mark.parametrize("name", OWN)
def test_a_first_stage_is_known_to_few_files(name: str) -> None:
    folders = [ROOT / folder for folder in ("trainer", "export", "runtime")]
    files = [path for folder in folders for path in folder.rglob("*.py")]
    assert len(files) > 200
    knowing = [path for path in files if name in path.read_text("utf-8").lower()]
    assert {str(path.relative_to(ROOT)) for path in knowing} == ALWAYS | OWN[name]
    page = (ROOT / "CONTRIBUTING.md").read_text("utf-8")
    text = page.partition("**A first stage**")[2].partition("- **A backend**")[0]
    for path in ALWAYS | OWN[name]:
        assert any(part in text for part in (f"`{path}`", f"`{Path(path).parent}/`")), path
