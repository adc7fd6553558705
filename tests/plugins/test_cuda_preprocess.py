"""Preprocessing as CUDA kernels, emulated, against OpenCV and Pillow.

To the last bit, but for pictures much higher than wide, which Pillow shrinks along y first: one
grey level.
"""

from __future__ import annotations

import ctypes
from typing import Any, NamedTuple

import cv2
import numpy as np
import pytest

from cn2.runtime.preprocess import resize_into
from native_cuda import Bytes, CudaKernels, Picture, preprocess

RGB, BGR, RGBA, BGRA, GREY, NV12 = range(6)
FORMATS = [RGB, BGR, RGBA, BGRA, GREY, NV12]
ANTIALIAS, LINEAR = 0, 1
NAMES = {ANTIALIAS: "antialias", LINEAR: "linear"}


class Made(NamedTuple):
    """A picture in some format, and the same as RGB; `planes` keeps its memory."""

    picture: Picture
    rgb: Bytes
    planes: list[Bytes]


def padded(rows: Bytes, pitch: int) -> Bytes:
    """Rows `pitch` bytes apart; what is between them must not be read."""
    out = np.full((rows.shape[0], pitch), 200, np.uint8)
    out[:, : rows.shape[1]] = rows
    return out


def make(
    rng: np.random.Generator,
    size: tuple[int, int],
    resized: tuple[int, int],
    pixel_format: int = RGB,
    gap: int = 0,
) -> Made:
    """A random picture: half of it noise, half smooth."""
    height, width = size
    noise = rng.integers(0, 256, (height, width, 4), dtype=np.uint8)
    noise[: height // 2] = cv2.GaussianBlur(noise, (7, 7), 2)[: height // 2]
    chroma = rng.integers(0, 256, (height // 2, width), dtype=np.uint8)
    if pixel_format == NV12:
        luma = np.ascontiguousarray(noise[..., 0])
        rgb = cv2.cvtColor(np.concatenate([luma, chroma]), cv2.COLOR_YUV2RGB_NV12)
        planes = [padded(luma, width + gap), padded(chroma, width + 2 * gap)]
    else:
        pixels, rgb = plain_format(noise, pixel_format)
        planes = [padded(pixels.reshape(height, -1), pixels[0].size + gap)]
    pointers = [plane.ctypes.data for plane in planes] + [None]
    pitches = [plane.shape[1] for plane in planes] + [0]
    picture = Picture(
        *pointers[:2], *pitches[:2], pixel_format, width, height, resized[1], resized[0]
    )
    return Made(picture, np.ascontiguousarray(rgb), planes)


def plain_format(noise: Bytes, pixel_format: int) -> tuple[Bytes, Any]:
    """The pixels in a format of one plane, and as RGB."""
    if pixel_format == GREY:
        return noise[..., :1], noise[..., [0, 0, 0]]
    if pixel_format in (RGB, BGR):
        return noise[..., :3], noise[..., :3] if pixel_format == RGB else noise[..., 2::-1]
    return noise, noise[..., :3] if pixel_format == RGBA else noise[..., 2::-1]


def expected(made: Made, interpolation: int, canvas: tuple[int, int]) -> Bytes:
    result = np.zeros((*canvas, 3), np.uint8)
    height, width = made.picture.resized_height, made.picture.resized_width
    resize_into(result[:height, :width], made.rgb, NAMES[interpolation])  # type: ignore[arg-type]
    return result


def assert_expected(
    canvas: Bytes, made: Made, interpolation: int, *, may_differ: bool = False
) -> None:
    theirs = expected(made, interpolation, (canvas.shape[0], canvas.shape[1]))
    if may_differ:
        assert np.abs(canvas.astype(int) - theirs).max() <= 1
    else:
        np.testing.assert_array_equal(canvas, theirs)


SIZES = {
    "shrinks": ((93, 141), (64, 96)),
    "shrinks much": ((301, 203), (17, 30)),
    "grows": ((31, 43), (64, 90)),
    "exactly half": ((96, 80), (48, 40)),
    "exactly a quarter": ((96, 80), (24, 20)),
    "the same": ((60, 50), (60, 50)),
    "only one side": ((60, 50), (60, 33)),
    "to one pixel": ((37, 53), (1, 1)),
    "from one pixel": ((1, 1), (20, 30)),
    "one row": ((1, 200), (1, 96)),
    "the whole canvas": ((50, 70), (64, 96)),
}


@pytest.mark.parametrize("interpolation", [ANTIALIAS, LINEAR])
@pytest.mark.parametrize(("size", "resized"), SIZES.values(), ids=SIZES.keys())
def test_sizes(
    cuda: CudaKernels, size: tuple[int, int], resized: tuple[int, int], interpolation: int
) -> None:
    made = make(np.random.default_rng(0), size, resized)
    canvases, image_sizes = preprocess(cuda, [made.picture], interpolation, (64, 96))
    assert_expected(canvases[0], made, interpolation)
    assert image_sizes.tolist() == [list(resized)]


@pytest.mark.parametrize("interpolation", [ANTIALIAS, LINEAR])
@pytest.mark.parametrize("gap", [0, 13])
@pytest.mark.parametrize("pixel_format", FORMATS)
def test_formats(cuda: CudaKernels, pixel_format: int, gap: int, interpolation: int) -> None:
    """Two canvases, so that where a plane begins matters; half the size is a case of its own."""
    rng = np.random.default_rng(1)
    both = [make(rng, (74, 90), size, pixel_format, gap) for size in ((37, 45), (50, 61))]
    canvases, _ = preprocess(cuda, [m.picture for m in both], interpolation, (52, 64))
    for canvas, made in zip(canvases, both, strict=True):
        assert_expected(canvas, made, interpolation)


@pytest.mark.parametrize("interpolation", [ANTIALIAS, LINEAR])
@pytest.mark.parametrize("count", [0, 1, 16, 17, 33])  # launches take 16
def test_batches(cuda: CudaKernels, count: int, interpolation: int) -> None:
    rng = np.random.default_rng(2)
    made = [
        make(rng, tuple(rng.integers(1, 60, 2) * 2), tuple(rng.integers(1, 41, 2)), i % 6, i)
        for i in range(count)
    ]
    canvases, image_sizes = preprocess(cuda, [m.picture for m in made], interpolation, (40, 40))
    for canvas, size, one in zip(canvases, image_sizes, made, strict=True):
        tall = interpolation == ANTIALIAS and one.picture.height > 1.3 * one.picture.width
        assert_expected(canvas, one, interpolation, may_differ=tall)
        assert size.tolist() == [one.picture.resized_height, one.picture.resized_width]


@pytest.mark.parametrize("interpolation", [ANTIALIAS, LINEAR])
def test_order_of_threads_does_not_matter(cuda: CudaKernels, interpolation: int) -> None:
    made = make(np.random.default_rng(3), (150, 90), (64, 40), NV12)
    first = preprocess(cuda, [made.picture], interpolation, (64, 64))[0]
    for seed in range(1, 4):
        cuda.set_seed(seed)
        again = preprocess(cuda, [made.picture], interpolation, (64, 64))[0]
        np.testing.assert_array_equal(again, first)


@pytest.mark.parametrize(
    "changed",
    [
        {"data": None},
        {"format": 6},
        {"format": -1},
        {"width": 0},
        {"width": 65536},
        {"height": -1},
        {"pitch": 29},
        {"pitch": 2**62},
        {"resized_width": 0},
        {"resized_width": 21},
        {"resized_height": 11},
        {"format": NV12},  # without chroma
        {"format": NV12, "chroma": 1, "chroma_pitch": 9},
        {"format": NV12, "chroma": 1, "chroma_pitch": 10, "height": 7},
    ],
)
def test_pictures_that_none_can_be(cuda: CudaKernels, changed: dict[str, int]) -> None:
    good = make(np.random.default_rng(4), (8, 10), (10, 20))
    preprocess(cuda, [good.picture], LINEAR, (10, 20))
    for name, value in changed.items():
        setattr(good.picture, name, value)
    with pytest.raises(ValueError, match="invalid argument"):
        preprocess(cuda, [good.picture], LINEAR, (10, 20))


@pytest.mark.parametrize("canvas", [(0, 20), (10, 65536)])
def test_canvases_that_none_can_be(cuda: CudaKernels, canvas: tuple[int, int]) -> None:
    with pytest.raises(ValueError, match="invalid argument"):
        preprocess(cuda, [], LINEAR, canvas)


def test_the_workspace(cuda: CudaKernels) -> None:
    """None for linear; for antialias it grows with the picture, and less than it is refused."""
    rng = np.random.default_rng(5)
    both = [make(rng, size, (10, 20)) for size in ((30, 40), (60, 40))]
    small, large = (made.picture for made in both)

    def bytes_of(*pictures: Picture, interpolation: int = ANTIALIAS) -> int:
        ask = cuda.library.cn2_cuda_preprocess_workspace_size
        ask.restype = ctypes.c_int64
        array = (Picture * len(pictures))(*pictures)
        size: int = ask(array, ctypes.c_int64(len(pictures)), ctypes.c_int32(interpolation))
        return size

    assert bytes_of(small, interpolation=LINEAR) == 0
    assert bytes_of(small, large) == bytes_of(small) + bytes_of(large)
    assert bytes_of(large) - bytes_of(small) >= 30 * 20 * 3
    huge = Picture(1, None, 3 * 65535, 0, RGB, 65535, 65535, 65535, 65535)
    assert bytes_of(huge) > 65535 * 65535 * 3  # counted in 64 bits
    preprocess(cuda, [small], ANTIALIAS, (10, 20), workspace_more=1)
    with pytest.raises(ValueError, match="invalid argument"):
        preprocess(cuda, [small], ANTIALIAS, (10, 20), workspace_more=-1)
