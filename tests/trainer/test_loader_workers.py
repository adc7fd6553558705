"""The processes that read pictures: they end with the training process, and hold little open."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from cn2.trainer.data.coco import load_coco
from cn2.trainer.data.loader import train_batches
from factories import coco_annotations, tiny_config, with_training, write_dataset

SIZES = [(64, 96)] * 4
BOXES = [[(1, [2.0, 1.0, 8.0, 8.0])]] * 4
SCRIPT = """
import sys, time
from pathlib import Path
from cn2.trainer.data.coco import load_coco
from cn2.trainer.data.loader import train_batches
from factories import tiny_config, with_training

if __name__ == "__main__":
    data = load_coco(Path(sys.argv[1]), Path(sys.argv[2]))
    config = with_training(tiny_config(), steps=10**6, workers=2, prefetch=1, cache_mb=1)
    batches = train_batches(data, config)
    next(batches)
    print("ready", flush=True)
    time.sleep(600)
"""


def running(text: str, folder: Path, *arguments: Path) -> subprocess.Popen[bytes]:
    """A script in a process of its own, which may import what tests share."""
    script = folder / "script.py"
    script.write_text(text)
    paths = os.pathsep.join([str(Path(__file__).parents[1]), os.environ.get("PYTHONPATH", "")])
    return subprocess.Popen(
        [sys.executable, str(script), *map(str, arguments)],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        env={**os.environ, "PYTHONPATH": paths},
    )


@pytest.mark.skipif(sys.platform != "linux", reason="lists processes and descriptors by /proc")
def test_no_process_outlives_a_killed_training(tmp_path: Path) -> None:
    files = write_dataset(tmp_path, coco_annotations(SIZES, BOXES))
    with running(SCRIPT, tmp_path, *files) as training:
        assert training.stdout is not None
        assert training.stdout.readline() == b"ready\n"
        children = psutil.Process(training.pid).children(recursive=True)
        assert len(children) >= 3  # a server of new processes, two workers
        training.send_signal(signal.SIGKILL)
    _, alive = psutil.wait_procs(children, timeout=30)
    for process in alive:
        process.kill()
    assert alive == []


STOPPED_SCRIPT = """
import sys
from dataclasses import replace
from pathlib import Path
from cn2.trainer.data.datasets import DataSource
from cn2.trainer.train import RunFiles, train
from factories import tiny_config, with_training

if __name__ == "__main__":
    source = DataSource(annotations=Path(sys.argv[1]), images=Path(sys.argv[2]))
    config = with_training(tiny_config(), steps=10**6, workers=1, log_every=1)
    train(config, RunFiles(train=(source,), val=source, out=Path(sys.argv[3])), device="cpu")
"""


def test_a_script_that_trains_ends_when_it_is_stopped(tmp_path: Path) -> None:
    """Its traceback holds the loop's variables, and with them what has to be closed by hand."""
    files, out = write_dataset(tmp_path, coco_annotations(SIZES, BOXES)), tmp_path / "run"
    with running(STOPPED_SCRIPT, tmp_path, *files, out) as training:
        while not (out / "log.jsonl").exists():
            assert training.poll() is None
            time.sleep(0.1)
        training.send_signal(signal.SIGTERM)
        try:
            training.wait(timeout=60)
        finally:
            training.kill()
    assert training.returncode == -signal.SIGINT  # as Python tells a KeyboardInterrupt
    assert any((out / "states").iterdir())


def test_a_batch_of_many_pictures_costs_one_descriptor(tmp_path: Path) -> None:
    """A tensor sent between processes keeps a file open: not one for each target."""
    data = load_coco(*write_dataset(tmp_path, coco_annotations(SIZES, BOXES)))
    config = with_training(tiny_config(), batch=16, steps=12, workers=1)
    batches = train_batches(data, config)
    kept = [next(batches)]
    time.sleep(0.2)
    before = len(os.listdir("/proc/self/fd"))
    kept += [next(batches) for _ in range(8)]
    assert len(os.listdir("/proc/self/fd")) - before <= 8 + 4  # a few on their way
    assert kept[8].targets[15].boxes.shape == (1, 4)


def test_prefetch_is_how_many_batches_a_worker_prepares(tmp_path: Path) -> None:
    data = load_coco(*write_dataset(tmp_path, coco_annotations(SIZES, BOXES)))
    config = with_training(tiny_config(), batch=1, steps=40, workers=1, prefetch=7)
    batches = train_batches(data, config)
    next(batches)
    loader = batches.gi_frame.f_locals["loader"]  # type: ignore[attr-defined]
    assert loader.prefetch_factor == 7
    assert len(list(batches)) == 39
