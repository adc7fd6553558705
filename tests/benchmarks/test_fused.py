"""benchmarks/fused.py and its table: which cases, going on, ratios."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

from benchmark_scripts import imported
from cn2.trainer.presets import PRESETS
from factories import tiny_config, tiny_one_stage_config


@pytest.fixture(scope="module")
def scripts() -> Iterator[dict[str, ModuleType]]:
    with imported("models", "fused_tables", "fused") as modules:
        yield modules


@pytest.fixture
def fused(scripts: dict[str, ModuleType]) -> ModuleType:
    return scripts["fused"]


def row(kernels: float = 0.5) -> dict[str, Any]:
    return {
        "preset": "nano",
        "classes": 8,
        "proposals": 128,
        "score_threshold": 0.05,
        "graph_ms": {"standard": {"median": 20.4}},
        "ratio": {"standard": 1.0, "bodies": 1.004, "kernels": kernels},
    }


def test_cases_are_of_presets_and_cover_the_counts(fused: ModuleType) -> None:
    keys = [case.key for case in fused.CASES]
    assert len(set(keys)) == len(keys)
    assert {case.preset for case in fused.CASES} <= set(PRESETS)
    for preset in ("nano", "r50-fpn"):
        counts = [case.proposals for case in fused.CASES if case.preset == preset]
        assert counts == [1, 128, 256, 1000]
    assert "r50-fpn-lvis, scores > 0" in keys


def test_the_command_line_chooses(fused: ModuleType) -> None:
    def keys(*words: str) -> list[str]:
        return [case.key for case in fused.chosen(fused.parse(words))]

    assert keys() == []
    assert keys("--presets", "r50-fpn-lvis") == ["r50-fpn-lvis", "r50-fpn-lvis, scores > 0"]
    assert keys("--presets", "lite0-fpn") == ["lite0-fpn"]
    assert keys("--presets", "nano", "--proposals", "7") == ["nano, 7 proposals"]


def test_it_goes_on_where_it_was(
    fused: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out, measured = tmp_path / "fused.json", []
    done = [case.key for case in fused.CASES[2:]]
    out.write_text(json.dumps({"cases": {key: row() for key in done}}))

    def measure(case: Any, _: object) -> dict[str, Any] | None:
        measured.append(case.key)
        return None if len(measured) == 2 else row(0.25)

    monkeypatch.setattr(fused, "measure_apart", measure)
    assert fused.main(["--out", str(out)]) == 1  # the second one failed
    assert measured == [case.key for case in fused.CASES[:2]]
    document = json.loads(out.read_text())
    assert list(document["cases"]) == [measured[0], *done]
    assert document["cases"][measured[0]]["ratio"]["kernels"] == 0.25


def test_ratios_are_of_the_time_inside_the_backend(
    fused: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def timed(contestants: list[Any], _: object) -> list[dict[str, Any]]:
        return [
            {
                "model": one.name,
                "latency_ms": {"whole": {"median": 9.0}, "inference": {"median": median}},
                "canvases": {},
                "runs": 1,
                "threads": 1,
                "versions": {},
            }
            for one, median in zip(contestants, (8.0, 8.4, 6.0), strict=True)
        ]

    manifest = SimpleNamespace(class_names=("a",), proposals=16, score_threshold=0.05)
    opened: list[tuple[str, bool]] = []

    def open_detector(path: Path, *, device: str, fused: bool) -> SimpleNamespace:
        opened.append((path.name, fused))
        return SimpleNamespace(manifest=manifest)

    paths = {ops: tmp_path / ops for ops in ("standard", "fused")}
    monkeypatch.setattr(fused, "write_files", lambda *_: paths)
    monkeypatch.setattr(fused.Detector, "open", open_detector)
    monkeypatch.setattr(fused, "measure", timed)
    found = fused.measure_case(fused.Case(preset="nano", proposals=16), fused.parse([]))
    assert opened == [("standard", False), ("fused", False), ("fused", True)]
    assert found["ratio"] == {"standard": 1.0, "bodies": 1.05, "kernels": 0.75}
    assert (found["classes"], found["proposals"], found["weights"]) == (1, 16, "trained")


def test_a_threshold_is_the_second_stages(fused: ModuleType) -> None:
    two, one = tiny_config(), tiny_one_stage_config()
    assert fused.with_threshold(two, 0.0).model.limits.score_threshold == 0.0
    assert fused.with_threshold(two, None) == two
    assert fused.with_threshold(one, 0.0) == one


def test_the_table(scripts: dict[str, ModuleType], tmp_path: Path) -> None:
    table = scripts["fused_tables"].fused_table
    assert len(table(tmp_path).splitlines()) == 2  # nothing measured yet
    without = {**row(), "proposals": None}
    (tmp_path / "fused.json").write_text(json.dumps({"cases": {"a": row(), "b": without}}))
    lines = table(tmp_path).splitlines()
    assert lines[2] == "| `nano` | 128 | 8 | 0.05 | 20 | 1.00 | 0.50 |"
    assert lines[3].startswith("| `nano` | – |")
