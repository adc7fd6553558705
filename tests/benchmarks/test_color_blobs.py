"""The colour-blob baseline: it finds blobs, learns, and stays where the issue wants it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from types import ModuleType

import numpy as np
import pytest

from benchmark_scripts import imported


@pytest.fixture(scope="module")
def color_blobs() -> Iterator[ModuleType]:
    with imported("color_blobs") as scripts:
        yield scripts["color_blobs"]


def test_committed_result_stays_below_the_bound(color_blobs: ModuleType) -> None:
    record = json.loads(color_blobs.RESULT.read_text(encoding="utf-8"))
    assert record["metrics"]["AP50"] < 0.3
    assert record["objects_covered_by_a_blob"] > 0.8  # an honest attempt: the boxes are there
    assert record["test"]["first_seed"] >= color_blobs.HELD_OUT_SEED > record["train"]["first_seed"]


def test_blobs_of_two_squares_are_their_boxes(color_blobs: ModuleType) -> None:
    picture = np.full((120, 160, 3), 40, np.uint8)
    picture[20:60, 30:80] = (220, 30, 30)
    picture[70:110, 100:140] = (30, 200, 60)
    boxes, statistics = color_blobs.find_blobs(picture)
    found = {tuple(box) for box in boxes.astype(int).tolist()}
    assert {(30, 20, 80, 60), (100, 70, 140, 110)} <= found
    assert statistics.shape == (len(boxes), color_blobs.FEATURES)
    assert np.isfinite(statistics).all()


def test_a_small_run_ends_in_numbers(color_blobs: ModuleType) -> None:
    record = color_blobs.run(train=4, test=2)
    assert 0 <= record["metrics"]["AP50"] <= 1
    assert record["test"]["scenes"] == 2
