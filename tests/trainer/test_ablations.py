"""The paper's ablations from Faster R-CNN on are values of the config, one field each or a few."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields, is_dataclass
from typing import Any, TypeAlias

import pytest
import torch

from cn2.trainer.build import build_detector
from cn2.trainer.config import apply_overrides
from cn2.trainer.model_config import ATSSConfig
from cn2.trainer.presets import PRESETS
from factories import shrunk
from framework_steps import step

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
