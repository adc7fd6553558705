"""Latency and throughput of model files, per stage; several are measured in turns.

Turns make a ratio fair: what slows the machine down for a while slows all models down.
"""

from __future__ import annotations

import functools
import subprocess
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .errors import PictureError
from .machine import cpu_cores, cpu_name, peak_rss_mb, versions
from .reports import format_number, format_table
from .sources import find_sources

if TYPE_CHECKING:
    from .detector import Detector, Timings

BUNDLED_PICTURES = Path(__file__).parent / "bundled" / "pictures"
MOST_PICTURES = 64  # more say nothing new about time
STAGES = ("decode", "preprocess", "inference", "postprocess")
RUNS, WARMUP = 100, 20
SLOW_MS = 1000.0  # of a call: above it, these fewer runs do
SLOW_RUNS, SLOW_WARMUP = 20, 3
PACKAGES = ("numpy", "opencv-python-headless", "pillow", "onnxruntime", "onnxruntime-gpu", "torch")


@dataclass(frozen=True, kw_only=True)
class Contestant:
    """An opened model that is measured."""

    name: str
    """The model's file, or what else tells it from the others."""
    detector: Detector
    load_s: float
    """Seconds from the file to a model that can run."""
    threads: int | None = None
    """CPU threads it was opened with; None: one per core."""


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What is measured."""

    pictures: Sequence[Path]
    """Files, taken in turn; those of one canvas for batches."""
    batches: Sequence[int] = (1,)
    """Pictures a call; a model with a batch of its own is measured with that one alone."""
    runs: int | None = None
    """Timed calls; None: 100, or 20 of calls that take more than a second."""
    warmup: int | None = None
    """Calls before them; None: 20, or 3."""

    def __post_init__(self) -> None:
        if not self.pictures:
            raise PictureError("bench: expected at least one picture, got none")
        for name, values, least in (
            ("batch", self.batches, 1),
            ("runs", [RUNS if self.runs is None else self.runs], 1),
            ("warmup", [WARMUP if self.warmup is None else self.warmup], 0),
        ):
            if not values or min(values) < least:
                raise ValueError(f"{name}: expected at least {least}, got {list(values)}")


def plan_of(
    images: Path | None, batches: Sequence[int], runs: int | None, warmup: int | None
) -> Plan:
    """A plan on the first pictures of a folder (or one file); None: on the bundled pictures."""
    sources, problems = find_sources([str(images or BUNDLED_PICTURES)])
    if problems:
        raise PictureError(": ".join(problems[0]))
    pictures = [source.path for source in sources[:MOST_PICTURES]]
    return Plan(pictures=pictures, batches=batches, runs=runs, warmup=warmup)


def measure(
    contestants: Sequence[Contestant],
    plan: Plan,
    *,
    tell: Callable[[str], None] = lambda _: None,
) -> list[dict[str, Any]]:
    """Measure every model at every batch size.

    Args:
        contestants: at least one; the first is what the others are compared with.
        tell: takes a line about each measurement that begins.
    Returns:
        A row per batch and model, as `cn2 bench --json` writes them (docs/json.md).
    Raises:
        PictureError: a picture cannot be read.
    """
    rows = []
    for position, batch in enumerate(plan.batches):
        taking_part = [
            (one, one.detector.manifest.batch or batch)
            for one in contestants
            if position == 0 or one.detector.manifest.batch is None
        ]
        if not taking_part:
            continue
        tell(f"batch {batch}: {len(taking_part)} model(s) in turns")
        samples, warmup = _take_turns(taking_part, plan)
        first_ms = _median([timings.total_ms for timings in samples[0]])
        for (one, size), timings in zip(taking_part, samples, strict=True):
            row = {**_identity(one, size), **_numbers(timings, size), "warmup": warmup}
            row["ratio"] = round(row["latency_ms"]["whole"]["median"] / first_ms, 4)
            row["canvases"] = _canvases(one.detector, plan.pictures, size)
            rows.append({**row, **_machine(one)})
    return rows


def _take_turns(
    taking_part: Sequence[tuple[Contestant, int]], plan: Plan
) -> tuple[list[list[Timings]], int]:
    """The timings of each model's calls, and how many calls went before them."""
    feeds = [_feed(one.detector, plan.pictures, size) for one, size in taking_part]

    def turn() -> list[Timings]:
        return [
            one.detector.detect_timed(next(feed))[1]
            for (one, _), feed in zip(taking_part, feeds, strict=True)
        ]

    turn()  # the first call of all allocates and is no guide
    slow = max(timings.total_ms for timings in turn()) > SLOW_MS
    default_warmup, default_runs = (SLOW_WARMUP, SLOW_RUNS) if slow else (WARMUP, RUNS)
    warmup = default_warmup if plan.warmup is None else plan.warmup
    for _ in range(warmup - 2):
        turn()
    turns = [turn() for _ in range(default_runs if plan.runs is None else plan.runs)]
    return [list(column) for column in zip(*turns, strict=True)], max(warmup, 2)


def _feed(detector: Detector, pictures: Sequence[Path], size: int) -> Iterator[list[Path]]:
    """Endless lists of `size` pictures; lists of several share one canvas."""
    chosen = list(pictures) if size == 1 else _largest_group(detector, pictures)
    position = 0
    while True:
        yield [chosen[(position + offset) % len(chosen)] for offset in range(size)]
        position += size


