"""The official models in our classes: fixtures, parameter names, and the fixtures' weights."""

from __future__ import annotations

import importlib.util
import json
import tempfile
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from cn2.trainer.checkpoint import load_checkpoint, read_tensors
from cn2.trainer.config import Config
from cn2.trainer.convert.names import translate
from cn2.trainer.convert.run import Request, convert
from cn2.trainer.detector import TwoStageDetector
from cn2.trainer.presets import PRESETS

FIXTURES = {  # fixture -> preset
    "CenterNet2_DLA-BiFPN-P3_4x": "dla34-bifpn-p3",
    "CenterNet2_DLA-BiFPN-P5_640_16x_ST": "dla34-bifpn-p5",
    "CenterNet2_R50_1x": "r50-fpn",
}


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
    """Our detector with the fixture's weights, converted as a user would; in training mode."""
    detector, _, _ = load_checkpoint(converted(shared, fixture))
    return detector.train()


def converted(shared: Path, fixture: Fixture) -> Path:
    """The fixture's weights through `cn2 convert`, once in a session of tests; all are compared."""
    path = Path(_converted_folder().name) / f"{fixture.name}.safetensors"
    if not path.exists():
        weights = fixture_weights(shared, fixture)
        official = path.with_suffix(".pth")
        torch.save({"model": {name: torch.from_numpy(v) for name, v in weights.items()}}, official)
        convert(Request(source=official, out=path, preset=FIXTURES[fixture.name]))
        official.unlink()
        require_same(path, weights, len(fixture.config.model.neck.levels))
    return path


def require_same(path: Path, weights: dict[str, NDArray[Any]], levels: int) -> None:
    """Assert that a converted file holds just these official tensors, under our names."""
    tensors = {name: torch.from_numpy(value) for name, value in weights.items()}
    expected = translate({n: v for n, v in tensors.items() if not n.startswith("pixel_")}, levels)
    found, _ = read_tensors(path)
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        assert found[name].dtype == value.dtype
        assert torch.equal(found[name], value), name


@cache
def _converted_folder() -> tempfile.TemporaryDirectory[str]:
    """Goes when Python ends."""
    return tempfile.TemporaryDirectory(prefix="cn2-converted-")
