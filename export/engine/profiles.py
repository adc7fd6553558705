"""The sizes that an engine takes: from the command line, and else from the model's manifest."""

from __future__ import annotations

import re

from cn2.runtime.canvas import CanvasRule
from cn2.runtime.engine_file import EngineProfile, Range
from cn2.runtime.manifest import Manifest

BATCHES: Range = (1, 1, 8)  # of a file that takes any number of pictures
USUAL_SHAPE = (3, 4)  # height to width of most photographs
Size = tuple[int, int]


def make_profile(manifest: Manifest, batch: str | None, size: str | None) -> EngineProfile:
    """The profile that the options ask for.

    Args:
        batch: `N`, or `MIN:OPT:MAX`; None: the manifest's, or 1:1:8 where it takes any number.
        size: `HxW`, or `MIN:OPT:MAX` of those, pixels; None: every canvas of the manifest's rule,
            at best for a landscape photograph.
    Raises:
        ValueError: of another form, or not what the file takes.
    """
    batches = _own_batches(manifest) if batch is None else parse_batches(batch)
    if manifest.batch is not None and set(batches) != {manifest.batch}:
        raise ValueError(
            f"--batch {batch}: the file takes {manifest.batch} pictures a run, no other number; "
            f"export it with --batch dynamic"
        )
    sizes = own_sizes(manifest.canvas) if size is None else parse_sizes(size)
    _check_sizes(sizes, manifest.canvas, size)
    heights, widths = zip(*sizes, strict=True)
    return EngineProfile(batch=batches, height=heights, width=widths)


def _own_batches(manifest: Manifest) -> Range:
    return BATCHES if manifest.batch is None else (manifest.batch,) * 3


def own_sizes(rule: CanvasRule) -> tuple[Size, Size, Size]:
    """The smallest, the usual and the largest canvas of a rule."""
    if rule.fixed is not None:
        return (rule.fixed,) * 3
    usual = rule.canvas_size(rule.resized_size(*(100 * side for side in USUAL_SHAPE)))
    largest = -(-rule.long_edge // rule.divisor) * rule.divisor
    return (rule.divisor, rule.divisor), usual, (largest, largest)


def parse_batches(text: str) -> Range:
    """`N` or `MIN:OPT:MAX`; ValueError if it is neither."""
    if not re.fullmatch(r"\d{1,5}(:\d{1,5}:\d{1,5})?", text):
        raise ValueError(f"--batch: expected N or MIN:OPT:MAX, for example 1:4:8, got {text!r}")
    values = [int(part) for part in text.split(":")]
    low, best, high = values if len(values) == 3 else values * 3
    if not 1 <= low <= best <= high:
        raise ValueError(f"--batch: expected 1 <= MIN <= OPT <= MAX, got {text!r}")
    return low, best, high


def parse_sizes(text: str) -> tuple[Size, Size, Size]:
    """`HxW` or `MIN:OPT:MAX` of those; ValueError if it is neither."""
    size = r"\d{1,5}[xX]\d{1,5}"
    if not re.fullmatch(rf"{size}(:{size}:{size})?", text):
        raise ValueError(
            f"--size: expected HxW in pixels, or MIN:OPT:MAX of those, for example "
            f"320x320:384x512:576x576, got {text!r}"
        )
    values = [_size(part) for part in text.split(":")]
    low, best, high = values if len(values) == 3 else values * 3
    if not all(1 <= a <= b <= c for a, b, c in zip(low, best, high, strict=True)):
        raise ValueError(f"--size: expected 1 <= MIN <= OPT <= MAX in both sides, got {text!r}")
    return low, best, high


def _size(text: str) -> Size:
    height, width = text.lower().split("x")
    return int(height), int(width)


def _check_sizes(sizes: tuple[Size, Size, Size], rule: CanvasRule, text: str | None) -> None:
    if rule.fixed is not None and set(sizes) != {rule.fixed}:
        height, width = rule.fixed
        raise ValueError(
            f"--size {text}: the file's canvas is {height}x{width}, and no other; export it "
            f"with --dynamic"
        )
    if any(side % rule.divisor for size in sizes for side in size):
        raise ValueError(f"--size {text}: expected sides in multiples of {rule.divisor}")
