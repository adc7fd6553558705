"""Tables 1, 2, 4, 5 and 6 of arXiv 2103.07461 with runtimes measured here, and its claims on speed.

Every row is a preset, or one with `--set` overrides (paper_tables_rows.py). All detectors are built
once, in eager PyTorch as the paper's, and run in turn, in another order each round, so that a busy
machine slows them alike; what counts are ratios within a round. T_first is from the canvas to the
proposals, T_total to the detections; a one-stage detector has no more than its first. On a CPU the
time is the process's own, with one thread what a core takes. Weights are random; features are
scaled to unit variance, or they would explode and boxes with them; the last suppression is left
without work. Accuracy is not measured.

Result, after every round: benchmarks/results/paper_tables.json, which benchmarks/tables.py puts
into docs/framework.md.

    OMP_NUM_THREADS=1 python benchmarks/paper_tables.py
    python benchmarks/paper_tables.py --device cuda --rounds 20
    python benchmarks/paper_tables.py --show        # print what was measured before
"""

from __future__ import annotations

import argparse
import os
import random
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from cn2.export.describe import describe
from cn2.runtime.canvas import CanvasRule
from cn2.runtime.machine import versions
from cn2.runtime.pictures import Pixels, open_picture
from cn2.runtime.preprocess import place_picture
from cn2.runtime.reports import write_json
from cn2.trainer.build import build_detector
from cn2.trainer.config import Config, apply_overrides
from cn2.trainer.detector import AnyDetector, TwoStageDetector
from cn2.trainer.presets import PRESETS
from cn2.trainer.structures import Proposals
from models import RANDOM_SEED, RESULTS, find_pictures, machine, picture_sizes
from paper_tables_rows import BASELINE, TABLES, Run, runs_of
from paper_tables_text import FILE, show
from step_clock import time_of

ROUNDS = 7
Clock = Callable[[], float]


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, write, print; the exit code."""
    options = parse(arguments)
    if not options.show:
        if options.device == "cuda" and not torch.cuda.is_available():
            print("paper_tables: error: cuda: expected a GPU, torch sees none", file=sys.stderr)
            return 2
        measure(options)
    print(show(options.results))
    return 0


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--tables", nargs="+", type=int, choices=TABLES, default=list(TABLES))
    parser.add_argument("--rounds", type=int, default=ROUNDS, help=f"default: {ROUNDS}")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--threads", type=int, default=1, help="of torch on a CPU; default: 1")
    parser.add_argument("--short-edge", type=int, help="pixels; default: each preset's own")
    parser.add_argument("--images", type=Path, help="default: COCO pictures of $CN2_SHARED")
    parser.add_argument("--results", type=Path, default=RESULTS, help=f"the folder of {FILE}")
    parser.add_argument("--show", action="store_true", help="measure nothing, print the result")
    return parser.parse_args(arguments)


@dataclass(kw_only=True)
class Timed:
    """A detector in memory, and what was found of it so far."""

    run: Run
    detector: AnyDetector
    rule: CanvasRule
    canvas: str = ""
    proposals: list[int] = field(default_factory=list)  # of each round; of two stages
    size_px: float | None = None  # median root of the proposals' areas, of the last picture
    first_ms: list[float] = field(default_factory=list)
    total_ms: list[float] = field(default_factory=list)


class Answer(NamedTuple):
    """What a detector gave for one picture, and when."""

    proposals: Proposals | None
    first_s: float
    total_s: float


def measure(options: argparse.Namespace) -> None:
    """Build all, then run them round by round; the result is written after each round."""
    before = machine() | {"niceness": os.nice(0)}
    torch.set_num_threads(options.threads)
    place = torch.device(options.device)
    files = find_pictures(options.images, options.rounds)
    pictures = [open_picture(path) for path in files]
    timed = []
    for name, run in runs_of(options.tables).items():
        print(name, flush=True)
        timed.append(prepare(run, pictures[0], place, options.short_edge))
    shuffle = random.Random(RANDOM_SEED).shuffle
    for number in range(options.rounds):
        order = list(timed)
        shuffle(order)
        for one in order:
            look(one, pictures[number % len(pictures)], place)
        load = round(os.getloadavg()[0], 2)
        print(f"round {number + 1} of {options.rounds}, load {load}", flush=True)
        settings = {
            "machine": before,
            "load_average_after": load,
            "device": torch.cuda.get_device_name() if place.type == "cuda" else "cpu",
            "threads": options.threads,
            "pictures": {"count": len(files), "sizes": picture_sizes(files)},
            "short_edge": options.short_edge,
            "rounds": number + 1,
        }
        write_json(str(options.results / FILE), document(settings, timed))


def document(settings: dict[str, Any], timed: Sequence[Timed]) -> dict[str, Any]:
    """The result file."""
    return {
        "benchmark": "paper_tables",
        "command": "OMP_NUM_THREADS=1 python benchmarks/paper_tables.py",
        **settings,
        "clock": "process CPU time" if settings["device"] == "cpu" else "wall, synchronised",
        "versions": versions("torch", "torchvision", "numpy"),
        "seed": RANDOM_SEED,
        "baseline": BASELINE.name,
        "runs": {one.run.name: row_of(one) for one in timed},
    }


def prepare(run: Run, picture: Pixels, place: torch.device, short_edge: int | None) -> Timed:
    """Build a run's detector and scale its features, then warm it up."""
    config = config_of(run, short_edge)
    torch.manual_seed(RANDOM_SEED)
    detector = build_detector(config).eval().to(place)
    rule = describe(config).canvas
    inputs = on_canvas(picture, rule, place)
    scale_features(detector, *inputs)
    detect(detector, *inputs, time_of(place))
    return Timed(run=run, detector=detector, rule=rule)


