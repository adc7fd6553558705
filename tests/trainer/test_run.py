"""What surrounds the steps of a run: early stopping, the best checkpoint, events, curves."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import pytest
import torch
from torch import nn

import cn2.trainer.run as run_module
from cn2.trainer.build import build_detector
from cn2.trainer.checkpoint import read_checkpoint
from cn2.trainer.data.datasets import DataSource
from cn2.trainer.distributed import Ranks
from cn2.trainer.run import RunFiles
from cn2.trainer.train import train
from factories import coco_annotations, tiny_config, with_training, write_dataset


@pytest.fixture
def files(tmp_path: Path) -> RunFiles:
    boxes = [[(1, [10.0, 8.0, 30.0, 20.0])], [(7, [50.0, 20.0, 24.0, 40.0])], []]
    content = coco_annotations([(64, 96), (64, 96), (96, 64)], boxes)
    annotations, pictures = write_dataset(tmp_path, content)
    source = DataSource(annotations=annotations, images=pictures)
    return RunFiles(train=(source,), val=source, out=tmp_path / "run")


def rows(files: RunFiles, kind: str) -> list[dict[str, Any]]:
    lines = (files.out / "log.jsonl").read_text().splitlines()
    return [row for row in map(json.loads, lines) if row["kind"] == kind]


def score_as(monkeypatch: pytest.MonkeyPatch, *aps: float | None) -> None:
    """Let the scorings give these APs, one after another."""
    left = iter(aps)

    def validate(*_: Any) -> tuple[dict[str, Any], list[Any]]:
        ap = next(left)
        return {"AP": ap, "AP50": ap, "per_class": {}, "images": 3}, []

    monkeypatch.setattr(run_module, "validate", validate)


def step_of(path: Path) -> int:
    _, metadata, _ = read_checkpoint(path)
    return int(metadata["cn2.provenance"].rpartition(" ")[2])


def test_early_stopping_keeps_the_best(
    files: RunFiles, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    score_as(monkeypatch, 0.2, 0.5, 0.5, 0.4)
    config = with_training(tiny_config(), steps=50, eval_every=2, patience=2)
    metrics = train(config, files)
    assert metrics["AP"] == 0.4
    assert [row["step"] for row in rows(files, "validation")] == [2, 4, 6, 8]
    assert "stopped at step 8: no better AP in 2 scorings" in capsys.readouterr().err
    assert step_of(files.out / "best.safetensors") == 4
    assert step_of(files.out / "last.safetensors") == 8


def test_patience_goes_on_after_a_resume(files: RunFiles, monkeypatch: pytest.MonkeyPatch) -> None:
    score_as(monkeypatch, 0.5, 0.4)
    train(with_training(tiny_config(), steps=4, eval_every=2, patience=3), files)
    score_as(monkeypatch, 0.3, 0.2, 0.1)
    train(with_training(tiny_config(), steps=40, eval_every=2, patience=3), files, resume=True)
    assert [row["step"] for row in rows(files, "validation")] == [2, 4, 6, 8]
    assert step_of(files.out / "best.safetensors") == 2


def test_a_best_checkpoint_exists_without_an_object_to_score(
    files: RunFiles, monkeypatch: pytest.MonkeyPatch
) -> None:
    score_as(monkeypatch, None, None)
    train(with_training(tiny_config(), steps=4, eval_every=2, patience=1), files)
    assert step_of(files.out / "best.safetensors") == 2


def test_mean_weights_are_what_is_scored_and_saved(files: RunFiles) -> None:
    still = with_training(tiny_config(), steps=3, ema_decay=0.999)
    train(still, files)
    plain = replace(files, out=files.out.with_name("plain"))
    train(with_training(still, ema_decay=0.0), plain)
    _, _, mean = read_checkpoint(files.out / "last.safetensors")
    _, _, last = read_checkpoint(plain.out / "last.safetensors")
    assert mean.keys() == last.keys()
    assert any(not (mean[name] == value).all() for name, value in last.items())


def test_events_and_curves_are_written(files: RunFiles) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    config = with_training(tiny_config(), steps=4, eval_every=2, watch=True)
    train(config, files)
    events = EventAccumulator(str(files.out), size_guidance={"images": 0})
    events.Reload()
    tags = events.Tags()
    logged = {row["step"]: row for row in rows(files, "train")}
    losses = next(tag for tag in tags["scalars"] if tag.endswith("/regression"))
    for event in events.Scalars(losses):
        assert event.value == pytest.approx(logged[event.step]["losses"]["regression"], rel=1e-5)
    assert tags["images"]  # sample pictures with boxes
    curves = cv2.imread(str(files.out / "curves.png"))
    assert curves is not None
    assert min(curves.shape[:2]) > 300


@pytest.mark.parametrize(
    ("wanted", "world", "device", "expected"),
    [
        (True, 2, "cuda", True),
        (False, 2, "cuda", False),
        (True, 1, "cuda", False),  # one GPU has nobody to share with
        (True, 2, "cpu", False),  # torch has it for GPUs alone
    ],
)
def test_batch_norm_over_several_gpus(
    wanted: bool, world: int, device: str, expected: bool
) -> None:
    config = with_training(tiny_config(), sync_batch_norm=wanted)
    model = build_detector(config)
    names = list(model.state_dict())
    ranks = Ranks(world=world, device=torch.device(device))
    model = run_module.synchronise_norms(model, config, ranks)
    norms = [m for m in model.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)]
    assert norms
    assert {isinstance(norm, nn.SyncBatchNorm) for norm in norms} == {expected}
    assert list(model.state_dict()) == names  # the checkpoint is the same
