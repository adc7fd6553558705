"""One run of training for tests, with GroupNorm for BatchNorm; torchrun starts several at once.

python rank_training.py FOLDER OUT [key.path=value ...]

RESUME=1 continues the run in OUT. KILL_AT_FSYNC=n ends the process by SIGKILL at its n-th fsync:
in the middle of writing a state or a checkpoint, or between the two.
"""

import itertools
import os
import signal
import sys
from functools import partial
from pathlib import Path

import torch
from torch import nn

sys.path.insert(0, str(Path(__file__).parent.parent))

from cn2.trainer import layers
from cn2.trainer.config import apply_overrides
from cn2.trainer.train import RunFiles, train
from factories import short_edges, tiny_config, with_training


def kill_at_fsync(number: int) -> None:
    """Let the n-th fsync (counted from 1) be the last thing that this process does."""
    calls = itertools.count(1)
    fsync = os.fsync

    def killing(descriptor: int) -> None:
        if next(calls) == number:
            os.kill(os.getpid(), signal.SIGKILL)
        fsync(descriptor)

    os.fsync = killing  # type: ignore[assignment]


def main(folder: Path, out: Path, *overrides: str) -> None:
    """Train on FOLDER/annotations.json and score on the same."""
    torch.set_num_threads(1)
    layers.nn.BatchNorm2d = partial(nn.GroupNorm, 2)  # type: ignore[misc,assignment]
    config = with_training(
        tiny_config(), batch=4, lr_batch=4, steps=5, resize=short_edges(48, 64), save_every=100
    )
    files = RunFiles(
        train=folder / "annotations.json",
        train_images=folder / "pictures",
        val=folder / "annotations.json",
        val_images=folder / "pictures",
        out=out,
    )
    resume = os.environ.get("RESUME") == "1"
    kill_at_fsync(int(os.environ.get("KILL_AT_FSYNC", "0")))
    train(apply_overrides(config, overrides), files, resume=resume, device="cpu")


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]), *sys.argv[3:])
