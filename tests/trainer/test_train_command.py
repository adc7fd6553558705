"""`cn2 train` and `cn2 presets` from the command line, and what a run says while it works."""

import json
import time
from pathlib import Path

import pytest
from rich.console import Console
from torch import nn

import cn2.trainer.run as run_module
import cn2.trainer.train as train_module
from cn2.runtime.cli import run
from cn2.trainer import presets
from cn2.trainer.checkpoint import read_checkpoint
from cn2.trainer.commands import (
    choose_config,
    describe,
    find_preset,
    presets_table,
    stage_names,
)
from cn2.trainer.progress import Reporter, StepMeter, clock, group_losses
from cn2.trainer.train_config import ResizeCropConfig
from dataset_formats import write_yolo
from factories import coco_annotations, tiny_config, write_dataset


@pytest.fixture
def arguments(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """A whole command line for a preset of one step."""
    monkeypatch.setitem(presets.PRESETS, "tiny", tiny_config)
    annotations, pictures = write_dataset(
        tmp_path, coco_annotations([(64, 96)], [[(1, [10.0, 8.0, 30.0, 20.0])]])
    )
    data = [str(annotations), str(pictures)]
    options = ["--train", data[0], "--train-images", data[1], "--val", data[0]]
    options += ["--val-images", data[1], "--out", str(tmp_path / "run"), "--device", "cpu"]
    return ["train", "tiny", *options, "--set", "train.steps=1", "--set", "train.batch=1"]


def test_train_from_the_command_line(
    arguments: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(arguments) == 0
    told = capsys.readouterr()
    assert told.out == ""  # progress goes to stderr
    assert "step 1/1  loss" in told.err
    assert "images/s" in told.err
    assert "step 1: AP" in told.err
    assert (tmp_path / "run" / "last.safetensors").is_file()
    assert json.loads((tmp_path / "run" / "config.json").read_text())["train"]["batch"] == 1


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (
            ["tiny2"],
            ["expected a name that `cn2 presets` lists, got 'tiny2'; did you mean 'tiny'?"],
        ),
        (["tiny", "--set", "train.base_lrr=1"], ["train.base_lrr", "base_lr"]),
        (["tiny", "--set", "train.steps"], ["train.steps", "key.path=value"]),
        (["tiny", "--set", "train.steps=many"], ["train.steps"]),
        (["tiny", "--set", "train.batch=0"], ["train", "batch", "at least 1, got 0"]),
        (["tiny", "--set", "train.workers=-1"], ["train", "workers", "0 or more, got -1"]),
        (["tiny", "--set", "train.resize.smallest=0"], ["train.resize", "1 pixel or more"]),
        (["tiny", "--resume"], ["no states"]),
        (["tiny", "--weights", "gone.safetensors"], ["gone.safetensors", "no such file"]),
        (["tiny", "--device", "tpu"], ["device", "tpu"]),
        (["tiny", "--schedule", "3x"], ["3x", "1x, 2x"]),
        (["tiny", "--resize", "crop-1"], ["crop-1", "crop-640"]),
        (["tiny", "--backbone", "gone.pth"], ["NanoBackbone", "--weights"]),
        (
            ["tiny", "--train", "b.json", "--train", "c.json", "--train-images", "d"],
            ["--train-images", "each of the 3 --train", "got 2"],
        ),
        (["tiny", "--train", "gone.yaml"], ["gone.yaml", "cannot be read"]),
    ],
)
def test_mistakes_are_one_line_and_exit_code_2(
    arguments: list[str],
    capsys: pytest.CaptureFixture[str],
    change: list[str],
    words: list[str],
) -> None:
    assert run([arguments[0], *change[:1], *arguments[2:], *change[1:]]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("cn2: error: ")
    for word in words:
        assert word in line


def test_schedules_and_sizes_by_name() -> None:
    config = choose_config("r50-fpn", ["train.batch=32"], "2x", "crop-896")
    assert config.train.steps == 90_000  # twice the pictures of 1x, two batches in one
    assert config.train.resize == ResizeCropConfig(size=896)
    config = choose_config("r50-fpn", ["train.steps=5", "train.resize.smallest=700"], "4x", None)
    assert config.train.steps == 5  # a single setting wins over the name
    assert config.train.milestones == pytest.approx((5 / 6, 17 / 18))


def test_a_backbone_file_is_loaded_before_the_first_step(
    arguments: list[str],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The wiring; what such files hold is tests/trainer/test_pretrained.py."""

    def load(backbone: nn.Module, path: Path) -> list[str]:
        assert path == tmp_path / "imagenet.pth"
        for parameter in backbone.parameters():
            nn.init.constant_(parameter, 0.125)
        return ["fc.weight"]

    monkeypatch.setattr(run_module, "load_backbone", load)
    still = ["--set", "train.base_lr=0.0"]
    assert run([*arguments, *still, "--backbone", str(tmp_path / "imagenet.pth")]) == 0
    assert "imagenet.pth: backbone loaded; left over: fc.weight" in capsys.readouterr().err
    _, _, tensors = read_checkpoint(tmp_path / "run" / "last.safetensors")
    assert (tensors["backbone.stem.0.weight"] == 0.125).all()
    assert not (tensors["neck.lateral.0.weight"] == 0.125).any()


def test_sets_of_two_formats_are_joined_on_the_command_line(
    arguments: list[str], tmp_path: Path
) -> None:
    """YOLO names its own pictures: the one folder given is for the COCO files."""
    content = coco_annotations([(64, 96)], [[(3, [10.0, 8.0, 30.0, 20.0])]])
    content["categories"] = [{"id": 3, "name": "moon"}]
    yolo = write_yolo(content, tmp_path / "pictures", tmp_path / "yolo")
    assert run([*arguments, "--train", str(yolo)]) == 0
    config = json.loads((tmp_path / "run" / "config.json").read_text())
    assert config["class_names"] == ["disc", "box", "star", "moon"]
    assert config["category_ids"] == [1, 3, 7, 8]


def test_a_yolo_set_alone_trains_and_scores_its_own_splits(
    arguments: list[str], tmp_path: Path
) -> None:
    content = coco_annotations([(64, 96)], [[(3, [10.0, 8.0, 30.0, 20.0])]])
    path = write_yolo(content, tmp_path / "pictures", tmp_path / "yolo", "train")
    write_yolo(content, tmp_path / "pictures", tmp_path / "val", "val")
    for kind in ("images", "labels"):
        (tmp_path / "val" / kind / "val").rename(tmp_path / "yolo" / kind / "val")
    path.write_text(path.read_text() + "val: images/val\n")
    options = ["--train", str(path), "--val", str(path), "--out", str(tmp_path / "run")]
    settings = ["--device", "cpu", "--set", "train.steps=1", "--set", "train.batch=1"]
    assert run(["train", "tiny", *options, *settings]) == 0
    provenance = checkpoint_metadata(tmp_path / "run" / "last.safetensors")
    assert str(path) in json.dumps(provenance)


def checkpoint_metadata(path: Path) -> dict[str, str]:
    """The texts in a safetensors file."""
    from safetensors import safe_open

    with safe_open(path, "np") as file:
        return dict(file.metadata())


def test_boxes_out_of_the_picture_are_told_once(
    arguments: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "annotations.json"
    content = coco_annotations([(64, 96)], [[(1, [80.0, 8.0, 30.0, 20.0])]])
    path.write_text(json.dumps(content))
    assert run(arguments) == 0
    lines = capsys.readouterr().err.splitlines()
    assert sum("1 boxes reached out of their picture" in line for line in lines) == 2  # two sets


def test_ctrl_c_is_exit_code_130(arguments: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(train_module, "train", interrupted)
    assert run(arguments) == 130


def test_presets_lists_every_detector(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["presets"]) == 0
    text = capsys.readouterr().out
    for name in presets.PRESETS:
        assert name in text


def test_a_preset_in_words() -> None:
    console = Console(width=200)
    with console.capture() as captured:
        console.print(presets_table())
    rows = captured.get().splitlines()
    assert len(rows) == 1 + len(presets.PRESETS)
    row = describe(find_preset("r50-fpn"))
    assert row[0] == "ResNet-50"
    assert row[1] == "FPN P3-P7, 256 channels"
    assert row[2] == "CenterNet, 256 proposals"
    assert row[3] == "cascade of 3"
    assert row[-1] == "80"


@pytest.mark.parametrize(
    ("preset", "words"),
    [
        ("faster-rcnn-r50-fpn", ("RPN, 1000 proposals", "one box head, boxes of each class")),
        ("r50-fpn-faster", ("CenterNet, 256 proposals", "one box head")),
        ("r50-fpn-lvis-fed", ("CenterNet, 256 proposals", "cascade of 3, sigmoid")),
        ("gfl-r50-fpn", ("GFL, a likelihood per class", "none")),
    ],
)
def test_stages_in_words(preset: str, words: tuple[str, str]) -> None:
    assert stage_names(find_preset(preset).model) == words


def test_losses_are_summed_by_kind() -> None:
    losses = {
        "heatmap_positive": 1.0,
        "heatmap_negative": 2.0,
        "regression": 4.0,
        "class_0": 8.0,
        "class_1": 16.0,
        "box_0": 32.0,
    }
    expected = {"loss": 63.0, "heatmap": 3.0, "regression": 4.0, "class": 24.0, "box": 32.0}
    assert group_losses(losses) == expected


def test_the_meter_means_over_good_steps_and_counts_all_time(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    now = iter([0.0, 1.0, 3.0, 13.0, 14.0, 16.0])
    monkeypatch.setattr(time, "perf_counter", lambda: next(now))
    meter = StepMeter()  # at 0
    meter.data_arrived()  # waited 1 s
    meter.step_done({"a": 1.0, "b": 3.0}, 5.0, pictures=4)  # 2 s
    meter.resume_clock()  # 10 s of something else
    meter.data_arrived()  # waited 1 s
    meter.step_done({"a": float("nan"), "b": 1.0}, float("nan"), pictures=2)  # 2 s
    assert meter.summary() == {
        "loss": 4.0,
        "losses": {"a": 1.0, "b": 3.0},
        "gradient_norm": 5.0,
        "images_per_s": 1.0,
        "waited_for_data": 0.3333,
    }
    meter.clear()
    assert meter.summary()["losses"] == {}


def test_plain_lines_without_a_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    reporter = Reporter(steps=100)
    with reporter.running(0):
        reporter.advance(20)
        reporter.show(20, {"class_0": 1.5}, images_per_s=12.34, left_s=3725)
        reporter.show(40, {"class_0": 1.5}, 12.34, 3725, rate=0.00123, at_least=True)
        reporter.say("[red] is no markup")
    lines = capsys.readouterr().err.splitlines()
    assert lines[0].startswith("step 20/100  loss 1.500")
    assert lines[0].endswith("class 1.500  12.3 images/s  1:02:05 left")
    assert lines[1].endswith("  rate 0.0012  12.3 images/s  at least 1:02:05 left")
    assert lines[2:] == ["[red] is no markup"]


@pytest.mark.parametrize("width", [60, 80, 120])
def test_a_bar_on_a_terminal(width: int, capsys: pytest.CaptureFixture[str]) -> None:
    reporter = Reporter(steps=90_000)
    reporter.console = Console(force_terminal=True, width=width, stderr=True)
    with reporter.running(40):
        losses = {"heatmap_negative": 0.0, "regression": 0.0, "class_0": 1.5, "box_0": 0.0}
        reporter.show(50, losses, images_per_s=12.34, left_s=65, rate=0.02)
        reporter.say("a line above")
    text = capsys.readouterr().err
    assert "50/90000" in text
    assert "0:01:05 left  12.3 images/s  rate 0.02" in text  # on a narrow one too
    assert ("class 1.500" in text) == (width == 120)
    assert "a line above" in text


@pytest.mark.parametrize("terminal", [False, True])
def test_a_silent_reporter_says_nothing(
    terminal: bool, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    if terminal:
        monkeypatch.setenv("FORCE_COLOR", "1")
    reporter = Reporter(steps=100, silent=True)
    assert reporter.console.is_terminal == terminal
    with reporter.running(0):
        reporter.advance(20)
        reporter.show(20, {"class_0": 1.5}, images_per_s=12.34, left_s=3725)
        reporter.say("not for the other processes")
    told = capsys.readouterr()
    assert told.err == told.out == ""


def test_the_clock() -> None:
    assert [clock(s) for s in (0, 59.9, 60, 3661)] == ["0:00:00", "0:00:59", "0:01:00", "1:01:01"]
