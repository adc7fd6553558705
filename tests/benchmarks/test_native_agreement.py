"""benchmarks/native_agreement.py: what counts as the same, and the result of every preset."""

from __future__ import annotations

import json
from collections.abc import Iterator
from types import ModuleType

import numpy as np
import pytest
import torch

from benchmark_scripts import imported
from cn2.runtime.detections import Detections
from cn2.trainer.layers import FrozenBatchNorm2d
from cn2.trainer.presets import PRESETS

SAME = {"other": 0, "box_px": 0.0, "score": 0.0}


@pytest.fixture(scope="module")
def script() -> Iterator[ModuleType]:
    with imported("native_agreement") as scripts:
        yield scripts["native_agreement"]


def found(*rows: tuple[float, float, int]) -> Detections:
    """Boxes of 10x10 pixels: x of the left side, score, class."""
    x = np.array([row[0] for row in rows], np.float32)
    return Detections(
        boxes=np.stack([x, 0 * x, x + 10, 0 * x + 10], axis=1).reshape(-1, 4),
        scores=np.array([row[1] for row in rows], np.float32),
        class_ids=np.array([row[2] for row in rows], np.int64),
        image_size=(100, 100),
        class_names=("a", "b"),
        dataset_ids=(1, 2),
    )


def test_differences_are_of_pictures_with_the_same_classes(script: ModuleType) -> None:
    a = found((0, 0.75, 0), (20, 0.5, 1))
    moved = found((0, 0.75, 0), (20.5, 0.25, 1))
    other = found((0, 0.75, 0))
    assert script.difference([a, found()], [a, found()]) == SAME
    assert script.difference([a, other], [moved, a]) == {"other": 1, "box_px": 0.5, "score": 0.25}


@pytest.mark.parametrize(
    ("change", "same"),
    [
        ({}, True),
        ({"detections": 0}, False),  # nothing was compared
        ({"native": {**SAME, "other": 1}}, False),
        ({"native": {**SAME, "score": 1e-9}}, False),
        ({"threads": {**SAME, "box_px": 1e-9}}, False),
        ({"bodies": {**SAME, "score": 1e-6}}, True),  # they round differently
    ],
)
def test_what_is_the_same(script: ModuleType, change: dict[str, object], same: bool) -> None:
    row = {"detections": 3, "native": SAME, "threads": SAME, "bodies": SAME, **change}
    assert script.is_same(row) is same


def test_settled_norms_give_mean_0_and_variance_1(script: ModuleType) -> None:
    class Model(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first = FrozenBatchNorm2d(3)
            self.second = torch.nn.BatchNorm2d(3)

        def features(self, images: torch.Tensor, image_sizes: torch.Tensor) -> torch.Tensor:
            assert image_sizes.tolist() == [list(images.shape[1:3])]
            x: torch.Tensor = self.second(1000 * self.first(images.permute(0, 3, 1, 2).float()))
            return x

    picture = np.random.default_rng(0).integers(0, 256, (300, 280, 3), np.uint8)
    model = Model().eval()
    script.settle(model, picture)
    assert model.first.running_mean.tolist() == pytest.approx([127.5] * 3, abs=2)
    assert model.second.running_var.tolist() == pytest.approx([1e6] * 3, rel=1e-3)
    assert not model.first._forward_pre_hooks


def test_every_preset_finds_the_same_in_the_committed_result(script: ModuleType) -> None:
    result = json.loads((script.RESULTS / "native_agreement.json").read_text("utf-8"))
    assert list(result["presets"]) == list(PRESETS)
    assert [preset for preset, row in result["presets"].items() if not script.is_same(row)] == []
    assert result == script.document(result["presets"])
