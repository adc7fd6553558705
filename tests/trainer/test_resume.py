"""Stopping and going on: a run in two parts ends where the run in one part does."""

import json
import signal
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from cn2.runtime.errors import OutputError, PictureError
from cn2.trainer.checkpoint import load_checkpoint, read_tensors
from cn2.trainer.data.datasets import DataSource
from cn2.trainer.safetensors_file import write_tensors
from cn2.trainer.train import RunFiles, train
from cn2.trainer.train_step import Stepper
from factories import coco_annotations, short_edges, tiny_config, with_training, write_dataset

STEPS = 4
SAME = 1e-6  # the same arithmetic in the same order; CPU threads may sum in another one


@pytest.fixture
def files(tmp_path: Path) -> RunFiles:
    boxes = [[(1, [10.0, 8.0, 30.0, 20.0])], [(7, [50.0, 20.0, 24.0, 40.0])], []]
    content = coco_annotations([(64, 96), (64, 96), (96, 64)], boxes)
    annotations, pictures = write_dataset(tmp_path, content)
    return RunFiles(
        train=(DataSource(annotations=annotations, images=pictures),),
        val=DataSource(annotations=annotations, images=pictures),
        out=tmp_path / "run",
    )


def weights(files: RunFiles) -> dict[str, torch.Tensor]:
    return load_checkpoint(files.out / "last.safetensors")[0].state_dict()


def steps(files: RunFiles) -> list[tuple[int, float]]:
    lines = (files.out / "log.jsonl").read_text().splitlines()
    rows = [row for row in map(json.loads, lines) if row["kind"] == "train"]
    return [(row["step"], row["loss"]) for row in rows]


def interrupt_in_step(monkeypatch: pytest.MonkeyPatch, number: int, kind: signal.Signals) -> None:
    """Send this process a signal in the middle of a step (counted from 1)."""
    calls = 0
    step = Stepper.step

    def interrupted(*arguments: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls == number:
            signal.raise_signal(kind)
        return step(*arguments)

    monkeypatch.setattr(Stepper, "step", interrupted)


@pytest.mark.parametrize("kind", [signal.SIGINT, signal.SIGTERM])
def test_ctrl_c_saves_and_resume_ends_where_the_whole_run_does(
    files: RunFiles,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    kind: signal.Signals,
) -> None:
    config = with_training(tiny_config(), steps=STEPS, save_every=1000, resize=short_edges(48, 64))
    whole = replace(files, out=files.out.with_name("whole"))
    train(config, whole)

    handler = signal.getsignal(kind)
    with monkeypatch.context() as patch:
        interrupt_in_step(patch, 2, kind)
        with pytest.raises(KeyboardInterrupt):
            train(config, files)
    assert signal.getsignal(kind) == handler
    assert "saved at step 2; the same command with --resume continues" in capsys.readouterr().err
    assert [step for step, _ in steps(files)] == [1, 2]

    train(config, files, resume=True)
    assert "continuing at step 2 of 4" in capsys.readouterr().err
    for (step, loss), (expected_step, expected) in zip(steps(files), steps(whole), strict=True):
        assert step == expected_step
        assert loss == pytest.approx(expected, rel=1e-5)
    ours = weights(files)
    for name, value in weights(whole).items():
        assert torch.allclose(ours[name], value, rtol=SAME, atol=SAME), name


def test_a_finished_run_is_only_scored_again(files: RunFiles) -> None:
    config = with_training(tiny_config(), steps=2)
    first = train(config, files)
    before = weights(files)
    log = (files.out / "log.jsonl").read_text()
    second = train(config, files, resume=True)
    assert (files.out / "log.jsonl").read_text() == log  # it is told once
    assert second["AP"] == pytest.approx(first["AP"])
    after = weights(files)
    assert all(torch.equal(before[name], after[name]) for name in before)


def test_a_finished_run_goes_on_when_given_more_steps(files: RunFiles) -> None:
    train(with_training(tiny_config(), steps=1), files)
    train(with_training(tiny_config(), steps=3), files, resume=True)
    assert [step for step, _ in steps(files)] == [1, 2, 3]


def test_the_best_checkpoint_survives_a_resume(files: RunFiles) -> None:
    train(with_training(tiny_config(), steps=1), files)
    state_file = files.out / "states" / "00000001.safetensors"
    tensors, metadata = read_tensors(state_file)
    values = json.loads(metadata["cn2.training"]) | {"best_ap": 0.99}
    write_tensors(state_file, tensors, {"cn2.training": json.dumps(values)})
    best = (files.out / "best.safetensors").read_bytes()
    train(with_training(tiny_config(), steps=2), files, resume=True)
    assert (files.out / "best.safetensors").read_bytes() == best  # nothing beats 0.99


def test_fp16_may_be_switched_on_and_its_scale_goes_on(files: RunFiles) -> None:
    train(with_training(tiny_config(), steps=1), files)
    train(with_training(tiny_config(), steps=2, precision="fp16"), files, resume=True)
    path = files.out / "states" / "00000002.safetensors"
    tensors, metadata = read_tensors(path)
    values = json.loads(metadata["cn2.training"])
    values["scaler"]["scale"] = 256.0
    write_tensors(path, tensors, {"cn2.training": json.dumps(values)})
    train(with_training(tiny_config(), steps=3, precision="fp16"), files, resume=True)
    _, metadata = read_tensors(files.out / "states" / "00000003.safetensors")
    assert json.loads(metadata["cn2.training"])["scaler"]["scale"] == 256.0
    train(with_training(tiny_config(), steps=4), files, resume=True)  # and off again
    assert [step for step, _ in steps(files)] == [1, 2, 3, 4]


def test_mended_pictures_do_not_count_after_a_resume(files: RunFiles) -> None:
    assert files.val.images is not None
    path = files.val.images / "picture_0.png"
    whole = path.read_bytes()
    path.write_bytes(b"torn")
    config = with_training(tiny_config(), steps=4, broken_limit=0.0)
    with pytest.raises(PictureError, match="1 of 3 pictures"):
        train(config, files)
    path.write_bytes(whole)
    train(config, files, resume=True)
    assert [step for step, _ in steps(files)] == [1, 2, 3, 4]


def test_a_torn_config_is_named(files: RunFiles) -> None:
    train(with_training(tiny_config(), steps=1), files)
    (files.out / "config.json").write_text("")
    with pytest.raises(OutputError, match=r"config\.json: expected the config of the run"):
        train(with_training(tiny_config(), steps=2), files, resume=True)
