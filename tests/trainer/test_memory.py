"""The training process takes no more memory after 2,000 steps than after 300."""

from __future__ import annotations

import json
import statistics
import time
from pathlib import Path

import psutil
import pytest

from cn2.trainer.progress import read_log
from factories import coco_annotations, write_dataset
from rank_training import Started, start

STEPS = 2000
WARMUP_STEPS = 300  # two scorings, two states, every canvas: all that is kept for ever is there
WINDOW_STEPS = 300
POLL_S = 0.2
# A batch is 36 kB and the tensors of its step are some MB: keeping a batch of each step adds 50 MB,
# keeping a row of numbers 2 MB. The allocator moves the figure by a few MB either way.
GROWTH_MB = 8.0
SIZES = [(64, 96), (60, 96), (96, 64), (50, 80), (64, 96), (64, 64), (72, 90), (64, 96)]
BOXES = [
    [(1, [10.0, 8.0, 30.0, 20.0]), (7, [50.0, 20.0, 24.0, 40.0])],
    [],
    [(3, [0.0, 0.0, 40.0, 30.0])],
    [(1, [50.0, 20.0, 26.0, 24.0]), (3, [4.0, 20.0, 20.0, 20.0])],
] * 2
SETTINGS = (
    f"train.steps={STEPS}",
    "train.batch=2",
    "train.lr_batch=2",
    "train.base_lr=0.001",
    "train.log_every=10",
    "train.eval_every=150",
    "train.save_every=150",
    "train.workers=1",
    "train.cache_mb=1",
    "train.ema_decay=0.9",
    "train.watch=true",
    "train.broken_limit=0.5",
)


@pytest.mark.slow
def test_memory_is_flat_over_2000_steps(tmp_path: Path) -> None:
    """With scorings, states, TensorBoard and two broken pictures on the way."""
    _, pictures = write_dataset(tmp_path, coco_annotations(SIZES, BOXES))
    (pictures / "picture_4.png").write_bytes(b"")
    (pictures / "picture_5.png").write_text("not a picture")
    run = start(tmp_path, tmp_path / "run", *SETTINGS)
    samples = follow(run, tmp_path / "run" / "log.jsonl")
    run.finish()
    kinds = [row["kind"] for row in read_log(tmp_path / "run" / "log.jsonl")]
    assert (kinds.count("broken"), kinds.count("validation")) == (2, STEPS // 150 + 1)
    early = memory_mb(samples, WARMUP_STEPS)
    late = memory_mb(samples, STEPS - WINDOW_STEPS)
    print(json.dumps({"early_mb": early, "late_mb": late}))  # noqa: T201
    assert late - early < GROWTH_MB


def follow(run: Started, log: Path) -> list[tuple[int, float]]:
    """(steps logged, resident MB) of the training process until it ends, some five a second."""
    (process,) = run.processes
    assert process.pid is not None
    watched = psutil.Process(process.pid)
    samples = []
    while process.is_alive():
        step = max((row["step"] for row in read_log(log)), default=0)
        try:
            samples.append((step, watched.memory_info().rss / 1e6))
        except psutil.NoSuchProcess:
            break
        time.sleep(POLL_S)
    return samples


def memory_mb(samples: list[tuple[int, float]], first_step: int) -> float:
    """The median over a window of steps; what comes after the last step is not in it."""
    window = range(first_step, min(first_step + WINDOW_STEPS, STEPS))
    of_window = [mb for step, mb in samples if step in window]
    assert len(of_window) >= 20
    return statistics.median(of_window)
