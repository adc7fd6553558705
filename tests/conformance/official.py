"""The official models in our classes: fixtures, parameter names, and the fixtures' weights."""

from __future__ import annotations

import importlib.util
import json
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor

from cn2.trainer.build import build_detector
from cn2.trainer.config import Config
from cn2.trainer.convert.names import translate
from cn2.trainer.detector import TwoStageDetector
from cn2.trainer.presets import PRESETS

FIXTURES = {  # fixture -> preset
    "CenterNet2_DLA-BiFPN-P3_4x": "dla34-bifpn-p3",
    "CenterNet2_DLA-BiFPN-P5_640_16x_ST": "dla34-bifpn-p5",
    "CenterNet2_R50_1x": "r50-fpn",
    "CenterNet2_X101-DCN_2x": "x101-dcn-fpn",
    "CenterNet2_R2-101-DCN-BiFPN_1280_4x": "r2-101-dcn-bifpn-1280",
}


# Their exports and training steps take minutes.
HEAVY = ("CenterNet2_X101-DCN_2x", "CenterNet2_R2-101-DCN-BiFPN_1280_4x")
# All of them, the heavy ones for `make test-all` only.
SLOW_HEAVY = [
    pytest.param(name, marks=pytest.mark.slow) if name in HEAVY else name for name in FIXTURES
]


@dataclass(frozen=True)
class Fixture:
    """One official model's numbers."""

    name: str
    facts: dict[str, Any]  # the json
    arrays: dict[str, NDArray[Any]]  # the npz

    @property
    def config(self) -> Config:
        """Our preset of the same model."""
        return PRESETS[FIXTURES[self.name]]()


def load_fixture(shared: Path, name: str) -> Fixture:
    """Read one pair of files of the shared conformance folder."""
    folder = shared / "conformance"
    facts = json.loads((folder / f"{name}.json").read_text())
    with np.load(folder / f"{name}.npz") as arrays:
        return Fixture(name, facts, dict(arrays))


def fixture_weights(shared: Path, fixture: Fixture) -> dict[str, NDArray[Any]]:
    """The fixture's weights under their official names, filled as FILL_WEIGHTS.md says."""
    spec = {name: (shape, dtype) for name, shape, dtype in fixture.facts["state_dict"]}
    overrides = {
        name.removeprefix("override/"): value
        for name, value in fixture.arrays.items()
        if name.startswith("override/")
    }
    weights: dict[str, NDArray[Any]] = _fill_weights(shared).fill(
        fixture.facts["seed"], spec, overrides, fixture.facts["scales"]
    )
    return weights


def _fill_weights(shared: Path) -> ModuleType:
    path = shared / "conformance" / "fill_weights.py"
    spec = importlib.util.spec_from_file_location("fill_weights", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def build_official(shared: Path, fixture: Fixture) -> TwoStageDetector:
    """Our detector with the fixture's weights, in training mode as built."""
    config = fixture.config
    detector = build_detector(config)
    weights = {
        name: torch.from_numpy(value) for name, value in fixture_weights(shared, fixture).items()
    }
    state = translate(weights, len(config.model.neck.levels))
    detector.load_state_dict(state, strict=True)
    return detector


def assert_summary(fixture: Fixture, name: str, value: Tensor, atol: float) -> None:
    """Compare a tensor with the fixture's summary of it: shape, statistics, two samples."""
    expected = {key: fixture.arrays[f"{name}/{key}"] for key in ("shape", "stats", "first64")}
    assert tuple(value.shape) == tuple(expected["shape"]), name
    flat = value.detach().double().flatten().numpy()
    stats = [flat.mean(), flat.std(), flat.min(), flat.max()]
    np.testing.assert_allclose(stats, expected["stats"], atol=atol, rtol=0, err_msg=name)
    np.testing.assert_allclose(flat[:64], expected["first64"], atol=atol, rtol=0, err_msg=name)
    spread = flat[np.linspace(0, flat.size - 1, 256).astype(np.int64)]
    np.testing.assert_allclose(
        spread, fixture.arrays[f"{name}/spread256"], atol=atol, rtol=0, err_msg=name
    )
