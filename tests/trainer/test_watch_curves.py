"""The curve picture: what is drawn of which log."""

import json
import sys
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from cn2.runtime.errors import OutputError
from cn2.trainer.progress import RunLog, read_log
from cn2.trainer.watch.curves import DPI, WIDTH_IN, draw_curves, read_curves

REAL_LOG = Path(__file__).parents[2] / "benchmarks" / "results" / "nano_training.jsonl"


def train_row(step: int, **values: Any) -> dict[str, Any]:
    losses = {"heatmap_positive": 0.5, "regression": 0.25, "class_0": 1.0, "box_0": 2.0}
    return {"kind": "train", "step": step, "losses": losses, "learning_rate": 0.01, **values}


def score_row(step: int, ap: float | None) -> dict[str, Any]:
    return {"kind": "validation", "step": step, "AP": ap, "AP50": None if ap is None else 2 * ap}


def draw(tmp_path: Path, rows: list[dict[str, Any]]) -> np.ndarray:
    log, out = tmp_path / "log.jsonl", tmp_path / "curves.png"
    log.write_text("".join(json.dumps(row) + "\n" for row in rows))
    draw_curves(log, out)
    return np.asarray(Image.open(out).convert("RGB"))


def test_the_curves_of_a_log() -> None:
    rows = [train_row(10), train_row(20, learning_rate=0.02), score_row(20, 0.25)]
    curves = read_curves(rows)
    assert curves.losses == {
        "loss": [(10, 3.75), (20, 3.75)],
        "heatmap": [(10, 0.5), (20, 0.5)],
        "regression": [(10, 0.25), (20, 0.25)],
        "class": [(10, 1.0), (20, 1.0)],
        "box": [(10, 2.0), (20, 2.0)],
    }
    assert curves.rate == {"learning_rate": [(10, 0.01), (20, 0.02)]}
    assert curves.scores == {"AP": [(20, 0.25)], "AP50": [(20, 0.5)]}


def test_a_step_that_was_taken_twice_counts_once() -> None:
    """A log of before RunLog.rewind: killed at 30, resumed at 10."""
    rows = [train_row(step, learning_rate=rate) for rate in (0.1, 0.2) for step in (10, 20, 30)]
    del rows[3]
    assert read_curves(rows).rate == {"learning_rate": [(10, 0.1), (20, 0.2), (30, 0.2)]}


def test_what_is_no_number_is_left_out() -> None:
    rows = [
        train_row(10, losses={}),  # no good step since the last report
        train_row(20, losses={"class_0": float("nan"), "box_0": 1.0}),
        score_row(20, None),
        {"kind": "skipped", "step": 25, "not_finite": ["class_0"]},
        score_row(30, 0.0),
    ]
    curves = read_curves(rows)
    assert curves.losses == {"box": [(20, 1.0)]}
    assert curves.scores == {"AP": [(30, 0.0)], "AP50": [(30, 0.0)]}


def test_the_picture_of_a_real_log(tmp_path: Path) -> None:
    picture = draw(tmp_path, read_log(REAL_LOG))
    assert picture.shape[1] == WIDTH_IN * DPI
    assert 900 < picture.shape[0] < 1100
    blue = (picture == (31, 119, 180)).all(axis=2)  # the sum, the rate and AP, a panel each
    assert (blue.sum(axis=1) > 0).sum() > 150
    white = (picture == 255).all(axis=2)
    assert white[:2].all()  # nothing reaches the border
    assert white[-2:].all()
    assert white[:, -2:].all()


@pytest.mark.parametrize(
    "rows",
    [
        [train_row(10)],  # one row
        [train_row(10), train_row(20)],  # no validation
        [score_row(10, 0.5)],  # nothing else
        [train_row(10, losses={}), score_row(10, None)],  # a rate alone
        [train_row(10, losses={"class_0": 0.0})],  # 0 has no logarithm
    ],
)
def test_short_logs_give_a_picture(tmp_path: Path, rows: list[dict[str, Any]]) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        picture = draw(tmp_path, rows)
    assert picture.shape[1] == WIDTH_IN * DPI
    assert (picture != 255).any()


def test_more_kinds_make_a_higher_picture(tmp_path: Path) -> None:
    alone = draw(tmp_path, [train_row(10)])
    scored = draw(tmp_path, [train_row(10), score_row(10, 0.5)])
    assert scored.shape[0] > alone.shape[0] + 200


def test_a_log_without_a_row_gives_a_line(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    log = RunLog(tmp_path / "log.jsonl")
    log.write("note", text="begun")
    draw_curves(log.path, tmp_path / "curves.png")
    assert [line.endswith("no step to draw a curve of") for line in caplog.messages] == [True]
    assert not (tmp_path / "curves.png").exists()


def test_without_matplotlib_one_line_tells(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    draw_curves(REAL_LOG, tmp_path / "curves.png")
    assert caplog.messages == ["no curve picture: matplotlib is missing; pip install 'cn2[train]'"]
    assert list(tmp_path.iterdir()) == []


def test_a_picture_that_cannot_be_written_is_one_line(tmp_path: Path) -> None:
    log = tmp_path / "log.jsonl"
    log.write_text(json.dumps(train_row(10)) + "\n")
    with pytest.raises(OutputError, match=r"curves\.png: cannot be written \(No such file"):
        draw_curves(log, tmp_path / "gone" / "curves.png")


def test_pyplot_is_left_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "matplotlib.pyplot", raising=False)
    draw(tmp_path, [train_row(10), score_row(10, 0.5)])
    assert "matplotlib.pyplot" not in sys.modules
