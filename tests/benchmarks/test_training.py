"""benchmarks/training.py: the parts of a step add up, and say which part is slow."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch

from benchmark_scripts import imported
from cn2.trainer import presets
from factories import coco_annotations, tiny_config, with_training, write_dataset

PICTURES = 5
PAUSE_S = 0.3
NO_GPU = {"works": False, "reason": "no driver", "fix": "install one"}


@pytest.fixture(scope="module")
def script() -> Iterator[ModuleType]:
    with imported("training") as scripts:
        yield scripts["training"]


@pytest.fixture
def options(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Of the command line: five pictures, and a preset of 8 channels under the name nano."""
    config = replace(tiny_config(), preset="nano")
    monkeypatch.setitem(presets.PRESETS, "nano", lambda: config)
    boxes = [[(1, [10.0, 8.0, 30.0, 20.0]), (3, [40.0, 20.0, 30.0, 40.0])]] * PICTURES
    content = coco_annotations([(64, 96)] * PICTURES, boxes)
    annotations, pictures = write_dataset(tmp_path, content)
    data = ["--annotations", str(annotations), "--images", str(pictures)]
    return ["--presets", "nano", *data, "--out", str(tmp_path / "training.json")]


def result(options: list[str]) -> dict[str, Any]:
    document: dict[str, Any] = json.loads(Path(options[-1]).read_text())
    return document


def test_script(script: ModuleType, options: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(script, "run_probe", lambda *_: NO_GPU)
    script.main(["--steps", "2", "--batch", "2", *options])
    document = result(options)
    assert document["skipped"] == [
        {"what": "cuda, every preset", "reason": "no driver; install one"}
    ]
    assert document["machine"]["load_average_before"] >= 0
    assert document["data"] == {"set": "annotations.json", "pictures": PICTURES}
    (row,) = document["rows"]
    assert (row["preset"], row["device"], row["batch"], row["steps"]) == ("nano", "cpu", 2, 2)
    assert row["canvases"] == {"64x96": 2}
    assert row["threads"] == torch.get_num_threads()
    whole = 1e3 / row["images_per_s"]
    assert sum(row["ms_per_image"].values()) == pytest.approx(whole, rel=0.02)
    assert sum(row["share"].values()) == pytest.approx(1, abs=1e-3)
    groups = row["groups"].values()
    assert sum(group["share"] for group in groups) + row["share"]["step"] == pytest.approx(
        1, abs=1e-3
    )
    for phase in ("forward", "backward"):
        total = sum(group[f"{phase}_ms"] for group in groups)
        assert total == pytest.approx(row["ms_per_image"][phase], abs=0.1)
    assert row["groups"]["proposals"]["backward_ms"] == 0
    loader = row["loader"]
    assert (loader["workers"], loader["pictures"]) == (1, PICTURES)
    speeds = [loader[kind] for kind in ("plain", "cached")]
    assert all(value > 1 for speed in speeds for value in speed.values())
    ratio = loader["plain"]["images_per_s"] / row["images_per_s"]
    assert row["loader_to_model"] == pytest.approx(ratio, abs=0.1)


class Slow(torch.autograd.Function):
    """Identity that takes its time in one direction."""

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, forward: float, backward: float) -> torch.Tensor:
        ctx.pause = backward
        time.sleep(forward)
        return x.clone()

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> tuple[torch.Tensor, None, None]:
        time.sleep(ctx.pause)
        return gradient, None, None


# What is slowed: the layer whose output is passed through `Slow`, and how often it runs.
PLACES = {
    "backbone": ("backbone", 1),
    "neck": ("neck.lateral.0", 1),
    "first stage": ("first_stage.head.heatmap", 3),  # a level each
    "box heads": ("second_stage.stages.1.layers.0", 1),
}


@pytest.mark.parametrize("phase", ["forward", "backward"])
@pytest.mark.parametrize("group", list(PLACES))
def test_a_slow_part_is_found(
    script: ModuleType, options: list[str], group: str, phase: str
) -> None:
    """The clock sees the pause where it is, in the direction that it is in."""
    arguments = script.parse(options)
    data = script.read_data(arguments.annotations, arguments.images)
    config = with_training(tiny_config(), steps=1)
    stepper = script.make_stepper(config, torch.device("cpu"))
    name, times = PLACES[group]
    pauses = (PAUSE_S, 0.0) if phase == "forward" else (0.0, PAUSE_S)

    def slow(_: Any, __: Any, output: Any) -> Any:
        if isinstance(output, torch.Tensor):
            return Slow.apply(output, *pauses)
        *others, last = output  # the finest of a backbone's features may have no use
        return [*others, Slow.apply(last, *pauses)]

    stepper.model.get_submodule(name).register_forward_hook(slow)
    clock = script.StepClock(time.perf_counter)
    with script.watched(stepper, clock):
        script.run_steps(stepper, list(script.train_batches(data, config)), clock)
    assert clock.seconds[phase, group] >= times * PAUSE_S
    other = "backward" if phase == "forward" else "forward"
    rest = [value for key, value in clock.seconds.items() if key != (phase, group)]
    assert clock.seconds[other, group] < clock.seconds[phase, group]
    assert max(rest) < clock.seconds[phase, group]


def test_the_clock_leaves_the_stepper_as_it_was(script: ModuleType) -> None:
    stepper = script.make_stepper(tiny_config(), torch.device("cpu"))
    clock = script.StepClock(time.perf_counter)
    before = [len(module._forward_hooks) for module in stepper.module.modules()]
    with script.watched(stepper, clock):
        assert "pool" in vars(stepper.model.second_stage)
    assert [len(module._forward_hooks) for module in stepper.module.modules()] == before
    assert "pool" not in vars(stepper.model.second_stage)
    assert "propose" not in vars(stepper.model.first_stage)
    assert "unscale_" not in vars(stepper.scaler)
    assert clock.seconds == {}


def test_a_preset_that_fails_is_skipped_and_the_next_one_measured(
    script: ModuleType, options: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(preset: str, *_: Any) -> dict[str, Any]:
        if preset == "r50-fpn":
            raise RuntimeError("CUDA out of memory.\n  Tried to allocate 7 GiB")
        return {"preset": preset}

    monkeypatch.setattr(script, "run_probe", lambda *_: {"works": True})
    monkeypatch.setattr(script, "measure", fail)
    script.main([*options[2:], "--presets", "r50-fpn", "nano", "--devices", "cuda"])
    document = json.loads(Path(options[-1]).read_text())
    assert document["rows"] == [{"preset": "nano"}]
    reason = "CUDA out of memory. Tried to allocate 7 GiB"
    assert document["skipped"] == [{"what": "r50-fpn on cuda", "reason": reason}]


def test_added_rows_replace_their_own_kind_alone(
    script: ModuleType, options: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(script, "run_probe", lambda *_: NO_GPU)
    speeds = iter([1, 2, 3, 4])

    def measured(preset: str, device: str, *_: Any) -> dict[str, Any]:
        return {"preset": preset, "device": device, "images_per_s": next(speeds)}

    monkeypatch.setattr(script, "measure", measured)
    script.main([*options, "--presets", "nano", "r50-fpn"])
    script.main([*options, "--add"])
    document = result(options)
    speed = {row["preset"]: row["images_per_s"] for row in document["rows"]}
    assert speed == {"nano": 3, "r50-fpn": 2}
    assert [one["what"] for one in document["skipped"]] == ["cuda, every preset"]
    script.main(options)  # a new result
    assert [row["images_per_s"] for row in result(options)["rows"]] == [4]
