"""benchmarks/bccd.py, bccd_page.py, detection_errors.py: recipe, counts of errors, the page."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from benchmark_scripts import imported
from cn2.trainer.commands import choose_config
from cn2.trainer.config import config_to_dict

NAMES = ("bccd", "bccd_page", "detection_errors", "recipe_table", "tables")


@pytest.fixture(scope="module")
def scripts() -> Iterator[Any]:
    with imported(*NAMES) as modules:
        yield SimpleNamespace(**modules)


def test_the_recipe_is_what_the_command_line_sets(scripts: Any) -> None:
    settings = [*scripts.bccd.SETTINGS, "train.seed=2"]
    assert choose_config("nano", settings, None, None) == scripts.bccd.recipe(2)
    data = scripts.bccd.Bccd(Path("d"))
    words = scripts.bccd.training_command(data, Path("o"), scripts.bccd.seeded(2))
    given = [words[k + 1] for k, word in enumerate(words) if word == "--set"]
    assert given == settings


def test_the_page_gives_the_recipe(scripts: Any) -> None:
    text = scripts.bccd_page.PAGE.read_text("utf-8").partition("## 3. Train")[2]
    command = text.partition("```sh\n")[2].partition("```")[0]
    settings = tuple(part.split()[0] for part in command.split("--set ")[1:])
    assert settings == scripts.bccd.SETTINGS
    assert f"--weights {scripts.bccd.WEIGHTS}" in command


def box(x: float, y: float = 0, side: float = 10) -> list[float]:
    return [x, y, x + side, y + side]


# Ground truth and detections as (class, box), best first; the errors that they are.
ERRORS: dict[str, tuple[list[Any], list[Any], dict[str, int]]] = {
    "nothing in an empty picture": ([], [], {}),
    "right": ([(0, box(0))], [(0, box(1))], {}),
    "an object without a detection": ([(0, box(0)), (0, box(50))], [(0, box(0))], {"missed": 1}),
    "the second one is too many": ([(0, box(0))], [(0, box(1)), (0, box(0))], {"twice": 1}),
    "another class, and the object missed": (
        [(0, box(0))],
        [(1, box(0))],
        {"wrong class": 1, "missed": 1},
    ),
    # 10 x 10 moved by 5: IoU 50 / 150
    "half beside it": ([(0, box(0))], [(0, box(5))], {"misplaced": 1, "missed": 1}),
    # moved by 9: IoU 10 / 190, below 0.1
    "far beside it": ([(0, box(0))], [(0, box(9))], {"nothing there": 1, "missed": 1}),
    "on no object": ([], [(0, box(0)), (1, box(0))], {"nothing there": 2}),
    # the first detection overlaps both and takes the nearer one; the other is left for the second
    "each its own": ([(0, box(0)), (0, box(2))], [(0, box(2)), (0, box(1))], {}),
    # IoU is exactly 0.5: 10 x 10 in 10 x 20
    "on the bound": ([(0, [0, 0, 10, 20])], [(0, box(0))], {}),
}


@pytest.mark.parametrize("case", ERRORS)
def test_errors_by_kind(scripts: Any, case: str) -> None:
    truth, found, expected = ERRORS[case]
    sides = [
        scripts.detection_errors.Objects(
            boxes=np.array([corners for _, corners in rows], float).reshape(-1, 4),
            classes=[label for label, _ in rows],
        )
        for rows in (truth, found)
    ]
    assert scripts.detection_errors.count_errors(*sides) == expected


def write_run(scripts: Any, folder: Path, seed: int, last: dict[str, Any]) -> None:
    folder.mkdir()
    values = config_to_dict(scripts.bccd.recipe(seed))
    values |= {"class_names": ["a"], "category_ids": [7]}
    (folder / "config.json").write_text(json.dumps(values))
    (folder / "log.jsonl").write_text(json.dumps(last) + "\n")


def test_finished_runs_are_told_from_others(scripts: Any, tmp_path: Path) -> None:
    end = {"kind": "validation", "step": 600}
    write_run(scripts, tmp_path / "done", 1, end)
    write_run(scripts, tmp_path / "begun", 1, end | {"step": 400})
    recipes = [scripts.bccd.recipe(seed) for seed in range(3)]
    assert scripts.bccd.is_finished(tmp_path / "done", recipes[1])
    assert not scripts.bccd.is_finished(tmp_path / "none", recipes[1])
    with pytest.raises(scripts.bccd.RunError, match="not at its end"):
        scripts.bccd.is_finished(tmp_path / "begun", recipes[1])
    with pytest.raises(scripts.bccd.RunError, match="other settings"):
        scripts.bccd.is_finished(tmp_path / "done", recipes[2])


def test_time_and_choice_from_a_log(scripts: Any) -> None:
    losses = {"heatmap_positive": 1.0, "regression": 2.0, "class_0": 3.0, "box_0": 4.0}
    common = {"losses": losses, "images_per_s": 2.0}
    rows = [
        {"kind": "train", "step": 20, "time": 1080.0, **common},  # 20 x 8 / 2 = 80 s: from 1000
        {"kind": "validation", "step": 20, "time": 1100.0, "AP": 0.5, "AP50": 0.9, "AP75": 0.4},
        {"kind": "train", "step": 40, "time": 1180.0, **common},
        {"kind": "validation", "step": 40, "time": 1240.0, "AP": 0.4, "AP50": 0.8, "AP75": 0.3},
    ]
    found = scripts.bccd.describe_training(rows, scripts.bccd.recipe(0), threads=2)
    assert found["minutes"] == 4.0
    assert found["cpu_minutes_at_most"] == 12.0  # two threads and a worker
    assert found["chosen"] == {"step": 20, "AP": 0.5, "AP50": 0.9}
    assert found["losses"][0] == {
        "step": 20, "heatmap": 1.0, "regression": 2.0, "class": 3.0, "box": 4.0, "loss": 10.0
    }  # fmt: skip


def test_spread_over_seeds(scripts: Any) -> None:
    found = scripts.bccd.describe([0.8, 0.9, 1.0])
    assert found["mean"] == pytest.approx(0.9)
    assert found["deviation"] == pytest.approx(0.1)
    assert (found["least"], found["most"]) == (0.8, 1.0)
    assert scripts.bccd.describe([0.5])["deviation"] is None


def test_committed_result(scripts: Any) -> None:
    found = json.loads(scripts.bccd.RESULT.read_text("utf-8"))
    assert found["settings"] == list(scripts.bccd.SETTINGS)
    assert found["passed"]
    for run in found["runs"]:
        assert run["test"]["AP50"] >= 0.8
        assert run["minutes"] <= 90
        assert run["pictures"] == 72
        seen = sum(entry["objects"] for entry in run["test"]["per_class"].values())
        assert seen == run["objects"] == 945
        assert run["errors"]["missed"] < run["objects"]


def test_the_page_is_not_stale(scripts: Any, tmp_path: Path) -> None:
    assert scripts.bccd_page.main(["--check"]) == 0
    page = tmp_path / "page.md"
    text = scripts.bccd_page.PAGE.read_text("utf-8")
    page.write_text(text.replace("| 0 | 0.", "| 0 | 1.", 1))
    assert scripts.bccd_page.main(["--check", "--page", str(page)]) == 1
    assert scripts.bccd_page.main(["--page", str(page)]) == 0
    assert page.read_text("utf-8") == text
    assert (tmp_path / "bccd_curves.png").stat().st_size > 1000


def test_a_recipe_with_another_seed_differs(scripts: Any) -> None:
    first, second = scripts.bccd.recipe(0), scripts.bccd.recipe(1)
    assert first != second
    assert replace(first, train=replace(first.train, seed=1)) == second
