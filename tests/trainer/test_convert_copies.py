"""One detector out of a file with several copies: wrappers' prefixes, running means (EMA)."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from cn2.trainer.convert.run import Conversion
from thin_checkpoints import R50, State, planned, refused, thin_state


@pytest.fixture
def state(shared: Path) -> State:
    return thin_state(shared, R50)


def averaged(state: State) -> State:
    return {name: torch.full((1,), 0.25).expand(value.shape) for name, value in state.items()}


def under(prefix: str, state: State) -> State:
    return {f"{prefix}{name}": value for name, value in state.items()}


def first_number(found: Conversion) -> float:
    return float(found.fit.tensors["neck.lateral.0.weight"].mean())


@pytest.mark.parametrize("prefix", ["module.", "model.", "module.model.", "net.detector."])
def test_the_prefix_of_a_wrapper(prefix: str, state: State, tmp_path: Path) -> None:
    bare = {"pixel_mean": torch.tensor([103.53, 116.28, 123.675]).reshape(3, 1, 1)}
    found = planned(tmp_path, {"state_dict": under(prefix, state) | bare})
    assert sorted(found.fit.used) == sorted(state)
    assert (found.fit.not_needed, found.fit.left_over) == (("pixel_mean",), ())
    assert (found.read.used, found.read.other) == ("state_dict", "")


@pytest.mark.parametrize(
    ("own", "mean"),
    [
        ("modelStudent.", "modelTeacher."),
        ("", "ema."),
        ("model.", "model_ema."),
        ("module.", "module.ema."),
    ],
)
def test_a_mean_of_the_weights_in_the_same_table(
    own: str, mean: str, state: State, tmp_path: Path
) -> None:
    table = under(own, state) | under(mean, averaged(state))
    plain, other = planned(tmp_path, table), planned(tmp_path, table, ema=True)
    assert (first_number(plain), first_number(other)) == (0.5, 0.25)
    assert sorted(plain.fit.used) == sorted(other.fit.used) == sorted(state)
    assert plain.fit.left_over == other.fit.left_over == ()
    assert (plain.read.averaged, other.read.averaged) == (False, True)
    assert plain.read.other == other.read.used
    assert mean.rstrip(".").endswith(plain.read.other)  # without what all names have


def test_two_detectors_of_a_kind_in_a_table(state: State, tmp_path: Path) -> None:
    line = refused(tmp_path, under("a.", state) | under("b.", state))
    assert "expected one detector, got those under 'a.', 'b.'; save one alone" in line


@pytest.mark.parametrize("key", ["EMA", "Model_EMA", "ema_state"])
def test_keys_of_a_mean_in_any_case_and_deeper(key: str, state: State, tmp_path: Path) -> None:
    content = {"model": state, key: {"state": averaged(state)}}
    found = planned(tmp_path, content, ema=True)
    assert first_number(found) == 0.25
    assert found.read.used == f"{key}.state"


def test_a_wrapper_and_a_mean_of_the_weights(state: State, tmp_path: Path) -> None:
    mean = {name: torch.full((1,), 0.25).expand(v.shape) for name, v in state.items()}
    both = {"model": {f"module.{n}": v for n, v in state.items()}, "ema_state": {"module": mean}}
    name = "neck.lateral.0.weight"
    plain, averaged = planned(tmp_path, both), planned(tmp_path, both, ema=True)
    assert float(plain.fit.tensors[name].mean()) == 0.5
    assert (plain.read.used, plain.read.other) == ("model", "ema_state.module")
    assert float(averaged.fit.tensors[name].mean()) == 0.25
    assert (averaged.read.used, averaged.read.other) == ("ema_state.module", "model")
    assert "averaged by EMA, found none" in refused(tmp_path, state, ema=True)
    only = planned(tmp_path, {"ema": mean})
    assert (only.read.used, only.read.other) == ("ema", "")
