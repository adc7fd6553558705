"""Runs of training for tests, in processes of their own, with GroupNorm for BatchNorm.

`start` forks them from a server that has loaded torch once. As a script, for torchrun:

    torchrun ... rank_training.py FOLDER OUT [key.path=value ...]
"""

from __future__ import annotations

import itertools
import multiprocessing
import os
import signal
import socket
import sys
from dataclasses import dataclass
from functools import partial
from multiprocessing.context import ForkServerProcess
from pathlib import Path
from typing import Any

import torch
from torch import nn

sys.path.insert(0, str(Path(__file__).parent))  # as a script

from cn2.trainer import layers
from cn2.trainer.config import apply_overrides
from cn2.trainer.data.coco import CocoDataset
from cn2.trainer.data.datasets import DataSource
from cn2.trainer.run import Run, RunFiles
from cn2.trainer.train import train
from factories import short_edges, tiny_config, with_training

WAIT_S = 240


def train_tiny(
    folder: Path, out: Path, *overrides: str, resume: bool = False, batch_norm: bool = False
) -> None:
    """Train on FOLDER/annotations.json and score on the same: four pictures a step, five steps."""
    torch.set_num_threads(1)
    if not batch_norm:
        layers.nn.BatchNorm2d = partial(nn.GroupNorm, 2)  # type: ignore[misc,assignment]
    config = with_training(
        tiny_config(), batch=4, lr_batch=4, steps=5, resize=short_edges(48, 64), save_every=100
    )
    source = DataSource(annotations=folder / "annotations.json", images=folder / "pictures")
    files = RunFiles(train=(source,), val=source, out=out)
    train(apply_overrides(config, overrides), files, resume=resume, device="cpu")


@dataclass
class Started:
    """The processes of one run, and the files that get their stderr."""

    processes: list[ForkServerProcess]
    errors: list[Path]

    def wait(self) -> list[int | None]:
        """Exit codes, by rank."""
        for process in self.processes:
            process.join(WAIT_S)
        return [process.exitcode for process in self.processes]

    def finish(self) -> list[str]:
        """What each rank told on stderr; all have to end well."""
        codes, told = self.wait(), [path.read_text() for path in self.errors]
        assert codes == [0] * len(codes), told
        return told


def start(
    folder: Path,
    out: Path,
    *overrides: str,
    resume: bool = False,
    world: int = 1,
    kill_at_fsync: int = 0,
    batch_norm: bool = False,
) -> Started:
    """Begin a run.

    Args:
        folder: of the data, with annotations.json and pictures/.
        out: the run's folder.
        overrides: settings as for --set.
        resume: continue the run in `out`.
        world: processes.
        kill_at_fsync: each process ends by SIGKILL at its n-th fsync, counted from 1: in the
            middle of writing a state or checkpoint, or between two.
        batch_norm: keep BatchNorm. Each rank then leaves the statistics that it scored with, as
            out/scored_RANK.pt.
    """
    out.mkdir(parents=True, exist_ok=True)
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["cn2.trainer.train"])  # heavy; found without sys.path
    errors = [out / f"stderr_{rank}" for rank in range(world)]
    environment = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(_free_port())}
    environment |= {"WORLD_SIZE": str(world)}
    processes = []
    for rank, error in enumerate(errors):
        values = environment | {"RANK": str(rank), "LOCAL_RANK": str(rank)}
        arguments = (folder, out, overrides, resume, kill_at_fsync, batch_norm, values, error)
        processes.append(context.Process(target=_run, args=arguments))
        processes[-1].start()
    return Started(processes, errors)


def _run(
    folder: Path,
    out: Path,
    overrides: tuple[str, ...],
    resume: bool,
    kill_at_fsync: int,
    batch_norm: bool,
    environment: dict[str, str],
    error: Path,
) -> None:
    os.environ.update(environment)
    sys.stderr = error.open("w", buffering=1)
    _kill_at_fsync(kill_at_fsync)
    if batch_norm:
        _keep_scored_statistics(out / f"scored_{environment['RANK']}.pt")
    train_tiny(folder, out, *overrides, resume=resume, batch_norm=batch_norm)


def _keep_scored_statistics(path: Path) -> None:
    score = Run.score

    def keeping(run: Run, data: CocoDataset) -> tuple[dict[str, Any], bool]:
        found = score(run, data)
        torch.save(dict(run.kept.named_buffers()), path)
        return found

    Run.score = keeping  # type: ignore[method-assign]


def _kill_at_fsync(number: int) -> None:
    calls = itertools.count(1)
    fsync = os.fsync

    def killing(descriptor: int) -> None:
        if next(calls) == number:
            os.kill(os.getpid(), signal.SIGKILL)
        fsync(descriptor)

    os.fsync = killing  # type: ignore[assignment]


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


if __name__ == "__main__":
    train_tiny(Path(sys.argv[1]), Path(sys.argv[2]), *sys.argv[3:])
