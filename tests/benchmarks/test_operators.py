"""benchmarks/operators.py and its table: forms that agree take turns; what is needed is said."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from benchmark_scripts import imported
from cn2.plugins import library_path


@pytest.fixture(scope="module")
def scripts() -> Iterator[dict[str, ModuleType]]:
    names = ("models", "operator_forms", "operators", "operator_tables")
    with imported(*names) as modules:
        yield modules


def row(operator: str, proposals: int, classes: int | None, **ratio: float) -> dict[str, Any]:
    sizes = {"operator": operator, "proposals": proposals, "classes": classes}
    return {**sizes, "threads": 1, "runs": 100, "ratio": ratio}


def test_forms_take_turns_and_must_agree(scripts: dict[str, ModuleType]) -> None:
    calls: list[str] = []

    def form(name: str, value: float) -> Any:
        def run() -> list[Any]:
            calls.append(name)
            return [np.full(3, value)]

        return run

    race = scripts["operators"].race
    found = race({"fused": form("fused", 1), "standard": form("standard", 1)}, 5)
    assert found["runs"] == 5
    assert set(found["ratio"]) == {"standard"}
    assert found["latency_ms"]["fused"]["median"] >= 0
    turns = calls[-50:]
    assert turns[0::4] != turns[1::4]  # one begins, then the other
    assert turns.count("fused") == turns.count("standard")
    with pytest.raises(
        ValueError, match=r"other: expected what the standard form gives, is 1.0 off"
    ):
        race({"fused": form("a", 1), "standard": form("b", 1), "other": form("c", 2)}, 5)


def test_verdicts_are_of_the_best_standard_form(scripts: dict[str, ModuleType]) -> None:
    rows = [
        row("PyramidRoIAlign", 1, None, standard=4.0, other=2.5),
        row("PyramidRoIAlign", 256, None, standard=3.0, other=9.0),
        row("DetectionNMS", 1, 1203, standard=1.0),  # one proposal is not counted
        row("DetectionNMS", 256, 1203, standard=4.9),
        row("DetectionNMS", 256, 80, standard=0.5),
    ]
    first, second = scripts["operators"].verdicts(rows)
    assert (first["least"], first["met"]) == (2.5, True)
    assert (second["least"], second["met"]) == (4.9, False)
    assert second["what"] == "`DetectionNMS` of 1203 classes, 128 proposals or more"


def test_the_committed_result_is_what_was_asked_for(scripts: dict[str, ModuleType]) -> None:
    found = json.loads((scripts["operators"].RESULTS / "operators.json").read_text())
    assert found["verdicts"] == scripts["operators"].verdicts(found["rows"])
    assert [one["met"] for one in found["verdicts"]] == [True, True]
    sizes = {(row["operator"], row["proposals"], row["classes"]) for row in found["rows"]}
    counts, classes = (1, 128, 256, 1000), (1, 80, 1203)
    assert sizes >= {("PyramidRoIAlign", count, None) for count in counts}
    assert sizes >= {("ProposalNMS", count, None) for count in counts}
    assert sizes >= {("DetectionNMS", count, of) for count in counts for of in classes}


def test_table(scripts: dict[str, ModuleType], tmp_path: Path) -> None:
    make = scripts["operator_tables"].operator_table
    assert make(tmp_path) == "Not measured yet."
    rows = [
        row("PyramidRoIAlign", 1, None, standard=4.04, other=2.5),
        {**row("PyramidRoIAlign", 1, None, standard=3.0, other=9.0), "threads": 2},
        row("DetectionNMS", 256, 1203, standard=12.34),
    ]
    document = scripts["operators"].document(
        {"cpu": "a processor", "load_average_before": 0.1}, rows
    )
    (tmp_path / "operators.json").write_text(json.dumps(document))
    lines = make(tmp_path).splitlines()
    assert lines[0].startswith("| operator | proposals | classes | standard, 1 thread | other, 1 t")
    assert lines[2] == "| `PyramidRoIAlign` | 1 | – | 4.0 | 2.5 | 3.0 | 9.0 |"
    assert lines[3] == "| `DetectionNMS` | 256 | 1203 | 12.3 | – | – | – |"
    assert "a processor" in lines[5]
    assert "`PyramidRoIAlign`: at least 2.5, needed 2.0" in lines[5]


@pytest.mark.usefixtures("quick_export")
def test_all_forms_of_an_operator_agree(scripts: dict[str, ModuleType]) -> None:
    if library_path("cn2_ort_ops") is None:
        pytest.skip("libcn2_ort_ops: expected it, found none; run make native")
    forms = scripts["operator_forms"].pooling_forms(3, 1)
    assert list(forms) == ["fused", "standard", "all levels, select", "moved off, sum"]
    scripts["operators"].compare(forms)
