"""What a seed and a sample's number decide before anything is decoded: scale, crop and flips."""

from __future__ import annotations

import random
from typing import NamedTuple, assert_never

from ..train_config import Resize, ResizeCropConfig, ShortEdgeConfig, TrainConfig
from .transforms import Size, resized_size


class View(NamedTuple):
    """The part of a scaled picture that a sample shows."""

    scaled: Size  # of the whole picture
    offset: Size  # y, x of the part's top left corner in the scaled picture
    size: Size  # of the part; it lies inside the scaled picture
    mirrored: bool = False  # left and right change places
    upended: bool = False  # top and bottom do


def whole(scaled: Size) -> View:
    """The whole of a scaled picture."""
    return View(scaled, (0, 0), scaled)


def draw_view(train: TrainConfig, number: int, picture: Size) -> View:
    """The view of a picture of this size, as the seed and the sample's number decide."""
    draw = random.Random(f"{train.seed}/{number}")
    match train.resize:
        case ShortEdgeConfig() as rule:
            short_edge = draw.choice(range(rule.smallest, rule.largest + 1, rule.step))
            view = whole(resized_size(*picture, short_edge, rule.long_edge))
        case ResizeCropConfig() as rule:
            factor = draw.uniform(*rule.scale)
            view = crop(picture, rule.size, factor, (draw.random(), draw.random()))
        case other:
            assert_never(other)
    mirrored, upended = draw.random() < train.flip, draw.random() < train.flip_vertical
    return view._replace(mirrored=mirrored, upended=upended)


def crop(picture: Size, side: int, factor: float, place: tuple[float, float]) -> View:
    """A square of a picture scaled to fit into `factor` times that square.

    Args:
        picture: height and width, pixels.
        side: of the square, pixels; the view is smaller where the scaled picture is.
        factor: of the side, > 0.
        place: of the square within what is too much, y and x, each in [0, 1).
    Source: EfficientDet, arXiv 1911.09070, Sec. 5.1; sizes and offsets are truncated, as the
        official CenterNet2's transform does it.
    """
    scaled = fit_into_square(picture, factor * side)
    offset = (int(place[0] * max(scaled[0] - side, 0)), int(place[1] * max(scaled[1] - side, 0)))
    return View(scaled, offset, (min(scaled[0], side), min(scaled[1], side)))


def fit_into_square(picture: Size, side: float) -> Size:
    """The size of a picture scaled so that its longer side is `side`, truncated, at least 1."""
    scale = min(side / picture[0], side / picture[1])
    return max(int(picture[0] * scale), 1), max(int(picture[1] * scale), 1)


def largest_scaled(rule: Resize, picture: Size) -> Size:
    """The size of the scaled picture at the largest scale that can be drawn."""
    match rule:
        case ShortEdgeConfig():
            return resized_size(*picture, rule.largest, rule.long_edge)
        case ResizeCropConfig():
            return fit_into_square(picture, rule.scale[1] * rule.size)
        case other:
            assert_never(other)


def shrink_to_canvas(view: View, canvas: Size) -> View:
    """The same view, of the picture scaled less where the canvas is too small for it.

    Only whole pictures ever need it: a crop has room on every canvas of its rule.
    """
    scale = min(canvas[0] / view.size[0], canvas[1] / view.size[1])
    if scale >= 1:
        return view
    scaled = (max(int(view.scaled[0] * scale), 1), max(int(view.scaled[1] * scale), 1))
    return view._replace(scaled=scaled, size=scaled)
