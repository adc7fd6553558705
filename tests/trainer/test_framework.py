"""The paper's framework: parts compose, Table 1's detectors, and its ablations as values."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields, is_dataclass, replace
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import pytest
import torch
from torch import Tensor

from cn2.trainer.build import build_detector
from cn2.trainer.config import Config, apply_overrides, config_from_dict, config_to_dict
from cn2.trainer.detector import AnyDetector
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
from cn2.trainer.structures import Target
from cn2.trainer.training_losses import DetectorLosses
from factories import TINY_HEIGHT, TINY_WIDTH, picture, shrunk, tiny_config
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


def two_pictures() -> tuple[Tensor, Tensor, list[Target]]:
    """Pictures, their sizes and objects: three, and none."""
    images = torch.from_numpy(np.stack([picture(seed=seed) for seed in range(2)]))
    sizes = torch.tensor([[TINY_HEIGHT, TINY_WIDTH], [TINY_HEIGHT - 9, TINY_WIDTH - 5]])
    boxes = torch.tensor([[10.0, 8, 50, 44], [60.5, 20, 90, 63], [2, 2, 12, 12]])
    targets = [
        Target(boxes=boxes, classes=torch.arange(3), seed=1),
        Target(boxes=boxes[:0], classes=torch.arange(0), seed=2),
    ]
    return images, sizes, targets


@torch.no_grad()
def losses_of(config: Config) -> dict[str, float]:
    """The losses of a fresh detector on two pictures, in which it finds something, too."""
    torch.manual_seed(0)
    detector = build_detector(config).train()
    losses = DetectorLosses(config.model)(detector, *two_pictures())
    assert all(loss.isfinite() for loss in losses.values())
    assert_infers(detector)
    return {name: loss.item() for name, loss in losses.items()}


def step(config: Config) -> dict[str, float]:
    """One step of gradient descent on two pictures, of which one is empty; the losses before."""
    torch.manual_seed(0)
    detector = build_detector(config).train()
    images, sizes, targets = two_pictures()
    optimiser = torch.optim.SGD(detector.parameters(), lr=1e-3)
    before = [parameter.clone() for parameter in detector.parameters()]
    losses = DetectorLosses(config.model)(detector, images, sizes, targets)
    total = torch.stack(list(losses.values())).sum()
    assert total.isfinite()
    total.backward()  # type: ignore[no-untyped-call]
    optimiser.step()
    after = list(detector.parameters())
    assert all(parameter.grad is not None for parameter in after)
    assert any(not torch.equal(a, b) for a, b in zip(before, after, strict=True))
    assert_infers(detector)
    return {name: loss.item() for name, loss in losses.items()}


@torch.no_grad()
def assert_infers(detector: AnyDetector) -> None:
    """It finds something finite in each of the two pictures."""
    images, sizes, _ = two_pictures()
    found = detector.eval()(images, sizes, torch.tensor(0.0))
    assert all(torch.isfinite(part).all() for part in found)
    assert (found.num_detections > 0).all()


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


Changes: TypeAlias = dict[str, Any]  # dotted path in the model to value


def proposals(count: int) -> tuple[Sequence[str], Changes]:
    path = "first_stage.test_filter.post_nms"
    return (f"model.{path}={count}",), {path: count}


def score_rule(rule: str) -> tuple[Sequence[str], Changes]:
    return (f"model.second_stage.score_rule={rule}",), {"second_stage.score_rule": rule}


RETINANET_RULE = (
    "model.first_stage.positive_iou=0.5",
    "model.first_stage.negative_iou=0.4",
    "model.first_stage.sampled=null",
    "model.first_stage.loss=focal",
    "model.first_stage.prior=0.01",
)
P3_P7 = (
    "model.neck.levels=[3,4,5,6,7]",
    "model.second_stage.levels=[3,4,5,6,7]",
    "model.first_stage.anchors.size=4",
)
P3_P7_CHANGES: Changes = {
    "neck.levels": (3, 4, 5, 6, 7),
    "second_stage.levels": (3, 4, 5, 6, 7),
}
# Per row of the paper: what is set, and what differs then from faster-rcnn-r50-fpn.
ABLATIONS: dict[str, tuple[Sequence[str], Changes]] = {
    "Table 4: P3-P7": (P3_P7, {**P3_P7_CHANGES, "first_stage.anchors.size": 4.0}),
    "Table 4: 256 proposals": proposals(256),
    "Table 4: 4-layer head": (("model.first_stage.convs=4",), {"first_stage.convs": 4}),
    "Table 4: loss": (
        RETINANET_RULE,
        {
            "first_stage.positive_iou": 0.5,
            "first_stage.negative_iou": 0.4,
            "first_stage.sampled": None,
            "first_stage.loss": "focal",
            "first_stage.prior": 0.01,
        },
    ),
    "Table 4: probability": score_rule("product"),
    "Table 5: without the joint score": (("model.second_stage.score_rule=class",), {}),  # as it is
    "Table 5: with it, as the code computes it": score_rule("sqrt"),
    "Table 6: 1000 proposals": (("model.first_stage.test_filter.post_nms=1000",), {}),  # as it is
    **{f"Table 6: {count} proposals": proposals(count) for count in (512, 256, 128, 64)},
    "Section 4: the larger bound": (
        ("model.background_bounds=larger",),
        {"background_bounds": "larger"},
    ),
    "another first stage": (
        ('model.first_stage={"kind": "atss"}', *P3_P7[:2]),
        {**P3_P7_CHANGES, "first_stage": ATSSConfig()},
    ),
}


@pytest.mark.parametrize("name", ABLATIONS)
def test_ablations_are_values(name: str) -> None:
    """What is named changes, nothing else does."""
    overrides, changes = ABLATIONS[name]
    plain = PRESETS["faster-rcnn-r50-fpn"]()
    config = apply_overrides(plain, overrides)
    assert differences(plain, config) == {f"model.{path}": new for path, new in changes.items()}
    with torch.device("meta"):
        build_detector(config)


def differences(old: Any, new: Any, path: str = "") -> dict[str, Any]:
    """Dotted paths of the fields that differ, and their new values."""
    if type(old) is not type(new) or not is_dataclass(old):
        return {} if old == new else {path: new}
    found: dict[str, Any] = {}
    for field in fields(old):
        inner = f"{path}.{field.name}" if path else field.name
        found |= differences(getattr(old, field.name), getattr(new, field.name), inner)
    return found


def test_table_4_from_rpn_to_retinanet() -> None:
    """All rows together make the likelihoods of RetinaNet's rule: a step of it."""
    rows = [
        value for name, (values, _) in ABLATIONS.items() if "Table 4" in name for value in values
    ]
    config = shrunk(apply_overrides(PRESETS["faster-rcnn-r50-fpn"](), rows))
    assert step(config)["anchors"] > 0


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
