"""Configs from outside are read strictly, and what is wrong is named."""

from __future__ import annotations

import copy
import json
from dataclasses import replace
from typing import Any

import pytest

from cn2.trainer.config import apply_overrides, config_from_dict, config_to_dict, with_classes
from cn2.trainer.presets import PRESETS
from factories import tiny_config


@pytest.mark.parametrize("name", PRESETS)
def test_round_trip_through_json(name: str) -> None:
    config = PRESETS[name]()
    assert config_from_dict(json.loads(json.dumps(config_to_dict(config)))) == config


def changed(path: str, value: Any) -> dict[str, Any]:
    values = copy.deepcopy(config_to_dict(tiny_config()))
    *parents, last = path.split(".")
    table = values
    for key in parents:
        table = table[key]
    table[last] = value
    return values


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        ("presett", "x", "presett: unknown key; did you mean preset?"),
        ("train.bas_lr", 1, "train.bas_lr: unknown key; did you mean base_lr?"),
        ("model.backbone.width", [1], "model.backbone.width: unknown key; did you mean widths?"),
        (
            "model.first_stage.test_filter.pre",
            3,
            "model.first_stage.test_filter.pre: unknown key; did you mean pre_nms?",
        ),
        ("model.backbone.depth", 34, "model.backbone.depth: unknown key; expected one of blocks"),
        ("train.batch", 1.5, "train.batch: Input should be a valid integer"),
        ("train.batch", "16", "train.batch: Input should be a valid integer"),
        ("train.base_lr", None, "train.base_lr: Input should be a valid number"),
        ("input.interpolation", "cubic", "input.interpolation: Input should be"),
        ("model.neck.kind", "pafpn", "model.neck: Input tag 'pafpn' found"),
        ("model.second_stage.ious", [0.5], "cascade: expected as many delta_weights as ious"),
        ("model.second_stage.levels", [3, 6], "second_stage.levels: expected some of (3, 4, 5)"),
        ("model.neck.levels", [3, 4], "first_stage.sizes_of_interest: expected one per level"),
        (
            "model.backbone.frozen_stages",
            6,
            "model.backbone.frozen_stages: Input should be less than or equal to 5, got 6",
        ),
        ("category_ids", [1], "category_ids: expected one per class (3), got 1"),
    ],
)
def test_what_is_wrong_is_named(path: str, value: Any, message: str) -> None:
    with pytest.raises(ValueError) as error:
        config_from_dict(changed(path, value))
    assert str(error.value).startswith(message)
    assert "\n" not in str(error.value)


def test_a_missing_key_is_named() -> None:
    values = config_to_dict(tiny_config())
    del values["input"]["divisor"]
    with pytest.raises(ValueError, match=r"^input\.divisor: expected a value, got none$"):
        config_from_dict(values)


@pytest.mark.parametrize("name", ["dla34-bifpn-p3", "r50-fpn", "nano"])
def test_configs_from_before_frozen_stages_and_strides(name: str) -> None:
    values = config_to_dict(PRESETS[name]())
    for key in ("frozen_stages", "stride_in"):
        values["model"]["backbone"].pop(key, None)
    assert config_from_dict(values) == PRESETS[name]()


def test_overrides() -> None:
    config = tiny_config()
    overridden = apply_overrides(
        config,
        ["train.base_lr=0.5", "train.schedule=cosine", "train.resize.largest=128", "preset=mine"],
    )
    assert overridden.train.base_lr == 0.5
    assert overridden.train.schedule == "cosine"
    assert overridden.train.resize == replace(config.train.resize, largest=128)
    assert overridden.preset == "mine"
    assert overridden.model == config.model
    assert apply_overrides(config, []) == config


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("train.base_lr", "train.base_lr: expected key.path=value, got no '='"),
        ("train.bas_lr=1", "train.bas_lr: unknown key; did you mean base_lr?"),
        ("trian.base_lr=1", "trian: unknown key; did you mean train?"),
        ("train.batch.x=1", "train.batch.x: expected a key of a group of settings"),
        ("train.batch=many", "train.batch: Input should be a valid integer, got 'many'"),
    ],
)
def test_wrong_overrides(override: str, message: str) -> None:
    with pytest.raises(ValueError) as error:
        apply_overrides(tiny_config(), [override])
    assert str(error.value).startswith(message)


def test_a_second_stage_can_be_left_out() -> None:
    override = ["model.second_stage=null", "model.first_stage.objectness_floor=0.05"]
    config = apply_overrides(tiny_config(), override)
    assert config.model.limits == (0.05, 0.9, 16)  # of the first stage's test filter
    assert config_from_dict(config_to_dict(config)) == config
    with pytest.raises(ValueError, match=r"^model\.second_stage\.detections: expected a key of a"):
        apply_overrides(config, ["model.second_stage.detections=5"])


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        (
            "model.second_stage.federated",
            {"clases": 3},
            "model.second_stage.federated.clases: unknown key; did you mean classes?",
        ),
        (
            "model.first_stage.extra_positives",
            {"rank": 10},
            "model.first_stage.extra_positives.rank: Input should be less than or equal to 9",
        ),
        ("model.second_stage.classifier", "sigmoids", "model.second_stage.classifier: Input"),
    ],
)
def test_what_is_wrong_in_optional_groups_is_named(path: str, value: Any, message: str) -> None:
    values = config_to_dict(tiny_config())
    *parents, last = path.split(".")
    table = values
    for key in parents:
        table = table[key]
    table[last] = value
    with pytest.raises(ValueError) as error:
        config_from_dict(values)
    assert str(error.value).startswith(message)


def test_with_classes() -> None:
    config = with_classes(tiny_config(), ["cat", "dog"], [17, 18])
    assert (config.class_names, config.category_ids) == (("cat", "dog"), (17, 18))
    with pytest.raises(ValueError, match="expected at least one class"):
        with_classes(tiny_config(), [], [])
