"""How well the tensors of an official checkpoint fit a preset, tensor by tensor."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

from ..build import build_detector
from ..config import Config, with_classes
from .names import LEVEL_SCALE, UNUSED, name_by_rule, our_name
from .reverse import likely_name

COUNTER = "num_batches_tracked"  # of BatchNorm; nothing reads it
NEARLY_ALL = 20  # tensors may lack before classes are counted: it is another detector then
SCALES = "first_stage.head.level_scales"  # one tensor of ours for several of theirs


class Shape(NamedTuple):
    """What a detector's tensor must be like."""

    sides: tuple[int, ...]
    dtype: torch.dtype


@dataclass(frozen=True, kw_only=True)
class Fit:
    """A checkpoint laid over a preset; official names, as the user knows them, if not said else."""

    config: Config
    """The preset, for as many classes as the checkpoint has."""
    own_classes: bool
    """Whether that number of classes is the preset's own."""
    tensors: dict[str, Tensor]
    """Under our names, those that have a place."""
    used: tuple[str, ...]
    lacking: tuple[str, ...]
    """Our names of those that the checkpoint has not."""
    ill_shaped: tuple[str, ...]
    """Our names of those of another shape."""
    misplaced: tuple[str, ...]
    """Of parts that we know, and that this preset does not have."""
    not_needed: tuple[str, ...]
    left_over: tuple[str, ...]
    source: Translated

    @property
    def faults(self) -> int:
        """How many tensors keep it from being this preset."""
        odd_scales = len(self.source.odd_scales)
        return len(self.lacking) + len(self.ill_shaped) + len(self.misplaced) + odd_scales

    @property
    def in_place(self) -> int:
        """How many tensors of the preset are there, of the right shape."""
        return len(self.tensors) - len(self.ill_shaped)

    def missing(self) -> Iterator[str]:
        """The official names of what it lacks."""
        return (self.source.official(name, self.config) for name in self.lacking)

    def misshapen(self) -> Iterator[str]:
        """What the shapes of tensors are and should be, in words."""
        own = detector_shapes(self.config)
        for name in self.source.odd_scales:
            yield f"{name}: expected a tensor of shape (1,), got another"
        for name in self.ill_shaped:
            found = tuple(self.source.tensors[name].shape)
            official = self.source.official(name, self.config)
            yield f"{official}: expected shape {own[name].sides}, got {found}"


def lay_over(state: Mapping[str, Tensor], config: Config) -> Fit:
    """Lay an official state dict over a preset.

    Args:
        state: official name -> tensor; none is copied or changed.
        config: of the preset; another number of classes is taken from the tensors' shapes.
    """
    return place(translated(state, len(config.model.neck.levels)), config)


def place(theirs: Translated, config: Config) -> Fit:
    """Lay a translated state dict over a preset with as many levels; see `lay_over`."""
    own, config_used = detector_shapes(config), config
    lacking = [name for name in own if name not in theirs.tensors and COUNTER not in name]
    if len(lacking) < NEARLY_ALL and _differing(own, theirs.tensors):
        classes = _count_classes(config, own, theirs.tensors)
        if classes is not None:
            config_used = numbered_classes(config, classes)
            own = detector_shapes(config_used)
    placed = {name: value for name, value in theirs.tensors.items() if name in own}
    extra = theirs.tensors.keys() - own.keys()
    misplaced = [name for name in theirs.ours if theirs.ours[name] in extra]
    return Fit(
        config=config_used,
        own_classes=len(config_used.class_names) == len(config.class_names),
        tensors=placed,
        used=tuple(name for name, our in theirs.ours.items() if our in placed),
        lacking=tuple(lacking),
        ill_shaped=tuple(_differing(own, placed)),
        misplaced=tuple(name for name in misplaced if not _needless(name)) + theirs.unplaced,
        not_needed=tuple(name for name in (*misplaced, *theirs.rest) if _needless(name)),
        left_over=tuple(name for name in theirs.rest if not _needless(name)),
        source=theirs,
    )


def _needless(official: str) -> bool:
    return official.endswith(COUNTER) or UNUSED.fullmatch(official) is not None


