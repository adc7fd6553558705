"""Which preset an official checkpoint is of, from its names and shapes."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import islice

from torch import Tensor

from cn2.runtime.errors import ModelFormatError

from ..coco_classes import COCO_NAMES
from ..config import Config
from .fit import Fit, detector_shapes, place, translated
from .foreign import OFFICIAL_HEAD, what_it_is

NAMES_SHOWN = 3
Presets = Mapping[str, Callable[[], Config]]


def recognise(state: Mapping[str, Tensor], presets: Presets, source: str) -> tuple[Fit, list[str]]:
    """The one preset that has all these tensors.

    Args:
        state: official name -> tensor.
        presets: those to choose from.
        source: the file's name, for messages.
    Returns:
        How it fits, and the names of the other presets that would do but for their classes.
    Raises:
        ModelFormatError: it is no CenterNet2 (then the message says what it seems to be), or fits
            no preset (then it names what keeps it from the nearest), or several.
    """
    if not any(OFFICIAL_HEAD in name for name in state):
        raise ModelFormatError(f"{source}: this is not CenterNet2: {what_it_is(state)}")
    fits = _lay_over_all(state, [make() for make in presets.values()])
    good = [fit for fit in fits if not fit.faults]
    if not good:
        nearest = max(fits, key=lambda fit: (fit.in_place, -fit.faults))
        near = len(presets) == 1 or nearest.in_place * 2 >= len(detector_shapes(nearest.config))
        said = faults_text(nearest) if near else stray_text(nearest)
        raise ModelFormatError(f"{source}: {said}")
    chosen = _best(good, presets)
    if len(chosen) > 1:
        names = " and ".join(fit.config.preset for fit in chosen)
        raise ModelFormatError(
            f"{source}: has the tensors of {names} alike; say which one with --preset"
        )
    passed_over = [fit.config.preset for fit in good if fit is not chosen[0]]
    return chosen[0], [] if chosen[0].own_classes else passed_over


def _lay_over_all(state: Mapping[str, Tensor], configs: Sequence[Config]) -> list[Fit]:
    """Each preset's fit; names are translated once for each number of levels."""
    levels = [len(config.model.neck.levels) for config in configs]
    theirs = {count: translated(state, count) for count in set(levels)}
    return [place(theirs[count], config) for count, config in zip(levels, configs, strict=True)]


def faults_text(fit: Fit) -> str:
    """What keeps a checkpoint from a preset, as one line."""
    parts = [
        _some(fit.misshapen(), len(fit.ill_shaped) + len(fit.source.odd_scales), "{}"),
        _some(fit.missing(), len(fit.lacking), "expected {}, got none"),
        _some(iter(fit.misplaced), len(fit.misplaced), "no place for {}"),
    ]
    return (
        f"expected the tensors of preset {fit.config.preset}, which is nearest, but "
        f"{'; '.join(part for part in parts if part)}; {fit.in_place} others fit"
    )


def stray_text(fit: Fit) -> str:
    """That no preset is near, and names that lack a place even in the nearest, as one line."""
    strays = [*fit.source.rest, *fit.misplaced, *fit.used]
    return (
        f"expected the tensors of one of the presets of CenterNet2, but none is near: of "
        f"{fit.config.preset}'s {len(detector_shapes(fit.config))}, which is nearest, "
        f"{fit.in_place} fit; got {_some(iter(strays), len(strays), '{}')}"
    )


def _best(good: Sequence[Fit], presets: Presets) -> list[Fit]:
    """Those with the preset's own number of classes; if none, those made for COCO."""
    own = [fit for fit in good if fit.own_classes]
    coco = [fit for fit in good if presets[fit.config.preset]().class_names == COCO_NAMES]
    return own or coco or list(good)


def _some(names: Iterator[str], count: int, sentence: str) -> str:
    """The sentence with the first few names and the number of the others."""
    if not count:
        return ""
    more = f" and {count - NAMES_SHOWN} more" if count > NAMES_SHOWN else ""
    return sentence.format(", ".join(islice(names, NAMES_SHOWN)) + more)
