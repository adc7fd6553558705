"""The short form of benchmarks/overfit.py: real pictures, and losses that have to fall."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import pytest

from benchmark_scripts import imported
from cn2.trainer.config import Config
from cn2.trainer.presets.small import nano
from cn2.trainer.progress import group_losses

STEPS = 24
SHORT_EDGE = 96  # pixels; the benchmark itself trains at nano's 384, and 256

# At least so many times smaller in the last five steps than in the first one. The boxes' loss is
# not among them: it grows from nearly nothing as more proposals become positive.
FALL: dict[str, dict[str, float]] = {
    "nano": {"loss": 1.7, "heatmap": 3.0, "class": 2.0, "regression": 1.3},
    "gfl-r50-fpn": {"loss": 1.35, "regression": 1.4, "distribution": 1.6},
    "atss-r50-fpn-faster": {"loss": 1.35, "anchors": 4.0, "class": 1.6},
}


@pytest.fixture(scope="module")
def script() -> Iterator[ModuleType]:
    with imported("overfit") as modules:
        yield modules["overfit"]


@pytest.mark.parametrize("preset", FALL)
def test_losses_fall_on_eight_pictures(
    script: ModuleType, shared: Path, tmp_path: Path, preset: str
) -> None:
    detector: Config = nano() if preset == "nano" else script.at_nano_size(preset)
    config = script.overfit_config(STEPS, SHORT_EDGE, config=detector)
    config = replace(config, train=replace(config.train, log_every=1, workers=0))
    rows = script.overfit(shared / "data" / "bccd", tmp_path, config)
    steps = [group_losses(row["losses"]) for row in rows if row["kind"] == "train"]
    assert len(steps) == STEPS
    for kind, factor in FALL[preset].items():
        last = sum(step[kind] for step in steps[-5:]) / 5
        assert steps[0][kind] / last > factor, kind
    result = script.summarize(rows, config, script.BCCD8, started=rows[0]["time"])
    assert [point["step"] for point in result["curve"]] == [*range(1, STEPS + 1), STEPS]
    assert not result["passed"]  # so few small steps are not enough, and the result says so


@pytest.mark.parametrize(
    ("case", "expected"),
    [
        # 127 red, 9 white, 9 platelets
        ("bccd8", {"pictures": 8, "boxes": 145, "classes": 3, "classes_with_object": 3}),
        (
            "coco128",
            {"pictures": 128, "boxes": 929, "classes": 80, "classes_with_object": 71}
            | {"grey_pictures": 1, "pictures_without_object": 2, "crowd_regions": 10},
        ),
    ],
)
def test_data_of_the_cases(
    script: ModuleType, shared: Path, case: str, expected: dict[str, int]
) -> None:
    chosen = script.CASES[case]
    folder = shared / "data" / chosen.folder
    content = script.first_pictures(folder, chosen.pictures)
    found = script.describe_data(content, folder / "images")
    assert expected.items() <= found.items()


def test_rows_of_table_1_are_kept_and_what_is_missing_is_trained(
    script: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trained = []

    def run(case: object, config: Config, data: Path) -> dict[str, object]:
        trained.append((config.preset, config.train.steps))
        return {"preset": config.preset, "AP50": 1.0, "seconds": 1.0}

    monkeypatch.setattr(script, "run", run)
    target = tmp_path / "result.json"
    script.run_table_1(script.TABLE1, ["gfl-r50-fpn"], tmp_path, target)
    assert trained == [("gfl-nano-fpn", 240)]
    found = script.run_table_1(script.TABLE1, [], tmp_path, target)
    assert len(trained) == len(found) == 14
    assert ("retinanet-nano-fpn-faster", 480) in trained  # it begins slowly
    assert ("retinanet-nano-fpn", 960) in trained
    assert list(json.loads(target.read_text())["presets"]) == list(script.TABLE_1)
