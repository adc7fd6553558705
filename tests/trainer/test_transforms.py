"""Decoding, sizes and resizing: the same pixels that the exported detector will be fed."""

from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from cn2.runtime.canvas import CanvasRule, Rounding
from cn2.runtime.errors import PictureError
from cn2.runtime.pictures import open_picture
from cn2.runtime.preprocess import resize_into
from cn2.trainer.data.transforms import (
    canvas_size,
    clip_boxes,
    flip_horizontally,
    read_picture,
    resize,
    resized_size,
    scale_boxes,
)
from factories import picture

SIDE = st.integers(1, 10_000)


@given(
    SIDE,
    SIDE,
    st.integers(1, 1500),
    st.integers(0, 1500),
    st.integers(1, 128),
    st.sampled_from(["nearest", "down"]),
)
def test_sizes_are_those_of_the_runtime(
    height: int, width: int, short_edge: int, more: int, divisor: int, rounding: Rounding
) -> None:
    rule = CanvasRule(
        short_edge=short_edge, long_edge=short_edge + more, divisor=divisor, rounding=rounding
    )
    size = resized_size(height, width, short_edge, short_edge + more, rounding)
    assert size == rule.resized_size(height, width)
    assert canvas_size([size], divisor) == rule.canvas_size(size)


@pytest.mark.parametrize(
    ("size", "short_edge", "long_edge", "expected"),
    [
        ((480, 640), 512, 736, (512, 683)),  # conformance page: padded to 512 x 768
        ((640, 480), 512, 736, (683, 512)),  # portrait
        ((100, 100), 64, 96, (64, 64)),  # square
        ((100, 1000), 64, 96, (10, 96)),  # the long side decides
        ((1, 10_000), 320, 512, (1, 512)),  # a side never becomes 0
        ((1, 1), 320, 512, (320, 320)),
    ],
)
def test_resized_size(
    size: tuple[int, int], short_edge: int, long_edge: int, expected: tuple[int, int]
) -> None:
    assert resized_size(*size, short_edge, long_edge) == expected


def test_canvas_holds_every_picture() -> None:
    assert canvas_size([(64, 20), (33, 97)], 32) == (64, 128)
    assert canvas_size([(1, 1)], 128) == (128, 128)


@pytest.mark.parametrize("size", [(32, 48), (17, 23), (64, 96), (100, 131), (1, 96)])
def test_resize_is_pillows_and_opencvs_bit_for_bit(size: tuple[int, int]) -> None:
    pixels = picture()
    height, width = size
    pillow = Image.fromarray(pixels).resize((width, height), Image.Resampling.BILINEAR)
    np.testing.assert_array_equal(resize(pixels, size, "antialias"), np.asarray(pillow))
    opencv = cv2.resize(pixels, (width, height), interpolation=cv2.INTER_LINEAR)
    np.testing.assert_array_equal(resize(pixels, size, "linear"), opencv)
    for interpolation in ("antialias", "linear"):
        target = np.empty((*size, 3), np.uint8)
        resize_into(target, pixels, interpolation)
        np.testing.assert_array_equal(resize(pixels, size, interpolation), target)


def write_variant(path: Path, kind: str) -> Path:
    """The test picture as a file of some kind."""
    image = Image.fromarray(picture(61, 97))
    if kind in ("1", "L", "LA", "RGBA", "P"):
        image.convert(kind).save(path := path.with_suffix(".png"))
    elif kind == "transparent palette":
        image.quantize(16).save(path := path.with_suffix(".png"), transparency=3)
    elif kind == "16-bit":
        values = picture(61, 97)[..., 0].astype(np.uint16) * 257 - 100
        Image.fromarray(values).save(path := path.with_suffix(".png"))
    elif kind in ("CMYK", "grey JPEG"):
        image.convert("CMYK" if kind == "CMYK" else "L").save(path := path.with_suffix(".jpg"))
    else:
        exif = Image.Exif()
        exif[0x0112] = int(kind[-1])
        image.save(path := path.with_suffix(".jpg"), exif=exif, quality=90)
    return path


KINDS = ["1", "L", "LA", "RGBA", "P", "transparent palette", "16-bit", "CMYK", "grey JPEG"]


@pytest.mark.parametrize("kind", [*KINDS, *(f"EXIF {k}" for k in range(1, 9))])
def test_every_kind_of_picture_reads_as_the_runtime_reads_it(tmp_path: Path, kind: str) -> None:
    path = write_variant(tmp_path / "picture", kind)
    pixels = read_picture(path)
    assert pixels.dtype == np.uint8
    rotated = kind.startswith("EXIF") and int(kind[-1]) >= 5
    assert pixels.shape == ((97, 61, 3) if rotated else (61, 97, 3))
    np.testing.assert_array_equal(pixels, open_picture(path))


def test_jpeg_is_reduced_but_never_below_what_is_wanted(tmp_path: Path) -> None:
    path = tmp_path / "picture.jpg"
    Image.fromarray(picture(240, 321)).save(path, quality=95)
    assert read_picture(path, reduce_to=(120, 160)).shape == (120, 161, 3)
    assert read_picture(path, reduce_to=(121, 160)).shape == (240, 321, 3)
    assert read_picture(path, reduce_to=(31, 40)).shape == (60, 81, 3)
    small = read_picture(path, reduce_to=(120, 160)).astype(int)
    exact = resize(read_picture(path), (120, 161), "antialias").astype(int)
    assert abs(small - exact).mean() < 5  # grey levels; noise, where decoders differ most


@pytest.mark.parametrize("kind", ["missing", "empty", "text", "truncated"])
def test_unreadable_files_are_named_in_one_line(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "picture.jpg"
    if kind == "empty":
        path.write_bytes(b"")
    elif kind == "text":
        path.write_text("not a picture")
    elif kind == "truncated":
        Image.fromarray(picture(240, 320)).save(path)
        path.write_bytes(path.read_bytes()[:2000])
    with pytest.raises(PictureError) as caught:
        read_picture(path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_flip_mirrors_pixels_and_boxes() -> None:
    pixels = picture()
    boxes = np.array([[0, 5, 10, 20], [90, 0, 96, 64]], np.float32)
    mirrored, moved = flip_horizontally(pixels, boxes)
    np.testing.assert_array_equal(mirrored, pixels[:, ::-1])
    np.testing.assert_array_equal(moved, [[86, 5, 96, 20], [0, 0, 6, 64]])
    _, back = flip_horizontally(mirrored, moved)
    np.testing.assert_array_equal(back, boxes)
    assert flip_horizontally(pixels, np.empty((0, 4), np.float32))[1].shape == (0, 4)


def test_boxes_scale_by_each_side_and_clip() -> None:
    boxes = np.array([[10, 10, 20, 40]], np.float32)
    np.testing.assert_array_equal(scale_boxes(boxes, (50, 100), (25, 300)), [[30, 5, 60, 20]])
    assert scale_boxes(boxes[:0], (50, 100), (25, 300)).shape == (0, 4)
    np.testing.assert_array_equal(clip_boxes(boxes, 30, 15), [[10, 10, 15, 30]])
