"""torch and the exported file find the same in real pictures of many shapes, on any canvas."""

from __future__ import annotations

import importlib.util
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest

BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"


@pytest.fixture(scope="module")
def agreement() -> Iterator[ModuleType]:
    sys.path.insert(0, str(BENCHMARKS))  # it imports its neighbour `models`
    try:
        spec = importlib.util.spec_from_file_location("agreement", BENCHMARKS / "agreement.py")
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        yield module
    finally:
        sys.path.remove(str(BENCHMARKS))


def test_the_committed_result_has_nothing_unexplained(agreement: ModuleType) -> None:
    record = json.loads((agreement.RESULTS / "agreement.json").read_text(encoding="utf-8"))
    assert record["detections"] >= 500
    assert record["unexplained"] == 0
    assert all(row["agrees"] and len(row["aspects"]) >= 5 for row in record["rows"])


@pytest.mark.slow  # two exports; tests/export/test_verify.py holds the same files together
def test_torch_and_the_file_agree_on_coco_pictures(agreement: ModuleType, shared: Path) -> None:
    pictures = agreement.of_many_shapes(shared / "data" / "coco128" / "images", 8)
    ratios = [agreement.aspect(path) for path in pictures]
    assert len(set(ratios)) >= 5
    assert any(width < height for width, height in ratios)
    load = agreement.find_weights(shared)["nano"]
    rows = agreement.compare_preset("nano", load, pictures)
    assert [row["canvas"] for row in rows] == ["any", "384x512"]
    assert sum(row["detections"] for row in rows) >= 500
    for row in rows:
        assert row["unexplained"] == 0
        assert row["box_px"] < 0.05
        assert row["score"] < 1e-4
        assert sum(row["excused"].values()) <= 2
