"""What TensorBoard shows of a run, read back from its event files."""

import io
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from cn2.trainer.watch.tensorboard import TensorBoardLog
from factories import picture

FLOAT32 = 1e-6  # relative; events hold values in 32 bits

ROW = {
    "loss": 3.75,
    "losses": {"heatmap_positive": 0.5, "regression": 0.25, "class_0": 1.0, "box_0": 2.0},
    "learning_rate": 0.012,
    "gradient_norm": 4.5,
    "images_per_s": 8.25,
    "waited_for_data": 0.01,
}
METRICS = {
    "AP": 0.4,
    "AP50": 0.7,
    "APs": None,
    "per_class": {"disc": {"AP": 0.5, "objects": 3}, "star": {"AP": None, "objects": 0}},
    "images": 4,
}


def read(folder: Path) -> EventAccumulator:
    events = EventAccumulator(str(folder), size_guidance={"scalars": 0, "images": 0})
    return events.Reload()


def points(events: EventAccumulator, tag: str) -> list[tuple[int, float]]:
    return [(event.step, event.value) for event in events.Scalars(tag)]


def test_tags_and_values_come_back(tmp_path: Path) -> None:
    board = TensorBoardLog(tmp_path, 0)
    board.train(20, ROW)
    board.train(40, {**ROW, "learning_rate": 0.006})
    board.validation(40, METRICS)
    board.close()
    events = read(tmp_path)
    expected = {
        "loss/heatmap_positive": 0.5,
        "loss/regression": 0.25,
        "loss/class_0": 1.0,
        "loss/box_0": 2.0,
        "loss_groups/loss": 3.75,
        "loss_groups/heatmap": 0.5,
        "loss_groups/regression": 0.25,
        "loss_groups/class": 1.0,
        "loss_groups/box": 2.0,
        "train/learning_rate": 0.012,
        "train/gradient_norm": 4.5,
        "train/images_per_s": 8.25,
        "train/waited_for_data": 0.01,
        "validation/AP": 0.4,
        "validation/AP50": 0.7,
        "AP_per_class/disc": 0.5,
    }
    assert set(events.Tags()["scalars"]) == set(expected)  # what could not be scored is no point
    for tag, value in expected.items():
        step, told = points(events, tag)[0]
        assert step == (20 if tag.startswith(("loss", "train")) else 40)
        assert told == pytest.approx(value, rel=FLOAT32)
    assert points(events, "train/learning_rate")[1] == (40, pytest.approx(0.006, rel=FLOAT32))


def test_a_report_without_a_good_step_has_no_losses(tmp_path: Path) -> None:
    board = TensorBoardLog(tmp_path, 0)
    board.train(20, {"loss": 0.0, "losses": {}, "images_per_s": 2.0})
    board.close()
    assert read(tmp_path).Tags()["scalars"] == ["train/images_per_s"]


def test_pictures_come_back(tmp_path: Path) -> None:
    board = TensorBoardLog(tmp_path, 0)
    shown = [picture(40, 60, seed=1), picture(50, 30, seed=2)]
    board.pictures(10, shown)
    board.pictures(20, shown[::-1])
    board.close()
    events = read(tmp_path)
    assert events.Tags()["images"] == ["samples/0", "samples/1"]
    for place, tag in enumerate(events.Tags()["images"]):
        for event, expected in zip(
            events.Images(tag), (shown[place], shown[1 - place]), strict=True
        ):
            pixels = np.asarray(Image.open(io.BytesIO(event.encoded_image_string)))
            np.testing.assert_array_equal(pixels, expected)


def test_a_resumed_run_has_no_doubled_points(tmp_path: Path) -> None:
    """Killed at step 130 with a state of step 100, as RunLog.rewind has it."""
    first = TensorBoardLog(tmp_path, 0)
    for step in range(10, 131, 10):
        first.train(step, ROW)
    first.validation(100, METRICS)
    first.validation(120, METRICS)
    first.pictures(120, [picture()])
    first.close()
    second = TensorBoardLog(tmp_path, 100)
    for step in range(110, 201, 10):
        second.train(step, {**ROW, "learning_rate": 0.001})
    second.close()
    events = read(tmp_path)
    rates = points(events, "train/learning_rate")
    assert [step for step, _ in rates] == list(range(10, 201, 10))
    assert [round(rate, 4) for _, rate in rates] == [0.012] * 10 + [0.001] * 10
    assert points(events, "validation/AP") == [(100, pytest.approx(0.4, rel=FLOAT32))]
    assert events.Images("samples/0") == []


def test_a_run_begun_again_shows_nothing_of_the_one_before(tmp_path: Path) -> None:
    first = TensorBoardLog(tmp_path, 0)
    first.train(10, ROW)
    first.close()
    second = TensorBoardLog(tmp_path, 0)
    second.train(20, ROW)
    second.close()
    assert [step for step, _ in points(read(tmp_path), "train/gradient_norm")] == [20]


def test_points_are_on_disk_after_a_scoring(tmp_path: Path) -> None:
    board = TensorBoardLog(tmp_path, 0)
    board.train(10, ROW)
    board.validation(10, METRICS)
    assert points(read(tmp_path), "validation/AP")  # not closed: a kill comes without warning
    board.close()


def test_without_the_package_one_line_tells_and_nothing_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    board = TensorBoardLog(tmp_path, 0)
    board.train(1, ROW)
    board.validation(1, METRICS)
    board.pictures(1, [picture()])
    board.close()
    (message,) = caplog.messages
    assert message == "no TensorBoard log: the package is missing; pip install 'cn2[train]'"
    assert list(tmp_path.iterdir()) == []
