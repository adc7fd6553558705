"""Resizing and placing: bit for bit as the models were trained."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from cn2.runtime.canvas import CanvasRule
from cn2.runtime.pictures import open_picture
from cn2.runtime.preprocess import place_picture, stack_pictures

FIXTURES = (
    "CenterNet2_DLA-BiFPN-P3_4x",
    "CenterNet2_DLA-BiFPN-P5_640_16x_ST",
    "CenterNet2_R50_1x",
)
NOISE = np.random.default_rng(0).integers(0, 256, (48, 70, 3), dtype=np.uint8)


@pytest.mark.parametrize("name", FIXTURES)
def test_conformance_picture_bit_for_bit(shared: Path, name: str) -> None:
    values = json.loads((shared / f"conformance/{name}.json").read_text())["input"]
    rule = CanvasRule(
        short_edge=values["min_size_test"],
        long_edge=values["max_size_test"],
        divisor=values["size_divisibility"],
    )
    picture = open_picture(shared / "conformance" / values["image"])
    assert hashlib.sha256(picture.tobytes()).hexdigest() == values["sha256_rgb"]
    placed = place_picture(picture, rule)
    assert [*placed.canvas.shape[:2]] == values["padded_hw"]
    resized = placed.canvas[: placed.resized[0], : placed.resized[1]]
    if values["format"] == "BGR":
        resized = resized[:, :, ::-1]
    digest = hashlib.sha256(np.ascontiguousarray(resized).tobytes()).hexdigest()
    assert digest == values["resized_sha256"]


@pytest.mark.parametrize("interpolation", ["antialias", "linear"])
@pytest.mark.parametrize("size", [(48, 70), (20, 30), (96, 141), (48, 71), (1, 5)])
def test_resize_is_the_librarys(interpolation: str, size: tuple[int, int]) -> None:
    rule = CanvasRule(
        short_edge=min(size),
        long_edge=max(size),
        divisor=1,
        interpolation=interpolation,
        fixed=size,
    )
    placed = place_picture(NOISE, rule)
    height, width = placed.resized
    if interpolation == "antialias":
        image = Image.fromarray(NOISE).resize((width, height), Image.Resampling.BILINEAR)
        expected = np.asarray(image)
    else:
        expected = cv2.resize(NOISE, (width, height), interpolation=cv2.INTER_LINEAR)
    np.testing.assert_array_equal(placed.canvas[:height, :width], expected)


@pytest.mark.parametrize("shape", [(1, 1, 3), (1, 10_000, 3), (10_000, 1, 3), (33, 1, 3)])
@pytest.mark.parametrize("interpolation", ["antialias", "linear"])
def test_extreme_pictures(shape: tuple[int, int, int], interpolation: str) -> None:
    rule = CanvasRule(short_edge=320, long_edge=512, divisor=32, interpolation=interpolation)
    placed = place_picture(np.full(shape, 200, np.uint8), rule)
    height, width = placed.resized
    assert placed.original == shape[:2]
    assert (placed.canvas[:height, :width] == 200).all()
    assert not placed.canvas[height:].any()
    assert not placed.canvas[:, width:].any()


def test_views_and_read_only_arrays() -> None:
    rule = CanvasRule(short_edge=32, long_edge=64, divisor=32)
    flipped = NOISE[::-1, ::-1]
    flipped.flags.writeable = False
    for interpolation in ("antialias", "linear"):
        rule = CanvasRule(short_edge=32, long_edge=64, divisor=32, interpolation=interpolation)
        expected = place_picture(np.ascontiguousarray(flipped), rule).canvas
        np.testing.assert_array_equal(place_picture(flipped, rule).canvas, expected)


def test_stacking() -> None:
    rule = CanvasRule(short_edge=32, long_edge=64, divisor=32)
    wide, square = place_picture(NOISE, rule), place_picture(NOISE[:, :50], rule)
    assert wide.canvas.shape == square.canvas.shape
    images, sizes = stack_pictures([wide, square], None)
    np.testing.assert_array_equal(images, [wide.canvas, square.canvas])
    assert sizes.tolist() == [[32, 47], [32, 33]]
    assert sizes.dtype == np.int32
    single, _ = stack_pictures([wide], None)
    assert np.shares_memory(single, wide.canvas)  # one picture is not copied


def test_fixed_batch_is_filled_with_blank_pictures() -> None:
    placed = place_picture(NOISE, CanvasRule(short_edge=32, long_edge=64, divisor=32))
    images, sizes = stack_pictures([placed], 3)
    assert images.shape == (3, 32, 64, 3)
    assert not images[1:].any()
    assert sizes.tolist() == [[32, 47], [1, 1], [1, 1]]
