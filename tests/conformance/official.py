"""The official models in our classes: fixtures, parameter names, and the fixtures' weights."""

from __future__ import annotations

import importlib.util
import json
import tempfile
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor

from cn2.trainer.checkpoint import load_checkpoint, read_tensors
from cn2.trainer.config import Config
from cn2.trainer.convert.names import LEVEL_SCALE, UNUSED, our_name
from cn2.trainer.convert.run import Request, convert
from cn2.trainer.detector import AnyDetector
from cn2.trainer.presets import PRESETS

FIXTURES = {  # fixture -> preset
    "CenterNet2_DLA-BiFPN-P3_4x": "dla34-bifpn-p3",
    "CenterNet2_DLA-BiFPN-P5_640_16x_ST": "dla34-bifpn-p5",
    "CenterNet2_R50_1x": "r50-fpn",
    "CenterNet2_X101-DCN_2x": "x101-dcn-fpn",
    "CenterNet2_R2-101-DCN-BiFPN_1280_4x": "r2-101-dcn-bifpn-1280",
    "CenterNet2-F_R50_1x": "r50-fpn-faster",
    "CenterNet-FPN_R50_1x": "centernet-r50-fpn",
    "LVIS_CenterNet2_R50_Fed_1x": "r50-fpn-lvis-fed",
    "CenterNet-S4_DLA_8x": "centernet-dla34-s4",
}

# Tensors that two presets have alike: the user has to name one.
ALIKE = {"CenterNet2_R2-101-DCN-BiFPN_1280_4x": "r2-101-dcn-bifpn-1280"}

# Their exports and training steps take minutes: for `make test-all` only.
HEAVY = ("CenterNet2_X101-DCN_2x", "CenterNet2_R2-101-DCN-BiFPN_1280_4x")
# Exports that show little that the others do not, likewise.
LATER = (
    "CenterNet2_DLA-BiFPN-P5_640_16x_ST",
    "CenterNet2-F_R50_1x",
    "LVIS_CenterNet2_R50_Fed_1x",
)


FEATURE_ATOL = 1e-3  # the oracle differs from itself by up to 5e-4 with other thread counts
# The oracle differs from itself by up to 5.4e-4 on the logits of this one.
LOGIT_ATOL = {"CenterNet2_R2-101-DCN-BiFPN_1280_4x": 2e-3}
SCORE_ATOL = 1e-3
BOX_ATOL_PX = 0.1  # the limit; seen: 0.006
PROPOSAL_ATOL_PX = 0.05


def marked_slow(slow: Collection[str]) -> list[Any]:
    """All fixtures as parameters of a test, some of them marked."""
    return [pytest.param(n, marks=pytest.mark.slow) if n in slow else n for n in FIXTURES]


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
    return weights | {
        name: value.reshape(spec[name][0])
        for suffix, value in _constants(fixture).items()
        for name in spec
        if name.endswith(suffix)
    }


def _constants(fixture: Fixture) -> dict[str, NDArray[Any]]:
    """Ends of names, and the values that come from the config or the data set."""
    mean_and_std = {
        name: np.array(fixture.facts["input"][name], np.float32)
        for name in ("pixel_mean", "pixel_std")
    }
    frequencies = fixture.arrays.get("buffer/freq_weight")
    return mean_and_std | ({} if frequencies is None else {".freq_weight": frequencies})


def feature_names(levels: tuple[int, ...]) -> list[str]:
    """Levels of a pyramid, or the only one of DLA's up path."""
    return ["dla2"] if levels == (2,) else [f"p{level}" for level in levels]


def clipped_raw_boxes(fixture: Fixture) -> NDArray[Any]:
    """The fixture's detections on the resized picture, clipped to it.

    One-stage models are clipped later in the official code, as boxes of the original picture.
    """
    height, width = fixture.facts["input"]["resized_hw"]
    return np.clip(fixture.arrays["raw/boxes"], 0, [width, height, width, height])


def _fill_weights(shared: Path) -> ModuleType:
    path = shared / "conformance" / "fill_weights.py"
    spec = importlib.util.spec_from_file_location("fill_weights", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def build_official(shared: Path, fixture: Fixture) -> AnyDetector:
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
        conversion = convert(Request(source=official, out=path, preset=ALIKE.get(fixture.name)))
        assert conversion.config.preset == FIXTURES[fixture.name]
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


def translate(state: dict[str, Tensor], levels: int) -> dict[str, Tensor]:
    """An official state dict under our names, without what is `UNUSED`."""
    translated: dict[str, Tensor] = {}
    scales = torch.ones(levels)
    for name, value in state.items():
        if UNUSED.fullmatch(name):
            continue
        scale = LEVEL_SCALE.fullmatch(name)
        if scale:
            scales[int(scale.group(1))] = value[0]
        else:
            translated[our_name(name, levels)] = value
    return {**translated, "first_stage.head.level_scales": scales}


@cache
def _converted_folder() -> tempfile.TemporaryDirectory[str]:
    """Goes when Python ends."""
    return tempfile.TemporaryDirectory(prefix="cn2-converted-")


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


def assert_head(
    fixture: Fixture, heatmaps: Sequence[Tensor], regressions: Sequence[Tensor]
) -> None:
    """Compare logits and distances of all levels with the fixture's."""
    model = fixture.config.model
    kind = "cls_logits" if model.second_stage is None else "agn_hm"
    logit_atol = LOGIT_ATOL.get(fixture.name, FEATURE_ATOL)
    levels = feature_names(model.neck.levels)
    for level, heatmap, regression in zip(levels, heatmaps, regressions, strict=True):
        assert_summary(fixture, f"head/{level}/{kind}", heatmap, logit_atol)
        assert_summary(fixture, f"head/{level}/reg", regression, FEATURE_ATOL)
        full = fixture.arrays.get(f"head/{level}/agn_hm/full")
        if full is not None:
            np.testing.assert_allclose(heatmap.numpy(), full, atol=logit_atol, rtol=0)


def assert_features(fixture: Fixture, features: Sequence[Tensor]) -> None:
    """Compare the pyramid with the fixture's."""
    levels = feature_names(fixture.config.model.neck.levels)
    for level, feature in zip(levels, features, strict=True):
        assert_summary(fixture, f"fpn/{level}", feature, FEATURE_ATOL)


def assert_same_proposals(fixture: Fixture, boxes: NDArray[Any], scores: NDArray[Any]) -> None:
    """Compare boxes (K, 4) and objectness (K,), best first, with the fixture's set of proposals."""
    expected = fixture.arrays["proposals/boxes"]
    assert boxes.shape == expected.shape
    np.testing.assert_array_equal(scores, np.sort(scores)[::-1])
    distance = np.abs(boxes[:, None] - expected[None]).max(axis=2)  # (ours, theirs)
    partner = distance.argmin(axis=1)
    assert sorted(partner) == list(range(len(expected)))
    assert distance.min(axis=1).max() < PROPOSAL_ATOL_PX
    expected_scores = fixture.arrays["proposals/scores"][partner]
    np.testing.assert_allclose(scores, expected_scores, atol=SCORE_ATOL, rtol=0)
