"""benchmarks/native_agreement.py: what counts as the same, and the result of every preset."""

from __future__ import annotations

from collections.abc import Iterator
from types import ModuleType

import numpy as np
import pytest

from benchmark_scripts import imported
from cn2.runtime.detections import Detections

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
