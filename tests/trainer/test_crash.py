"""Killed at any moment, a run goes on from its last whole state and ends where it would have."""

from __future__ import annotations

import json
import signal
import time
from pathlib import Path
from typing import Any

import pytest
import torch

from cn2.trainer.checkpoint import read_checkpoint
from factories import coco_annotations, write_dataset
from rank_training import start

SAME = 1e-6
SIZES = [(64, 96), (60, 96), (96, 64), (50, 80)]
BOXES = [
    [(1, [10.0, 8.0, 30.0, 20.0]), (7, [50.0, 20.0, 24.0, 40.0])],
    [],
    [(3, [0.0, 0.0, 40.0, 30.0])],
    [(1, [50.0, 20.0, 26.0, 24.0]), (3, [4.0, 20.0, 20.0, 20.0])],
]
SETTINGS = ("train.ema_decay=0.9", "train.eval_every=4", "train.batch=2", "train.lr_batch=2")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("crash")
    write_dataset(folder, coco_annotations(SIZES, BOXES))
    return folder


def rows(out: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (out / "log.jsonl").read_text().splitlines()]


def assert_same_run(one: Path, two: Path) -> None:
    """Both ended with the same weights and tell the same steps and scores."""
    for name in ("last.safetensors", "best.safetensors"):
        _, _, first = read_checkpoint(one / name)
        _, _, second = read_checkpoint(two / name)
        for key, value in first.items():
            torch.testing.assert_close(second[key], value, rtol=SAME, atol=SAME, msg=key)
    told = [
        [(r["kind"], r["step"], r.get("loss"), r.get("AP")) for r in rows(o)] for o in (one, two)
    ]
    assert told[0] == told[1]


@pytest.fixture(scope="module")
def whole(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of 8 steps that nothing disturbed."""
    out = tmp_path_factory.mktemp("whole")
    start(folder, out, *SETTINGS, "train.steps=8", "train.save_every=2").finish()
    return out


# A file is two fsyncs: its own, then its folder's. The first file is config.json, then, at step 2,
# `last` and the state; at step 4 `best`, `last` and the state.
@pytest.mark.parametrize("fsync", [1, 3, 5, 6, 11])
def test_killed_while_it_saves(folder: Path, whole: Path, tmp_path: Path, fsync: int) -> None:
    settings = (*SETTINGS, "train.steps=8", "train.save_every=2")
    killed = start(folder, tmp_path, *settings, kill_at_fsync=fsync)
    assert killed.wait() == [-signal.SIGKILL]
    begun = any((tmp_path / "states").glob("*.safetensors"))
    assert begun == (fsync > 5)  # killed before its first state, the run has to start anew
    start(folder, tmp_path, *settings, resume=begun).finish()
    assert_same_run(whole, tmp_path)


@pytest.mark.slow
def test_killed_after_100_of_200_steps(folder: Path, tmp_path: Path) -> None:
    settings = (*SETTINGS, "train.steps=200", "train.save_every=25")
    start(folder, tmp_path / "whole", *settings).finish()
    (process,) = start(folder, tmp_path / "killed", *settings).processes
    while not (tmp_path / "killed" / "states" / "00000100.safetensors").exists():
        assert process.is_alive()
        time.sleep(0.01)
    time.sleep(0.3)  # some steps on from the state
    process.kill()
    process.join()
    (told,) = start(folder, tmp_path / "killed", *settings, resume=True).finish()
    assert "continuing at step 1" in told  # 100 or 125
    assert_same_run(tmp_path / "whole", tmp_path / "killed")
