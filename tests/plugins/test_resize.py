"""cn2_resize against Pillow and OpenCV, which it equals bit for bit; its formats and pitches."""

from __future__ import annotations

from ctypes import byref

import cv2
import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image as PillowImage

from c_library import INVALID_ARGUMENT, Failed, Library, image
from cn2.runtime.backends.libcn2 import (
    ANTIALIAS,
    BGR8,
    BGRA8,
    CUDA,
    GREY8,
    LINEAR,
    NV12,
    RGB8,
    RGBA8,
)
from cn2.runtime.canvas import CanvasRule
from cn2.runtime.preprocess import place_picture

Pixels = npt.NDArray[np.uint8]
SIZES = (  # picture height, width, target height, width
    (480, 640, 384, 512),  # a usual picture on nano's canvas
    (427, 640, 384, 576),
    (640, 480, 512, 384),
    (100, 200, 50, 100),  # exactly half: OpenCV takes the mean
    (100, 200, 50, 101),  # half along one side only
    (301, 403, 100, 134),  # a third
    (1080, 1920, 384, 683),
    (37, 53, 384, 550),  # enlarged
    (1, 1, 5, 4),  # one pixel
    (1, 64, 3, 64),  # one row
    (64, 1, 64, 3),  # one column
    (2, 2, 1, 1),
    (7, 5, 7, 9),  # one side as it is
    (7, 5, 9, 5),
    (65, 33, 1, 1),  # all of it into one pixel
    (3000, 40, 30, 40),  # a hundredth
    (120, 90, 60, 60),  # Pillow begins along x ...
    (120, 90, 60, 61),  # ... and along y
)


def random_picture(height: int, width: int, channels: int = 3, seed: int = 0) -> Pixels:
    """Noise, and a third of it black or white, where rounding would overflow."""
    rng = np.random.default_rng([seed, height, width])
    picture = rng.integers(0, 256, (height, width, channels), dtype=np.uint8)
    extreme = rng.random((height, width)) < 1 / 3
    picture[extreme] = 255 * rng.integers(0, 2, (int(extreme.sum()), channels))
    return picture


def reference(picture: Pixels, interpolation: int, height: int, width: int) -> Pixels:
    """What the Python side makes of it."""
    if interpolation == LINEAR:
        return cv2.resize(picture, (width, height), interpolation=cv2.INTER_LINEAR)
    bilinear = PillowImage.Resampling.BILINEAR
    return np.asarray(PillowImage.fromarray(picture).resize((width, height), bilinear))


@pytest.mark.parametrize("interpolation", [ANTIALIAS, LINEAR])
@pytest.mark.parametrize("sizes", SIZES, ids=str)
def test_equals_pillow_and_opencv(
    library: Library, sizes: tuple[int, int, int, int], interpolation: int
) -> None:
    height, width, *target = sizes
    picture = random_picture(height, width)
    found = library.resized(image(picture), interpolation, *target)
    np.testing.assert_array_equal(found, reference(picture, interpolation, *target))


@pytest.mark.parametrize("interpolation", [ANTIALIAS, LINEAR])
def test_equals_them_at_random_sizes(library: Library, interpolation: int) -> None:
    rng = np.random.default_rng(5)
    for seed in range(200):
        height, width, *target = (int(side) for side in rng.integers(1, 120, 4))
        picture = random_picture(height, width, seed=seed)
        found = library.resized(image(picture), interpolation, *target)
        expected = reference(picture, interpolation, *target)
        np.testing.assert_array_equal(found, expected, err_msg=f"{picture.shape} to {target}")


@pytest.mark.parametrize("interpolation", [ANTIALIAS, LINEAR])
@pytest.mark.parametrize("size", [(48, 70), (31, 45), (24, 35), (97, 141)], ids=str)
def test_formats_are_their_rgb(library: Library, size: tuple[int, int], interpolation: int) -> None:
    rgba = random_picture(48, 70, 4)
    rgb = np.ascontiguousarray(rgba[..., :3])
    grey = np.ascontiguousarray(rgba[..., 0])
    expected = library.resized(image(rgb), interpolation, *size)
    for pixels, kind in (
        (rgb[..., ::-1].copy(), BGR8),
        (rgba, RGBA8),
        (rgba[..., [2, 1, 0, 3]].copy(), BGRA8),
    ):
        found = library.resized(image(pixels, kind), interpolation, *size)
        np.testing.assert_array_equal(found, expected)
    found = library.resized(image(grey, GREY8), interpolation, *size)
    repeated = np.repeat(grey[..., None], 3, axis=2)
    np.testing.assert_array_equal(found, reference(repeated, interpolation, *size))