@dataclass(frozen=True, kw_only=True)
class Translated:
    """A state dict under our names, for a pyramid of so many levels."""

    levels: int
    tensors: dict[str, Tensor]
    ours: dict[str, str]
    """Official name -> ours."""
    unplaced: tuple[str, ...]
    """Official names of a part that we know, of another pyramid."""
    rest: tuple[str, ...]
    """Names of no part that we know."""
    odd_scales: tuple[str, ...]
    """Scales of levels, which become one tensor, that are not one number each."""

    def official(self, ours: str, config: Config) -> str:
        """What the file calls a tensor of ours, or the official code where it has none."""
        if ours == SCALES:
            there = {int(found[1]) for found in map(LEVEL_SCALE.fullmatch, self.ours) if found}
            lacking = [level for level in range(self.levels) if level not in there]
            return f"proposal_generator.centernet_head.scales.{[*lacking, 0][0]}.scale"
        for name, our in self.ours.items():
            if our == ours:
                return name
        return likely_name(ours, self.ours, config)


def translated(state: Mapping[str, Tensor], levels: int) -> Translated:
    """A state dict under our names; what cannot be is sorted out."""
    ours = {name: _named(name, levels) for name in state}
    known = {name: our for name, our in ours.items() if our is not None}
    odd = {n: our for n, our in known.items() if our == SCALES and tuple(state[n].shape) != (1,)}
    known = {name: our for name, our in known.items() if name not in odd}
    tensors = {our: state[name] for name, our in known.items() if our != SCALES}
    scales = sorted(name for name, our in known.items() if our == SCALES)
    if len(scales) == levels:
        tensors[SCALES] = torch.cat([state[name] for name in scales])
    others = [name for name, our in ours.items() if our is None]
    unplaced = dict.fromkeys(name for name in others if _is_of_known_part(name))
    return Translated(
        levels=levels,
        tensors=tensors,
        ours=known,
        unplaced=tuple(unplaced),
        rest=tuple(name for name in others if name not in unplaced),
        odd_scales=tuple(odd),
    )


class _Uninitialised(TorchFunctionMode):
    """Skips the drawing of random weights, which takes most of the time even where none are."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func in (Tensor.normal_, Tensor.uniform_):
            return args[0]
        return func(*args, **(kwargs or {}))


@lru_cache(maxsize=64)
def detector_shapes(config: Config) -> dict[str, Shape]:
    """The shape and dtype of each tensor of a detector, without making any."""
    with torch.device("meta"), _Uninitialised():
        state = build_detector(config).state_dict()
    return {name: Shape(tuple(value.shape), value.dtype) for name, value in state.items()}


def numbered_classes(config: Config, count: int) -> Config:
    """The preset for `count` classes that nobody named."""
    return with_classes(config, [f"class {k}" for k in range(count)], range(count))


def _named(official: str, levels: int) -> str | None:
    """Our name; None where there is none in a pyramid of so many levels."""
    if UNUSED.fullmatch(official):
        return None
    scale = LEVEL_SCALE.fullmatch(official)
    if scale:
        return SCALES if int(scale[1]) < levels else None
    try:
        return our_name(official, levels)
    except ValueError:
        return None


def _is_of_known_part(official: str) -> bool:
    if UNUSED.fullmatch(official):
        return False
    if LEVEL_SCALE.fullmatch(official):
        return True
    return name_by_rule(official) is not None


def _differing(own: Mapping[str, Shape], tensors: Mapping[str, Tensor]) -> list[str]:
    """Names of tensors whose shapes differ."""
    return [n for n in own if n in tensors and own[n].sides != tuple(tensors[n].shape)]


def _count_classes(
    config: Config, own: Mapping[str, Shape], tensors: Mapping[str, Tensor]
) -> int | None:
    """The number of classes that gives the tensors' shapes; None where there is none."""
    count = len(config.class_names)
    more = detector_shapes(numbered_classes(config, count + 1))
    counts = set()
    for name in tensors.keys() & own.keys():
        found = tensors[name].shape
        if len(found) == len(own[name].sides):
            sides = zip(own[name].sides, more[name].sides, found, strict=True)
            counts |= {count + got - side for side, longer, got in sides if side != longer}
    return counts.pop() if len(counts) == 1 and min(counts) > 0 else None
