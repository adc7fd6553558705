"""benchmarks/resize.py: which detections are one object, and how far they are apart."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from types import ModuleType, SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from benchmark_scripts import imported
from cn2.runtime.canvas import CanvasRule
from cn2.runtime.detections import Detections


@pytest.fixture(scope="module")
def resize() -> Iterator[ModuleType]:
    with imported("resize") as scripts:
        yield scripts["resize"]


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


def test_pairs_are_of_a_class_nearest_first_and_one_to_one(resize: ModuleType) -> None:
    first = found((0, 0.9, 0), (2, 0.8, 0), (50, 0.7, 1), (80, 0.6, 0))
    second = found((1.5, 0.9, 0), (50, 0.8, 0), (50.5, 0.7, 1), (84, 0.6, 0))
    # 0 and 1.5 overlap by 0.74, but 2 and 1.5 by more; 80 and 84 by 0.43 alone.
    assert resize.match(first, second) == [(1, 0), (2, 2)]
    assert resize.match(first, found()) == resize.match(found(), second) == []


def test_differences_of_what_both_files_find(resize: ModuleType) -> None:
    manifest = SimpleNamespace(score_threshold=0.05)
    answers = {"antialias": found((0, 0.9, 0), (50, 0.5, 1)), "linear": found((1, 0.8, 0))}

    class Fake:
        def __init__(self, kind: str) -> None:
            self.kind, self.manifest = kind, manifest

        def __call__(self, _: Path) -> Detections:
            return answers[self.kind]

    pair = {kind: Fake(kind) for kind in resize.KINDS}
    row = resize.compare(pair, [Path("a.jpg"), Path("b.jpg")])
    assert (row["pictures"], row["in_both"]) == (2, 2)
    assert row["detections"] == {"antialias": 4, "linear": 2}
    assert row["box_px"] == {"median": 1, "p90": 1, "max": 1}
    assert row["score_difference"]["max"] == pytest.approx(0.1, abs=1e-6)


def test_pixels_differ_where_a_picture_shrinks(resize: ModuleType, tmp_path: Path) -> None:
    stripes = np.zeros((64, 64, 3), np.uint8)
    stripes[:, ::2] = 200
    Image.fromarray(stripes).save(tmp_path / "a.png")

    def difference(edge: int) -> dict[str, float]:
        rule = CanvasRule(short_edge=edge, long_edge=edge, divisor=32)
        return resize.pixel_difference(rule, [tmp_path / "a.png"])

    assert difference(64) == {"mean": 0, "max": 0}
    assert difference(96)["max"] <= 1
    assert difference(24)["max"] > 50


def test_spread(resize: ModuleType) -> None:
    assert resize.spread([]) is None
    assert resize.spread(range(11)) == {"median": 5, "p90": 9, "max": 10}
