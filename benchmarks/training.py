"""Speed of training on this machine: forward, backward, step and data loading, each apart.

Steps are those of `cn2 train` with the preset's recipe on BCCD, from random weights, with smaller
batches on a CPU. The loader is timed alone, with one worker, with and without a cache: it keeps up
where it gives more images/s than the model takes. A device that is missing is skipped, with the
reason in the result: benchmarks/results/training.json.

    python benchmarks/training.py
    python benchmarks/training.py --presets nano --steps 2 --devices cpu
"""

from __future__ import annotations

import argparse
import os
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any

import torch

from cn2.runtime.doctor import run_probe
from cn2.runtime.errors import Cn2Error
from cn2.runtime.machine import versions
from cn2.runtime.reports import write_json
from cn2.trainer.config import Config, with_classes
from cn2.trainer.data.coco import CocoDataset
from cn2.trainer.data.datasets import DataSource, load_dataset
from cn2.trainer.data.loader import Batch, train_batches
from cn2.trainer.distributed import Ranks
from cn2.trainer.presets import PRESETS
from cn2.trainer.run import build_model
from cn2.trainer.train_step import Stepper
from cn2.trainer.training_losses import DetectorLosses
from models import RESULTS, ROOT, machine
from step_clock import GROUPS, PHASES, StepClock, watched

