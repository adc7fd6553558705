"""torch and the exported file find the same in real pictures of many shapes, on any canvas."""

from __future__ import annotations

import importlib
import importlib.util
import json
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from benchmark_scripts import imported


@pytest.fixture(scope="module")
def agreement() -> Iterator[ModuleType]:
    with imported("agreement") as scripts:
        yield scripts["agreement"]


def test_the_committed_result_is_what_was_asked_for(agreement: ModuleType) -> None:
    record = json.loads((agreement.RESULTS / "agreement.json").read_text(encoding="utf-8"))
    trained, random = record["trained_weights"], record["random_weights"]
    assert trained["detections"] >= 5000
    assert (trained["beyond"], trained["unexplained"], random["unexplained"]) == (0, 0, 0)
    assert trained["score"] < 1e-4
    assert trained["box_px"] < 0.05
    assert agreement.is_met(record)
    assert agreement.report(record["rows"]) == record
    assert all(len(row["aspects"]) >= 5 and row["machine"]["cpu"] for row in record["rows"])


def row(preset: str, weights: str, **values: Any) -> dict[str, Any]:
    small, one = {"box_px": 0.01, "score": 1e-5}, {"pictures": 1}
    counts = {"pictures": 2, "detections": 300, "excused": {}, "beyond": 0, "unexplained": 0}
    exact = {"torch": one | small, "onnxruntime": one | {"box_px": 0.02, "score": 1e-6}}
    facts = {"preset": preset, "weights": weights, "to_float64": exact}
    return {**facts, **counts, **small, **values}


def test_both_kinds_of_weights_are_counted_apart(agreement: ModuleType) -> None:
    rows = [
        row("r50-fpn", "fixture a", beyond=2, score=2e-4, excused={"iou": 1, "cut": 2}),
        row("nano", "trained"),
        row("nano", "trained", score=3e-5, excused={"score": 1}),
    ]
    found = agreement.report(rows)
    assert [r["preset"] for r in found["rows"]] == ["nano", "nano", "r50-fpn"]
    trained, random = found["trained_weights"], found["random_weights"]
    assert (trained["runs"], trained["detections"], trained["excused"]) == (4, 600, 1)
    assert (trained["beyond"], trained["score"]) == (0, 3e-5)
    assert (random["detections"], random["beyond"], random["excused"]) == (300, 2, 3)
    assert random["to_float64"]["onnxruntime"] == {"runs": 1, "box_px": 0.02, "score": 1e-6}


def test_rows_older_than_the_distance_to_float64(agreement: ModuleType) -> None:
    rows = [row("nano", "trained"), row("b", "f", to_float64=None)]
    random = agreement.report(rows)["random_weights"]
    assert random["to_float64"]["torch"] == {"runs": 0, "box_px": None, "score": None}
    assert agreement.report(rows[:1])["random_weights"]["box_px"] is None


def test_the_table_tells_both_kinds_apart(agreement: ModuleType) -> None:
    tables = importlib.import_module("tables")
    rows = [row("nano", "trained"), row("r50-fpn", "f", beyond=2, excused={"iou": 1})]
    cells = [cells[:2] for cells in tables.agreement_rows(agreement.report(rows))]
    assert "`nano`: 300 detections" in cells[0][0]
    assert [measured for _, measured in cells] == [
        "0.0100 / 1.0e-05",
        "0 / 0 / 0",
        "0.0100 / 1.0e-05",
        "2 / 0 / 1",
        "0.0100 / 1.0e-05",
        "0.0200 / 1.0e-06",
    ]
    assert "random weights of `r50-fpn`" in cells[2][0]
    rows[1]["to_float64"] = None
    assert len(tables.agreement_rows(agreement.report(rows))) == 4
    assert len(tables.agreement_rows(agreement.report(rows[:1]))) == 2


@pytest.mark.parametrize(
    ("trained", "random", "met"),
    [
        ({}, {"beyond": 1}, True),
        ({"excused": {"score": 1}}, {}, True),
        ({"beyond": 1}, {}, False),
        ({"unexplained": 1}, {}, False),
        ({}, {"unexplained": 1}, False),
        ({"detections": 199}, {}, False),
    ],
)
def test_trained_weights_must_agree_strictly(
    agreement: ModuleType, trained: dict[str, Any], random: dict[str, Any], met: bool
) -> None:
    rows = [row("nano", "trained"), row("nano", "trained", **trained), row("b", "f", **random)]
    assert agreement.is_met(agreement.report(rows)) is met


def test_a_preset_measured_again_replaces_its_rows(agreement: ModuleType, tmp_path: Path) -> None:
    path = tmp_path / "agreement.json"
    first = [row("nano", "trained"), row("b", "f", detections=7)]
    assert agreement.merge(path, first) == first
    path.write_text(json.dumps(agreement.report(first)))
    again = [row("nano", "trained", detections=9), row("nano", "trained", detections=8)]
    assert [r["detections"] for r in agreement.merge(path, again)] == [7, 9, 8]


@pytest.mark.slow  # two exports; tests/export/test_verify.py holds the same files together
def test_torch_and_the_file_agree_on_coco_pictures(agreement: ModuleType, shared: Path) -> None:
    pictures = agreement.of_many_shapes(shared / "data" / "coco128" / "images", 8)
    ratios = [agreement.aspect(path) for path in pictures]
    assert len(set(ratios)) >= 5
    assert any(width < height for width, height in ratios)
    load = agreement.find_weights(shared)["nano"]
    rows = agreement.compare_preset("nano", load, pictures)
    assert [row["canvas"] for row in rows] == ["any", "384x512"]
    found = agreement.report(rows)
    assert agreement.is_met(found)
    assert found["trained_weights"]["box_px"] < 0.05
    assert found["trained_weights"]["score"] < 1e-4
    assert found["trained_weights"]["excused"] <= 2
    assert 0 < found["trained_weights"]["to_float64"]["torch"]["score"] < 1e-4
