"""Several processes train as one with all the pictures does."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from cn2.trainer.checkpoint import read_checkpoint
from cn2.trainer.distributed import Ranks, joined_ranks
from factories import coco_annotations, write_dataset
from rank_training import start

SCRIPT = Path(__file__).parent.parent / "rank_training.py"
SIZES = [(64, 96), (60, 96), (96, 64), (50, 80), (64, 64), (96, 60), (64, 90)]
BOXES = [
    [(1, [10.0, 8.0, 30.0, 20.0]), (7, [50.0, 20.0, 24.0, 40.0])],
    [],  # a picture without an object: its process has fewer than the other
    [(3, [0.0, 0.0, 40.0, 30.0])],
    [(1, [50.0, 20.0, 26.0, 24.0]), (3, [4.0, 20.0, 20.0, 20.0])],
    [(7, [5.0, 5.0, 50.0, 50.0])],
    [(1, [5.0, 50.0, 20.0, 20.0])],
    [(3, [40.0, 10.0, 40.0, 50.0])],
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Seven small pictures, landscape, portrait and square."""
    folder = tmp_path_factory.mktemp("ranks")
    write_dataset(folder, coco_annotations(SIZES, BOXES))
    return folder


def rows(out: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (out / "log.jsonl").read_text().splitlines()]


CROPS = 'train.resize={"kind":"resize-crop","size":64,"scale":[0.5,1.5]}'
MORE = ("train.accumulate=2", "train.ema_decay=0.9", "train.clip_value=0.01", "train.flip=0.5")


@pytest.mark.parametrize("settings", [(), (*MORE, CROPS)], ids=["plain", "all at once"])
def test_two_processes_equal_one_with_the_double_batch(
    folder: Path, tmp_path: Path, settings: tuple[str, ...]
) -> None:
    start(folder, tmp_path / "one", *settings).finish()
    main, other = start(folder, tmp_path / "two", *settings, world=2).finish()
    assert "step 5/5" in main
    assert "step" not in other  # rank 0 reports, and nobody else
    assert_same_run(tmp_path / "one", tmp_path / "two")


def test_all_ranks_score_the_same_statistics(folder: Path, tmp_path: Path) -> None:
    """BatchNorm's are each process's own in training; what is scored is what rank 0 saves."""
    start(folder, tmp_path, "train.ema_decay=0.5", world=2, batch_norm=True).finish()
    first, second = (torch.load(tmp_path / f"scored_{rank}.pt") for rank in (0, 1))
    _, _, saved = read_checkpoint(tmp_path / "last.safetensors")
    statistics = [name for name in first if "running_" in name]
    assert statistics
    for name in statistics:
        assert torch.equal(first[name], second[name]), name
        assert torch.equal(first[name], saved[name]), name


@pytest.mark.slow
def test_torchrun_starts_them(folder: Path, tmp_path: Path) -> None:
    launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    command = [sys.executable, *launcher, str(SCRIPT), str(folder), str(tmp_path / "two")]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=240)
    assert done.returncode == 0, done.stderr[-2000:]
    assert done.stderr.count("step 5/5") == 1
    start(folder, tmp_path / "one").finish()
    assert_same_run(tmp_path / "one", tmp_path / "two")


@pytest.mark.parametrize("part", ["train.batch=3", "train.accumulate=4"])
def test_a_batch_that_cannot_be_split_is_refused(folder: Path, tmp_path: Path, part: str) -> None:
    started = start(folder, tmp_path, part, "train.lr_batch=1", world=2)
    assert started.wait() == [1, 1]
    for error in started.errors:
        assert "train.batch" in error.read_text().splitlines()[-1]


def assert_same_run(first: Path, second: Path) -> None:
    """Both ended with the same weights, and told the same losses and scores."""
    _, _, one = read_checkpoint(first / "last.safetensors")
    _, _, two = read_checkpoint(second / "last.safetensors")
    for name, value in one.items():
        torch.testing.assert_close(two[name], value, rtol=1e-5, atol=1e-5, msg=name)
    for a, b in zip(rows(first), rows(second), strict=True):
        assert (a["kind"], a["step"]) == (b["kind"], b["step"])
        if a["kind"] == "train":
            assert b["losses"] == pytest.approx(a["losses"], rel=1e-4)
            assert b["gradient_norm"] == pytest.approx(a["gradient_norm"], rel=1e-4)
        else:
            assert b["images"] == a["images"] == 7  # every picture is scored, and once
            assert b["AP"] == pytest.approx(a["AP"], abs=1e-4)


def test_one_process_is_alone_without_torchrun(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    with joined_ranks("cpu") as ranks:
        assert ranks == Ranks(device=torch.device("cpu"))
        assert ranks.sum([1.0, 2.5]) == [1.0, 2.5]
        assert ranks.gather(["a"]) == ["a"]
        assert [ranks.share(0), ranks.share(1), ranks.share(8)] == [1.0, 1.0, 8.0]
        assert ranks.on_main(lambda: 3) == 3
