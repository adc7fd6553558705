"""Speed of training on this machine: forward, backward, step and data loading, each apart.

Steps are those of `cn2 train` with the preset's recipe on BCCD, from random weights, with smaller
batches on a CPU. The loader is timed alone, with and without a cache: it keeps up where it gives
more images/s than the model takes. Times on a CPU are the process's own there, which a busy machine
hardly stretches; with one thread that is what a core of its own would take. Speeds by the clock on
the wall stand beside them. A device that is missing is skipped, with the reason in the result:
benchmarks/results/training.json.

    OMP_NUM_THREADS=1 python benchmarks/training.py
    python benchmarks/training.py --presets nano --steps 2 --devices cpu --add
"""

from __future__ import annotations

import argparse
import json
import os
import time
from collections import Counter
from collections.abc import Callable, Sequence
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
from step_clock import GROUPS, PHASES, StepClock, time_of, watched

PRESET_NAMES = ("nano", "dla34-bifpn-p3", "r50-fpn")
CPU_BATCHES = {"dla34-bifpn-p3": 1, "r50-fpn": 1}  # a recipe's 16 would take many minutes
CPU_STEPS = {"nano": 3}  # the others: 1
GPU_STEPS = 20
DEVICES = ("cpu", "cuda")
GPU_WARMUP = 5  # steps before those that count; a CPU's first step takes as long as the others
CACHE_MB = 1024
RATE = 1e-4  # low: random weights without a warm-up of the rate


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure what the machine has, write after every row."""
    options = parse(arguments)
    data = read_data(options.annotations, options.images)
    document: dict[str, Any] = {
        "benchmark": "training",
        "command": "OMP_NUM_THREADS=1 python benchmarks/training.py",
        "machine": machine() | {"niceness": os.nice(0)},
        "versions": versions("torch", "torchvision", "opencv-python-headless", "numpy"),
        "data": {"set": options.annotations.name, "pictures": len(data.pictures)},
        "rows": [],
        "skipped": [],
    }
    for device in options.devices:
        missing = why_not(device)
        if missing is not None:
            document["skipped"].append({"what": f"{device}, every preset", "reason": missing})
            continue
        for preset in options.presets:
            print(f"{preset} on {device}", flush=True)
            try:
                document["rows"].append(measure(preset, device, data, options))
            except (Cn2Error, RuntimeError) as error:  # RuntimeError: torch's, out of memory too
                reason = " ".join(str(error).split())
                document["skipped"].append({"what": f"{preset} on {device}", "reason": reason})
            write(options.out, document, add=options.add)
    write(options.out, document, add=options.add)
    print(f"{options.out}: {len(document['rows'])} rows, {len(document['skipped'])} skipped")


def write(path: Path, document: dict[str, Any], *, add: bool) -> None:
    """Write the result; `add`: beside what the file has of other presets and devices."""
    if add and path.is_file():
        before = json.loads(path.read_text("utf-8"))
        rows, skipped = document["rows"], document["skipped"]
        ours = {(row["preset"], row["device"]) for row in rows}
        rows = [row for row in before["rows"] if (row["preset"], row["device"]) not in ours] + rows
        named = {one["what"] for one in skipped}
        skipped = [one for one in before["skipped"] if one["what"] not in named] + skipped
        document = {**before, "rows": rows, "skipped": skipped}
    write_json(str(path), document)


def why_not(device: str) -> str | None:
    """Why torch cannot compute on a device; None: it can."""
    if device == "cpu":
        return None
    answer = run_probe("torch", device)
    return None if answer["works"] else f"{answer['reason']}; {answer['fix']}"


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    """The command line."""
    bccd = Path(os.environ.get("CN2_SHARED", ROOT.parent / "shared")) / "data" / "bccd"
    train = bccd / "annotations" / "instances_train.json"
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--presets", nargs="+", choices=list(PRESETS), default=list(PRESET_NAMES))
    parser.add_argument("--devices", nargs="+", choices=DEVICES, default=list(DEVICES))
    parser.add_argument("--annotations", type=Path, default=train, help="default: BCCD's, training")
    parser.add_argument("--images", type=Path, default=bccd / "images")
    parser.add_argument("--batch", type=int, help="default: the recipe's, 1 of big ones on a CPU")
    parser.add_argument("--steps", type=int, help=f"default: {GPU_STEPS} on a GPU, 1 to 3 on a CPU")
    parser.add_argument("--loader-pictures", type=int, default=48, help="an epoch of the loader")
    parser.add_argument("--add", action="store_true", help="keep other rows of the result, too")
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
    speed = "images_per_s" if device == "cpu" else "images_per_s_wall"
    return {
        "preset": preset,
        "device": torch.cuda.get_device_name() if device == "cuda" else "cpu",
        "threads": torch.get_num_threads(),
        "load_average_before": load,
        "batch": config.train.batch,
        **model,
        "loader": loader,
        "loader_to_model": round(loader["plain"][speed] / model[speed], 1),
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
    warmup, now = GPU_WARMUP if place.type == "cuda" else 0, time_of(place)
    config = with_training(config, steps=warmup + steps, workers=0)
    batches = list(train_batches(data, config))
    stepper = make_stepper(config, place)
    run_steps(stepper, batches[:warmup])
    batches = batches[warmup:]
    clock = StepClock(now)
    started = time.perf_counter()
    with watched(stepper, clock):
        run_steps(stepper, batches, clock)
    wall, seconds = time.perf_counter() - started, sum(clock.seconds.values())
    if place.type == "cuda":
        started = now()
        run_steps(stepper, batches)
        wall = seconds = now() - started
    pictures = sum(len(batch.pictures) for batch in batches)
    return {
        "precision": stepper.precision,
        "steps": steps,
        "canvases": canvases(batches),
        "images_per_s": round(pictures / seconds, 4),
        "images_per_s_wall": round(pictures / wall, 4),
        **parts(clock, pictures),
    }


def make_stepper(config: Config, place: torch.device) -> Stepper:
    """A detector with random weights, ready to train on the device."""
    ranks = Ranks(device=place)
    model = build_model(config, ranks)
    model.train()
    return Stepper(model, DetectorLosses(config.model, ranks.share), config.train, ranks)


def run_steps(stepper: Stepper, batches: Sequence[Batch], clock: StepClock | None = None) -> None:
    """A step per batch."""
    for batch in batches:
        if clock is not None:
            clock.start()
        stepper.step([batch], RATE)
        if clock is not None:
            clock.enter("step")


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
    """Reading, resizing and batching, and nothing else: second epochs of `count` pictures."""
    data = replace(data, pictures=data.pictures[:count])
    answer: dict[str, Any] = {"workers": 1, "pictures": len(data.pictures), "cache_mb": CACHE_MB}
    for kind, cache_mb in (("plain", 0), ("cached", CACHE_MB)):
        config = with_training(config, cache_mb=cache_mb)
        cpu = loader_speed(with_training(config, workers=0), data, time.process_time)
        wall = loader_speed(with_training(config, workers=1), data, time.perf_counter)
        answer[kind] = {"images_per_s": round(cpu, 1), "images_per_s_wall": round(wall, 1)}
    return answer


def loader_speed(config: Config, data: CocoDataset, now: Callable[[], float]) -> float:
    """images/s over an epoch; the one before starts the worker and fills the cache."""
    epoch = max(len(data.pictures) // config.train.batch, 1)
    batches = train_batches(data, with_training(config, steps=2 * epoch))
    for _ in islice(batches, epoch):
        pass
    started = now()
    pictures = sum(len(batch.pictures) for batch in batches)
    return pictures / (now() - started)


if __name__ == "__main__":
    main()