def config_of(run: Run, short_edge: int | None) -> Config:
    """A run's config, at another short edge if one is given.

    Raises:
        ValueError: an override that the preset has no place for.
    """
    edge = [] if short_edge is None else [f"input.short_edge={short_edge}"]
    return apply_overrides(PRESETS[run.preset](), [*run.overrides, *edge])


def on_canvas(picture: Pixels, rule: CanvasRule, place: torch.device) -> tuple[Tensor, Tensor]:
    """(1, H, W, 3) uint8 and (1, 2) int32, the picture's size on it."""
    placed = place_picture(picture, rule)
    images, sizes = torch.from_numpy(placed.canvas)[None], torch.tensor([placed.resized])
    return images.to(place), sizes.to(place, torch.int32)


@torch.no_grad()
def scale_features(detector: AnyDetector, images: Tensor, sizes: Tensor) -> None:
    """Make every convolution of backbone and neck give unit variance on this picture.

    Source: layer-sequential unit variance, arXiv 1511.06422, Algorithm 1, in one pass.
    """

    def scale(convolution: nn.Module, _: Any, output: Tensor) -> Tensor:
        deviation = output.std()
        if deviation == 0:  # predicts corrections, none at first
            return output
        for parameter in convolution.parameters(recurse=False):
            parameter.div_(deviation)
        return output / deviation

    parts = [*detector.backbone.modules(), *detector.neck.modules()]
    hooks = [m.register_forward_hook(scale) for m in parts if isinstance(m, nn.Conv2d)]
    detector.features(images, sizes)
    for hook in hooks:
        hook.remove()


def look(timed: Timed, picture: Pixels, place: torch.device) -> None:
    """Run a detector on a picture; note the times, and what came out of the first stage."""
    images, sizes = on_canvas(picture, timed.rule, place)
    answer = detect(timed.detector, images, sizes, time_of(place))
    timed.canvas = f"{images.shape[2]}x{images.shape[1]}"
    timed.first_ms.append(round(answer.first_s * 1e3, 3))
    timed.total_ms.append(round(answer.total_s * 1e3, 3))
    if answer.proposals is not None:
        boxes, objectness = (part[0] for part in answer.proposals)
        sides = (boxes[:, 2:] - boxes[:, :2])[objectness > 0].clamp(min=0)
        timed.proposals.append(len(sides))
        timed.size_px = round(sides.prod(dim=1).sqrt().median().item(), 1) if len(sides) else None


@torch.inference_mode()
def detect(detector: AnyDetector, images: Tensor, sizes: Tensor, now: Clock) -> Answer:
    """A detector's `forward` in two parts, and the seconds to the end of each.

    No score passes: how many would is an accident of random weights, which would make the last
    suppression as slow.
    """
    nothing = torch.ones((), device=images.device)
    started = now()
    features = detector.features(images, sizes)
    output = detector.first_stage(features)
    if not isinstance(detector, TwoStageDetector):
        detector.first_stage.detect(output, detector.test_filter, sizes, nothing)
        seconds = now() - started
        return Answer(None, seconds, seconds)
    proposals = detector.first_stage.propose(output, detector.test_filter)
    first = now() - started
    detector.second_stage(features, proposals, sizes, nothing)
    return Answer(proposals, first, now() - started)


def row_of(timed: Timed) -> dict[str, Any]:
    """A run of the result file; times in ms, one a round, rounds in the same order for all."""
    two_stages = isinstance(timed.detector, TwoStageDetector)
    return {
        "preset": timed.run.preset,
        "set": list(timed.run.overrides),
        "parameters": sum(parameter.numel() for parameter in timed.detector.parameters()),
        "canvas": timed.canvas,
        "proposals_asked": timed.detector.test_filter.post_nms if two_stages else None,
        "proposals": min(timed.proposals) if two_stages else None,
        "proposal_size_px": timed.size_px,
        "first_ms": timed.first_ms,
        "total_ms": timed.total_ms,
    }


if __name__ == "__main__":
    sys.exit(main())
