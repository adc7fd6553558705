"""The short form of benchmarks/overfit.py: real pictures, and losses that have to fall."""

import runpy
from dataclasses import replace
from pathlib import Path

import pytest

from cn2.trainer.progress import group_losses

SCRIPT = Path(__file__).resolve().parents[2] / "benchmarks" / "overfit.py"
STEPS = 24
SHORT_EDGE = 96  # pixels; the benchmark itself trains at nano's 384

# At least so many times smaller in the last five steps than in the first one. The boxes' loss is
# not among them: it grows from nearly nothing as more proposals become positive.
FALL = {"loss": 1.7, "heatmap": 3.0, "class": 2.0, "regression": 1.3}


def test_losses_fall_on_eight_pictures(shared: Path, tmp_path: Path) -> None:
    script = runpy.run_path(str(SCRIPT))
    config = script["overfit_config"](STEPS, SHORT_EDGE)
    config = replace(config, train=replace(config.train, log_every=1, workers=0))
    rows = script["overfit"](shared / "data" / "bccd", tmp_path, config)
    steps = [group_losses(row["losses"]) for row in rows if row["kind"] == "train"]
    assert len(steps) == STEPS
    for kind, factor in FALL.items():
        last = sum(step[kind] for step in steps[-5:]) / 5
        assert steps[0][kind] / last > factor, kind
    result = script["summarize"](rows, config, script["BCCD8"], started=rows[0]["time"])
    assert [point["step"] for point in result["curve"]] == [*range(1, STEPS + 1), STEPS]
    assert not result["passed"]  # 30 small steps are not enough, and the result says so


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
def test_data_of_the_cases(shared: Path, case: str, expected: dict[str, int]) -> None:
    script = runpy.run_path(str(SCRIPT))
    chosen = script["CASES"][case]
    folder = shared / "data" / chosen.folder
    content = script["first_pictures"](folder, chosen.pictures)
    found = script["describe_data"](content, folder / "images")
    assert expected.items() <= found.items()
