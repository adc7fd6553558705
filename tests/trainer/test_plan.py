"""Scales and crops: hand-worked, against the plain resize-then-crop, and as properties."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cn2.trainer.config import Interpolation
from cn2.trainer.data.coco import Picture
from cn2.trainer.data.plan import (
    View,
    crop,
    draw_view,
    largest_scaled,
    shrink_to_canvas,
    whole,
)
from cn2.trainer.data.samples import look
from cn2.trainer.data.transforms import resize, resize_part
from cn2.trainer.train_config import ResizeCropConfig
from factories import picture, short_edges, tiny_config, with_training

SIDE = st.integers(1, 3000)
UNIT = st.floats(0, 1, exclude_max=True)
HAND_BOXES = [[10, 20, 40, 60], [0, 0, 8, 100], [80, 0, 200, 100], [47, 0, 47.8, 3]]


def annotated(height: int, width: int, boxes: list[list[float]]) -> Picture:
    """A picture without a file; its classes are 0, 1, 2, ..."""
    return Picture(
        image_id=1,
        path=Path("none"),
        height=height,
        width=width,
        boxes=np.array(boxes, np.float32).reshape(-1, 4),
        classes=np.arange(len(boxes)),
    )


def test_a_crop_worked_by_hand() -> None:
    """100 x 200, a square of 60, factor 2: the longer side becomes 120, half the picture."""
    view = crop((100, 200), side=60, factor=2.0, place=(0.5, 0.4))
    assert view == View(scaled=(60, 120), offset=(0, 24), size=(60, 60))
    pixels = picture(100, 200)
    sample = look(annotated(100, 200, HAND_BOXES), pixels, view, "antialias")
    # each box times 0.6, less 24 to the left: the first ends at 0, the second at -19.2
    np.testing.assert_allclose(sample.boxes, [[24, 0, 60, 60], [4.2, 0, 4.68, 1.8]], atol=1e-5)
    assert sample.classes.tolist() == [2, 3]
    mirrored = look(
        annotated(100, 200, HAND_BOXES), pixels, view._replace(mirrored=True), "antialias"
    )
    np.testing.assert_allclose(mirrored.boxes[0], [0, 0, 36, 60], atol=1e-5)
    np.testing.assert_array_equal(mirrored.pixels, sample.pixels[:, ::-1])


def test_sizes_are_truncated_and_a_small_picture_keeps_its_place() -> None:
    assert crop((100, 333), side=64, factor=0.5, place=(0.9, 0.9)) == View((9, 32), (0, 0), (9, 32))
    assert crop((1, 1000), side=64, factor=0.1, place=(0, 0)).scaled == (1, 6)
    assert crop((333, 100), side=64, factor=1.5, place=(0.999, 0.999)) == View(
        (96, 28), (31, 0), (64, 28)
    )


@settings(deadline=None)  # a busy machine stalls
@given(SIDE, SIDE, st.integers(1, 1500), st.floats(0.1, 2), UNIT, UNIT)
def test_a_crop_lies_inside_the_scaled_picture(
    height: int, width: int, side: int, factor: float, y: float, x: float
) -> None:
    view = crop((height, width), side, factor, (y, x))
    for scaled, offset, size in zip(view.scaled, view.offset, view.size, strict=True):
        assert offset >= 0
        assert 1 <= size <= side
        assert offset + size <= scaled
        assert size == min(scaled, side)
    longest = max(view.scaled)
    assert longest <= max(factor * side, 1)
    assert longest == 1 or longest > factor * side - 2
    assert shrink_to_canvas(view, (side, side)) == view


@settings(deadline=None)  # a busy machine stalls
@given(SIDE, SIDE, st.integers(0, 10**9), st.booleans())
def test_the_number_decides_and_no_scale_is_above_the_largest(
    height: int, width: int, number: int, square: bool
) -> None:
    rule = ResizeCropConfig(size=64) if square else short_edges(32, 96)
    train = with_training(tiny_config(), resize=rule).train
    view = draw_view(train, number, (height, width))
    assert view == draw_view(train, number, (height, width))
    largest = largest_scaled(rule, (height, width))
    assert view.scaled[0] <= largest[0]
    assert view.scaled[1] <= largest[1]


@settings(deadline=None)  # a busy machine stalls
@given(SIDE, SIDE, SIDE, SIDE)
def test_shrinking_to_a_canvas_keeps_what_fits(
    height: int, width: int, canvas_height: int, canvas_width: int
) -> None:
    view = shrink_to_canvas(whole((height, width)), (canvas_height, canvas_width))
    assert 1 <= view.size[0] <= canvas_height
    assert 1 <= view.size[1] <= canvas_width
    if height <= canvas_height and width <= canvas_width:
        assert view == whole((height, width))


def test_scales_and_places_are_uniform() -> None:
    train = with_training(tiny_config(), resize=ResizeCropConfig(size=64, scale=(0.5, 2.0))).train
    views = [draw_view(train, number, (1000, 1000)) for number in range(1000)]
    factors = np.array([view.scaled[0] / 64 for view in views])
    assert 0.48 < factors.min() < 0.52
    assert 1.97 < factors.max() <= 2.0
    assert factors.mean() == pytest.approx(1.25, abs=0.05)
    for axis in (0, 1):
        free = [(v.offset[axis], v.scaled[axis] - 64) for v in views if v.scaled[axis] > 90]
        places = np.array([offset / room for offset, room in free])
        assert places.mean() == pytest.approx(0.5, abs=0.05)
    assert {view.upended for view in views} == {False}
    assert sum(view.mirrored for view in views) == pytest.approx(500, abs=60)


@pytest.mark.parametrize("interpolation", ["antialias", "linear"])
@pytest.mark.parametrize(
    ("factor", "place"),
    [
        (2.0, (0.3, 0.7)),  # enlarged
        (1.37, (0.999, 0.0)),  # enlarged a little, at two borders
        (0.8, (0.5, 0.5)),  # reduced, and still cut
        (0.2, (0.5, 0.5)),  # reduced below the square: the whole picture
    ],
)
def test_a_crop_has_the_pixels_of_resize_then_crop(
    interpolation: Interpolation, factor: float, place: tuple[float, float]
) -> None:
    pixels = np.random.default_rng(3).integers(0, 256, (90, 121, 3)).astype(np.uint8)
    view = crop((90, 121), side=73, factor=factor * 121 / 73, place=place)
    (top, left), (height, width) = view.offset, view.size
    slow = resize(pixels, view.scaled, interpolation)[top : top + height, left : left + width]
    part = resize_part(pixels, view.scaled, view.offset, view.size, interpolation)
    assert part.shape == slow.shape
    assert np.abs(part.astype(int) - slow).max() <= 2


def box_by_box(of: Picture, view: View) -> list[list[float]]:
    """Slow reference: scale, shift and clip each box; class in front."""
    rows = []
    for label, box in zip(of.classes, of.boxes.astype(float), strict=True):
        row = [float(label)]
        for i, value in enumerate(box):
            axis = 1 - i % 2
            scaled = value * view.scaled[axis] / (of.height, of.width)[axis]
            row.append(min(max(scaled - view.offset[axis], 0.0), float(view.size[axis])))
        if row[3] > row[1] and row[4] > row[2]:
            rows.append(row)
    return rows


@settings(deadline=None)  # a busy machine stalls
@given(st.data(), st.integers(2, 60), st.integers(2, 60), st.floats(0.3, 4), UNIT, UNIT)
def test_boxes_of_a_crop_are_scaled_shifted_clipped_and_dropped_with_their_classes(
    data: st.DataObject, height: int, width: int, factor: float, y: float, x: float
) -> None:
    corners = st.tuples(
        st.integers(0, width - 1),
        st.integers(0, height - 1),
        st.integers(1, 60),
        st.integers(1, 60),
    )
    drawn = data.draw(st.lists(corners, max_size=5))
    boxes = [[a, b, min(a + w, width), min(b + h, height)] for a, b, w, h in drawn]
    of = annotated(height, width, boxes)
    view = crop((height, width), side=32, factor=factor, place=(y, x))
    sample = look(of, np.zeros((height, width, 3), np.uint8), view, "antialias")
    assert sample.pixels.shape == (*view.size, 3)
    expected = [row for row in box_by_box(of, view) if min(row[3] - row[1], row[4] - row[2]) > 1e-3]
    found = [[float(c), *b] for c, b in zip(sample.classes, sample.boxes.tolist(), strict=True)]
    found = [row for row in found if min(row[3] - row[1], row[4] - row[2]) > 1e-3]
    np.testing.assert_allclose(np.reshape(found, (-1, 5)), np.reshape(expected, (-1, 5)), atol=1e-4)
