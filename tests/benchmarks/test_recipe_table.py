"""docs/training.md: its tables are what the presets and the named recipes say."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from benchmark_scripts import imported
from cn2.trainer import presets


@pytest.fixture(scope="module")
def script() -> Iterator[ModuleType]:
    with imported("recipe_table") as scripts:
        yield scripts["recipe_table"]


def test_the_page_is_not_stale(script: ModuleType) -> None:
    assert script.main(["--check"]) == 0


def test_a_changed_preset_makes_it_stale(
    script: ModuleType, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    config = presets.nano()
    other = replace(config, train=replace(config.train, batch=4))
    monkeypatch.setitem(presets.PRESETS, "nano", lambda: other)
    assert script.main(["--check"]) == 1
    assert "a table is stale" in capsys.readouterr().out


def test_rows(script: ModuleType) -> None:
    *tables, shared = script.recipe_table().split("\n\n")
    rows: dict[str, dict[str, str]] = {}
    for table in tables:
        (_, *names), _, *lines = [row.strip("| ").split(" | ") for row in table.splitlines()]
        for setting, *cells in lines:
            found = dict(zip((name.strip("`") for name in names), cells, strict=True))
            rows[setting] = rows.get(setting, {}) | found
    assert all(list(row) == list(presets.PRESETS) for row in rows.values())
    assert "horizontal flip 0.5" in shared
    for setting, expected in {
        "learning rate": {"dla34-bifpn-p3": "0.02", "dla34-bifpn-p5": "0.08", "nano": "0.02"},
        "pictures seen": {"dla34-bifpn-p3": "5.76 M, 4x", "centernet-dla34-s4": "11.52 M, 8x"},
        "class loss": {
            "r50-fpn": "softmax",
            "r50-fpn-lvis-fed": "sigmoid, federated: 50 classes",
            "centernet-r50-fpn": "focal, on the heat maps",
        },
        "more positives": {"r50-fpn": "no", "centernet-r50-fpn": "yes"},
    }.items():
        assert expected.items() <= rows[setting].items()
    long = script.schedule_table().splitlines()[-1]
    assert long == "| `long` | 34.56 M | 2,160,000 | 540,000 | 83.3%, 94.4% | 6, rate x 0.5 |"
    crop = script.resize_table().splitlines()[-1]
    assert crop == "| `crop-1280` | 1280 x 1280 cut out, scale 0.1 to 2 |"


def test_written_once_and_then_checked(script: ModuleType, tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    places = ("recipes", "schedules", "resizes", "times")
    page.write_text("".join(f"<!-- table:{name} -->\n<!-- /table -->\n" for name in places))
    assert script.main(["--page", str(page), "--check"]) == 1
    assert script.main(["--page", str(page)]) == 0
    assert script.main(["--page", str(page), "--check"]) == 0


def test_a_page_without_a_place_for_a_table(
    script: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    page = tmp_path / "page.md"
    page.write_text("nothing here\n")
    assert script.main(["--page", str(page)]) == 2
    message = "expected <!-- table:recipes --> ... <!-- /table --> once, got 0"
    assert message in capsys.readouterr().err


def measured(preset: str, device: str) -> dict[str, Any]:
    """A row of training.json."""
    groups = ("backbone", "neck", "first stage", "proposals", "RoI pooling", "box heads")
    return {
        "preset": preset,
        "device": device,
        "threads": 1,
        "batch": 8,
        "canvases": {"384x512": 2, "352x480": 1},
        "images_per_s": 3.21,
        "images_per_s_wall": 1.5,
        "share": {"forward": 0.3, "backward": 0.6, "step": 0.1},
        "groups": {name: {"share": 0.1} for name in groups} | {"targets, losses": {"share": 0.3}},
        "loader": {
            "plain": {"images_per_s": 102.4, "images_per_s_wall": 51.2},
            "cached": {"images_per_s": 203.9, "images_per_s_wall": 99.7},
        },
    }


def test_time_tables(script: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A CPU's figures are of the time the process had, a GPU's of that on the wall."""
    found = {
        "machine": {"cpu": "a processor", "cores": 2, "load_average_before": 0.5},
        "versions": {"torch": "2.14.1"},
        "rows": [measured("nano", "cpu"), measured("nano", "NVIDIA H100")],
        "skipped": [{"what": "r50-fpn on cuda", "reason": "out of memory"}],
    }
    monkeypatch.setattr(script, "SPEED", tmp_path / "training.json")
    assert script.time_tables() == "Not measured yet."
    (tmp_path / "training.json").write_text(json.dumps(found))
    lines = script.time_tables().splitlines()
    assert lines[2] == "| `nano` | cpu | 8 | 3.2 | 30% | 60% | 10% | 102 | 204 |"
    assert lines[3] == "| `nano` | NVIDIA H100 | 8 | 1.5 | 30% | 60% | 10% | 51 | 100 |"
    assert lines[7] == "| `nano` | cpu | 10% | 10% | 10% | 10% | 10% | 10% | 30% | 10% |"
    assert "a processor, 2 cores, threads: 1, torch 2.14.1, load 0.5 before." in lines[-1]
    assert "`nano` 384x512, 352x480;" in lines[-1]
    assert lines[-1].endswith("Not measured: r50-fpn on cuda (out of memory).")