PRESET_NAMES = ("nano", "dla34-bifpn-p3", "r50-fpn")
CPU_BATCHES = {"dla34-bifpn-p3": 1, "r50-fpn": 1}  # a recipe's 16 would take many minutes
CPU_STEPS = {"nano": 3}  # the others: 1
GPU_STEPS = 20
WARMUP = {"cpu": 1, "cuda": 5}  # steps before those that count
CACHE_MB = 1024
RATE = 1e-4  # low: random weights without a warm-up of the rate


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure what the machine has, write."""
    options = parse(arguments)
    before = machine()
    data = read_data(options.annotations, options.images)
    rows: list[dict[str, Any]] = []
    skipped: list[dict[str, str]] = []
    for device in options.devices:
        answer = run_probe("torch", device)
        if not answer["works"]:
            reason = f"{answer['reason']}; {answer['fix']}"
            skipped.append({"what": f"{device}, every preset", "reason": reason})
            continue
        for preset in options.presets:
            print(f"{preset} on {device}", flush=True)
            try:
                rows.append(measure(preset, device, data, options))
            except (Cn2Error, RuntimeError) as error:  # RuntimeError: torch's, out of memory too
                skipped.append(
                    {"what": f"{preset} on {device}", "reason": " ".join(str(error).split())}
                )
    document = {
        "benchmark": "training",
        "command": "python benchmarks/training.py",
        "machine": before,
        "versions": versions("torch", "torchvision", "opencv-python-headless", "numpy"),
        "data": {"set": options.annotations.name, "pictures": len(data.pictures)},
        "rows": rows,
        "skipped": skipped,
    }
    write_json(str(options.out), document)
    print(f"{options.out}: {len(rows)} rows, {len(skipped)} skipped")


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    """The command line."""
    bccd = Path(os.environ.get("CN2_SHARED", ROOT.parent / "shared")) / "data" / "bccd"
    train = bccd / "annotations" / "instances_train.json"
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--presets", nargs="+", choices=list(PRESETS), default=list(PRESET_NAMES))
    parser.add_argument("--devices", nargs="+", choices=list(WARMUP), default=list(WARMUP))
    parser.add_argument("--annotations", type=Path, default=train, help="default: BCCD's, training")
    parser.add_argument("--images", type=Path, default=bccd / "images")
    parser.add_argument("--batch", type=int, help="default: the recipe's, 1 of big ones on a CPU")
    parser.add_argument("--steps", type=int, help=f"default: {GPU_STEPS} on a GPU, 1 to 3 on a CPU")
    parser.add_argument("--loader-pictures", type=int, default=100, help="an epoch of the loader")
    parser.add_argument("--out", type=Path, default=RESULTS / "training.json")
    return parser.parse_args(arguments)


def read_data(annotations: Path, images: Path) -> CocoDataset:
    """The annotated pictures."""
    return load_dataset([DataSource(annotations=annotations, images=images)])


def measure(
    preset: str, device: str, data: CocoDataset, options: argparse.Namespace
) -> dict[str, Any]:
    """One row: the model alone, part by part, and the loader alone."""
    load = round(os.getloadavg()[0], 2)
    config = with_classes(PRESETS[preset](), data.class_names, data.category_ids)
    default = CPU_BATCHES.get(preset) if device == "cpu" else None
    config = with_training(config, batch=options.batch or default or config.train.batch)
    steps = options.steps or (GPU_STEPS if device == "cuda" else CPU_STEPS.get(preset, 1))
    model = time_model(config, data, torch.device(device), steps)
    loader = time_loader(config, data, options.loader_pictures)
    return {
        "preset": preset,
        "device": torch.cuda.get_device_name() if device == "cuda" else "cpu",
        "threads": torch.get_num_threads(),
        "load_average_before": load,
        "batch": config.train.batch,
        **model,
        "loader": loader,
        "loader_to_model": round(loader["images_per_s"] / model["images_per_s"], 1),
    }


def with_training(config: Config, **changes: Any) -> Config:
    """The config with other settings of its training."""
    return replace(config, train=replace(config.train, **changes))


def time_model(
    config: Config, data: CocoDataset, place: torch.device, steps: int
) -> dict[str, Any]:
    """Steps on batches that are in memory already.

    On a GPU the clock waits for it at every part, so the speed is that of steps without the clock.
    """
    warmup = WARMUP[place.type]
    config = with_training(config, steps=warmup + steps, workers=0)
    batches = list(train_batches(data, config))
    stepper = make_stepper(config, place)
    run_steps(stepper, batches[:warmup])
    batches = batches[warmup:]
    clock = StepClock(place)
    with watched(stepper, clock):
        seconds = run_steps(stepper, batches, clock)
    if place.type == "cuda":
        seconds = run_steps(stepper, batches)
    pictures = sum(len(batch.pictures) for batch in batches)
    return {
        "precision": stepper.precision,
        "steps": steps,
        "canvases": canvases(batches),
        "images_per_s": round(pictures / seconds, 4),
        "seconds": round(seconds, 2),
        **parts(clock, pictures),
    }


def make_stepper(config: Config, place: torch.device) -> Stepper:
    """A detector with random weights, ready to train on the device."""
    ranks = Ranks(device=place)
    model = build_model(config, ranks)
    model.train()
    return Stepper(model, DetectorLosses(config.model, ranks.share), config.train, ranks)


def run_steps(stepper: Stepper, batches: Sequence[Batch], clock: StepClock | None = None) -> float:
    """A step per batch; seconds. Every step ends with its losses on the host."""
    started = time.perf_counter()
    for batch in batches:
        if clock is not None:
            clock.start()
        stepper.step([batch], RATE)
        if clock is not None:
            clock.enter("step")
    if stepper.ranks.device.type == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - started


def canvases(batches: Sequence[Batch]) -> dict[str, int]:
    """ "HEIGHTxWIDTH" -> batches on such a canvas, the most frequent first."""
    sizes = Counter(tuple(batch.images.shape[1:3]) for batch in batches)
    return {f"{height}x{width}": count for (height, width), count in sizes.most_common()}


def parts(clock: StepClock, pictures: int) -> dict[str, Any]:
    """What the clock says: ms of a picture by phase, by group, and each group's share of all."""
    whole = sum(clock.seconds.values())
    groups = {}
    for group in GROUPS:
        forward, backward = (clock.seconds.get((name, group), 0.0) for name in PHASES[:2])
        groups[group] = {
            "forward_ms": round(forward / pictures * 1e3, 2),
            "backward_ms": round(backward / pictures * 1e3, 2),
            "share": round((forward + backward) / whole, 4),
        }
    phases = {name: clock.phase_seconds(name) for name in PHASES}
    return {
        "ms_per_image": {name: round(s / pictures * 1e3, 2) for name, s in phases.items()},
        "share": {name: round(seconds / whole, 4) for name, seconds in phases.items()},
        "groups": groups,
    }


def time_loader(config: Config, data: CocoDataset, count: int) -> dict[str, Any]:
    """One worker reading, resizing and batching, and nothing else; second epochs of `count`."""
    data = replace(data, pictures=data.pictures[:count])
    config = with_training(config, workers=1)
    plain = loader_speed(with_training(config, cache_mb=0), data)
    cached = loader_speed(with_training(config, cache_mb=CACHE_MB), data)
    return {
        "workers": 1,
        "pictures": len(data.pictures),
        "images_per_s": round(plain, 1),
        "cache_mb": CACHE_MB,
        "images_per_s_cached": round(cached, 1),
        "ms_per_image": round(1e3 / plain, 2),
    }


def loader_speed(config: Config, data: CocoDataset) -> float:
    """images/s over an epoch; the one before starts the worker and fills the cache."""
    epoch = max(len(data.pictures) // config.train.batch, 1)
    batches = train_batches(data, with_training(config, steps=2 * epoch))
    for _ in islice(batches, epoch):
        pass
    started = time.perf_counter()
    pictures = sum(len(batch.pictures) for batch in batches)
    return pictures / (time.perf_counter() - started)


if __name__ == "__main__":
    main()