def _largest_group(detector: Detector, pictures: Sequence[Path]) -> list[Path]:
    canvases = [_canvas_of(detector, path) for path in pictures]
    common = Counter(canvases).most_common(1)[0][0]
    return [path for path, canvas in zip(pictures, canvases, strict=True) if canvas == common]


def _canvas_of(detector: Detector, path: Path) -> tuple[int, int]:
    rule = detector.manifest.canvas
    return rule.canvas_size(rule.resized_size(*_picture_size(path, detector.max_pixels)))


@functools.cache
def _picture_size(path: Path, max_pixels: int) -> tuple[int, int]:
    from .pictures import open_picture

    height, width = open_picture(path, max_pixels=max_pixels).shape[:2]
    return height, width


def _canvases(detector: Detector, pictures: Sequence[Path], size: int) -> dict[str, int]:
    """Canvas "HxW" -> how many of the pictures fed have it."""
    chosen = pictures if size == 1 else _largest_group(detector, pictures)
    counts = Counter(_canvas_of(detector, path) for path in chosen)
    return {f"{height}x{width}": count for (height, width), count in counts.most_common()}


def _identity(one: Contestant, size: int) -> dict[str, Any]:
    manifest, rule = one.detector.manifest, one.detector.manifest.canvas
    fixed = f"{rule.fixed[0]}x{rule.fixed[1]}" if rule.fixed else None
    return {
        "model": one.name,
        "preset": manifest.preset,
        "backend": one.detector.backend.name,
        "device": one.detector.backend.device,
        "precision": manifest.precision,
        "batch": size,
        "size": fixed or f"{rule.short_edge}/{rule.long_edge}",
        "proposals": manifest.proposals,
        "checkpoint_sha256": manifest.checkpoint_sha256,
        "threads": one.threads or cpu_cores(),
        "load_s": round(one.load_s, 3),
    }


def _numbers(timings: Sequence[Timings], size: int) -> dict[str, Any]:
    whole = [one.total_ms for one in timings]
    stages = {stage: [getattr(one, f"{stage}_ms") for one in timings] for stage in STAGES}
    return {
        "runs": len(timings),
        "latency_ms": {
            "whole": _summary(whole),
            **{stage: _summary(values) for stage, values in stages.items()},
        },
        "images_per_s": round(1e3 * size * len(whole) / sum(whole), 2),
    }


def _summary(values_ms: Sequence[float]) -> dict[str, float]:
    import numpy as np

    median, p90, p99 = np.percentile(values_ms, [50, 90, 99])
    return {
        name: round(float(v), 3)
        for name, v in zip(("median", "p90", "p99"), (median, p90, p99), strict=True)
    }


def _median(values: Sequence[float]) -> float:
    return _summary(values)["median"]


def _machine(one: Contestant) -> dict[str, Any]:
    device = one.detector.backend.device
    return {
        "peak_rss_mb": peak_rss_mb(),  # of the whole process: all models together
        "cpu": cpu_name(),
        "cores": cpu_cores(),
        "gpu": gpu_name(device) if device.startswith("cuda") else None,
        "versions": versions(*PACKAGES),
    }


def gpu_name(device: str) -> str | None:
    """The name of a "cuda:<number>" device by nvidia-smi, None where that does not answer."""
    number = device.partition(":")[2] or "0"
    command = ["nvidia-smi", "--query-gpu=name", "--format=csv,noheader", "-i", number]
    try:
        answer = subprocess.run(command, capture_output=True, text=True, timeout=20)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return answer.stdout.strip() or None if answer.returncode == 0 else None


def open_contestant(
    name: str, open_detector: Callable[[], Detector], threads: int | None = None
) -> Contestant:
    """Open a model and take the time; of the first one, with the import of its library."""
    start = time.perf_counter()
    detector = open_detector()
    load_s = time.perf_counter() - start
    return Contestant(name=name, detector=detector, load_s=load_s, threads=threads)


def bench_tables(rows: Sequence[dict[str, Any]]) -> str:
    """Two tables: whole calls with ratios, and the medians of their stages."""
    whole, stages = [], []
    names = _short_names([row["model"] for row in rows])
    for row in rows:
        latency, name = row["latency_ms"], names[row["model"]]
        figures = [latency["whole"][key] for key in ("median", "p90", "p99")]
        numbers = [format_number(value) for value in (*figures, row["images_per_s"])]
        whole.append([name, str(row["batch"]), *numbers, f"x{row['ratio']:.2f}"])
        medians = [latency[stage]["median"] for stage in STAGES]
        stages.append([name, str(row["batch"]), *(format_number(v, 2) for v in medians)])
    columns = ["model", "batch", "ms", "p90", "p99", "images/s", "ratio"]
    return "\n\n".join(
        [format_table(columns, whole), format_table(["model", "batch", *STAGES], stages)]
    )


def _short_names(models: Sequence[str]) -> dict[str, str]:
    """The file name of each model, or its path where two share a name."""
    counts = Counter(Path(model).name for model in set(models))
    return {m: Path(m).name if counts[Path(m).name] == 1 else m for m in models}
