"""Named schedules and sizes of training pictures, as published; each changes one part of a config.

Source: model zoo and configs of the official code, arXiv 2103.07461; 1x is detectron2's schedule.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from dataclasses import dataclass, replace

from .config import Config
from .train_config import Resize, ResizeCropConfig, ShortEdgeConfig

PICTURES_1X = 90_000 * 16  # 12 epochs of COCO train2017, and a little more
LONG_CYCLES = 6


@dataclass(frozen=True)
class Schedule:
    """How long a training is; the rate falls tenfold at the milestones, shares of a cycle."""

    length: int  # of the 1x, in each cycle
    milestones: tuple[float, float]
    cycles: int = 1
    rate: float = 1.0  # of the config's base_lr


SCHEDULES: dict[str, Schedule] = {
    "1x": Schedule(1, (2 / 3, 8 / 9)),
    "2x": Schedule(2, (2 / 3, 8 / 9)),
    "4x": Schedule(4, (5 / 6, 17 / 18)),
    "8x": Schedule(8, (2 / 3, 8 / 9)),
    "16x": Schedule(16, (2 / 3, 8 / 9)),  # published with a cosine, so milestones are not used
    # CenterNet2_DLA-BiFPN-P3_24x repeats the 4x six times from a rate of 0.01 (the 4x has 0.02).
    "long": Schedule(4, (5 / 6, 17 / 18), cycles=LONG_CYCLES, rate=0.5),
}

RESIZES: dict[str, Resize] = {
    "640-800": ShortEdgeConfig(smallest=640, largest=800, step=32, long_edge=1333),  # R50
    "480-960": ShortEdgeConfig(smallest=480, largest=960, step=1, long_edge=1333),  # X101-DCN
    "256-608": ShortEdgeConfig(smallest=256, largest=608, step=32, long_edge=900),  # DLA-BiFPN-P3
    "crop-640": ResizeCropConfig(size=640),  # DLA-BiFPN-P5
    "crop-896": ResizeCropConfig(size=896),  # R2-101-DCN
    "crop-1280": ResizeCropConfig(size=1280),  # R2-101-DCN-BiFPN
}


def with_schedule(config: Config, name: str) -> Config:
    """The config trained as long as a named schedule: as many pictures, whatever the batch.

    Steps, milestones, cycles and, for "long", half the rate are set; steps or cosine stays.

    Raises:
        ValueError: no schedule of that name.
    """
    schedule = SCHEDULES[_known("schedule", name, SCHEDULES)]
    pictures = PICTURES_1X * schedule.length * schedule.cycles
    train = replace(
        config.train,
        steps=round(pictures / config.train.batch),
        milestones=schedule.milestones,
        cycles=schedule.cycles,
        base_lr=config.train.base_lr * schedule.rate,
    )
    return replace(config, train=train)


def with_resize(config: Config, name: str) -> Config:
    """The config trained on pictures of a named range of short edges, or of a named crop.

    The size of pictures at inference, `input`, stays.

    Raises:
        ValueError: no such name.
    """
    resize = RESIZES[_known("resize", name, RESIZES)]
    return replace(config, train=replace(config.train, resize=resize))


def _known(what: str, name: str, names: Iterable[str]) -> str:
    if name in (known := list(names)):
        return name
    near = difflib.get_close_matches(name, known, 1)
    hint = f"; did you mean {near[0]!r}?" if near else ""
    raise ValueError(f"{what}: expected one of {', '.join(known)}, got {name!r}{hint}")