def nv12_planes(height: int, width: int) -> tuple[Pixels, Pixels]:
    """Luma (height, width) and chroma (height / 2, width), any value."""
    both = random_picture(height * 3 // 2, width, 1)[..., 0]
    return both[:height], both[height:]


@pytest.mark.parametrize("size", [(48, 70), (32, 50)], ids=str)
def test_nv12_is_what_opencv_makes_of_it(library: Library, size: tuple[int, int]) -> None:
    luma, chroma = nv12_planes(48, 70)
    rgb = cv2.cvtColor(np.vstack([luma, chroma]), cv2.COLOR_YUV2RGB_NV12)
    expected = rgb if size == (48, 70) else reference(rgb, LINEAR, *size)
    for given in (
        image(luma, NV12),  # chroma follows
        image(luma, NV12, chroma),
        image(luma.copy(), NV12, np.pad(chroma, ((0, 0), (0, 9)))[:, :70]),  # a pitch of its own
    ):
        np.testing.assert_array_equal(library.resized(given, LINEAR, *size), expected)


@pytest.mark.parametrize("interpolation", [ANTIALIAS, LINEAR])
@pytest.mark.parametrize("format", [RGB8, BGRA8, GREY8])
def test_pitches_of_both_sides(library: Library, format: int, interpolation: int) -> None:
    channels = {RGB8: 3, BGRA8: 4, GREY8: 1}[format]
    wide = random_picture(40, 64, channels)
    part = wide[3:35, 5:47]
    expected = library.resized(image(part.copy(), format), interpolation, 21, 30)
    for pitch in (0, 90, 97):
        found = library.resized(image(part, format), interpolation, 21, 30, pitch)
        np.testing.assert_array_equal(found, expected)


def test_what_lies_between_the_rows_is_left_alone(library: Library) -> None:
    rows = np.full((12, 100), 9, dtype=np.uint8)
    given = image(random_picture(30, 40))
    library.check(library.resize(byref(given), LINEAR, rows.ctypes.data, 20, 12, 100))
    assert (rows[:, 60:] == 9).all()
    assert (rows[:, :60] != 9).any()


@pytest.mark.parametrize("interpolation", ["antialias", "linear"])
def test_the_canvas_of_python(library: Library, interpolation: str) -> None:
    kind = {"antialias": ANTIALIAS, "linear": LINEAR}[interpolation]
    rule = CanvasRule(short_edge=64, long_edge=96, divisor=32, interpolation=interpolation)
    for shape in ((480, 640), (64, 64), (33, 90), (200, 100)):
        picture = random_picture(*shape)
        placed = place_picture(picture, rule)
        height, width = placed.resized
        found = library.resized(image(picture), kind, height, width)
        np.testing.assert_array_equal(found, placed.canvas[:height, :width])


BAD = {  # changes of a good picture or target -> what the message names
    "no data": ({"data": None}, "pixels"),
    "no width": ({"width": 0}, "width"),
    "negative height": ({"height": -3}, "height"),
    "too wide": ({"width": 65536}, "65535"),
    "unknown format": ({"format": 6}, "format"),
    "unknown memory": ({"memory": 2}, "memory"),
    "device memory": ({"memory": CUDA}, "host memory"),
    "a pitch shorter than a row": ({"pitch": 119}, "pitch"),
    "a pitch that overflows": ({"pitch": 2**63}, "pitch"),
    "odd NV12": ({"format": NV12, "height": 29}, "even"),
    "a short chroma pitch": ({"format": NV12, "chroma_pitch": 39, "pitch": 0}, "chroma_pitch"),
    "an unknown size of the struct": ({"struct_size": 21}, "struct_size"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_pictures_are_refused(library: Library, name: str) -> None:
    changes, said = BAD[name]
    given = image(random_picture(30, 40))
    for field, value in changes.items():
        setattr(given, field, value)
    with pytest.raises(Failed, match=said) as caught:
        library.resized(given, LINEAR, 10, 10)
    assert caught.value.status == INVALID_ARGUMENT
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [((2, 10, 10), "interpolation"), ((LINEAR, 0, 10), "rgb"), ((LINEAR, 10, 65536), "rgb")],
)
def test_bad_targets_are_refused(
    library: Library, arguments: tuple[int, int, int], said: str
) -> None:
    kind, height, width = arguments
    given, rows = image(random_picture(30, 40)), np.zeros(300, np.uint8)
    with pytest.raises(Failed, match=said):
        library.check(library.resize(byref(given), kind, rows.ctypes.data, width, height, 0))
    assert not rows.any()


def test_null_pointers_and_a_short_pitch_are_refused(library: Library) -> None:
    given, rows = image(random_picture(30, 40)), np.zeros(300, np.uint8)
    for arguments, said in (
        ((byref(given), LINEAR, None, 10, 10, 0), "rgb"),
        ((None, LINEAR, rows.ctypes.data, 10, 10, 0), "image"),
        ((byref(given), LINEAR, rows.ctypes.data, 10, 10, 29), "pitch"),
    ):
        with pytest.raises(Failed, match=said) as caught:
            library.check(library.resize(*arguments))
        assert caught.value.status == INVALID_ARGUMENT
