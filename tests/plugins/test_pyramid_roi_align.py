"""PyramidRoIAlign against torchvision on each level, and what must hold of any input."""

from __future__ import annotations

import ctypes
from collections.abc import Sequence

import numpy as np
import pytest
import torch
import torchvision.ops  # type: ignore[import-untyped]
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from cn2.export.operators.pooling import level_borders
from native_kernels import INVALID_ARGUMENT, Kernels, Level
from plugin_inputs import spread_boxes

Floats = NDArray[np.float32]
STRIDES = (8, 16, 32, 64, 128)
BORDERS = level_borders(STRIDES, 4)
TOLERANCE = 1e-5
NAN, INF = float("nan"), float("inf")


def random_features(
    rng: np.random.Generator, batch: int = 1, channels: int = 3, strides: Sequence[int] = STRIDES
) -> list[Floats]:
    """The levels of a canvas of 512 x 768 pixels."""
    return [
        rng.standard_normal((batch, channels, 512 // s, 768 // s), dtype=np.float32)
        for s in strides
    ]


def levels_of(rois: Floats, borders: Sequence[float], canonical_size: float) -> NDArray[np.int64]:
    """(B, K), as docs/operators.md says, in float32."""
    area = (rois[..., 2] - rois[..., 0]) * (rois[..., 3] - rois[..., 1])
    with np.errstate(invalid="ignore"):
        size = np.sqrt(area) / np.float32(canonical_size) + np.float32(1e-8)
    reached: NDArray[np.int64] = (np.array(borders, np.float32) <= size[..., None]).sum(axis=-1)
    return reached


def by_torchvision(
    rois: Floats,
    features: Sequence[Floats],
    strides: Sequence[int] = STRIDES,
    borders: Sequence[float] = BORDERS,
    *,
    output_size: int = 7,
    sampling_ratio: int = 0,
    canonical_size: float = 224.0,
) -> Floats:
    """Each box pooled by torchvision from its level."""
    levels = levels_of(rois, borders, canonical_size)
    pooled = np.zeros((*rois.shape[:2], features[0].shape[1], output_size, output_size), np.float32)
    for index, (feature, stride) in enumerate(zip(features, strides, strict=True)):
        for picture in range(len(rois)):
            chosen = levels[picture] == index
            pooled[picture, chosen] = torchvision.ops.roi_align(
                torch.from_numpy(feature[picture : picture + 1]),
                [torch.from_numpy(rois[picture, chosen])],
                output_size,
                1 / stride,
                sampling_ratio,
                aligned=True,
            ).numpy()
    return pooled


@pytest.mark.parametrize("sampling_ratio", [0, 1, 2, 5])
def test_pyramid(kernels: Kernels, sampling_ratio: int) -> None:
    rng = np.random.default_rng(0)
    rois, features = spread_boxes(rng, (2, 150)), random_features(rng, batch=2)
    assert set(levels_of(rois, BORDERS, 224).ravel()) >= {0, 1, 2}
    pooled = kernels.pyramid_roi_align(
        rois, features, STRIDES, BORDERS, sampling_ratio=sampling_ratio
    )
    expected = by_torchvision(rois, features, sampling_ratio=sampling_ratio)
    assert np.abs(pooled - expected).max() <= TOLERANCE


@pytest.mark.parametrize("output_size", [1, 3, 7, 8, 14, 17])
@pytest.mark.parametrize("shape", [(1, 1), (1, 9), (20, 2), (5, 7), (9, 8), (30, 41)])
def test_sizes_of_result_and_level(
    kernels: Kernels, output_size: int, shape: tuple[int, int]
) -> None:
    rng = np.random.default_rng(1)
    features = [rng.standard_normal((1, 18, *shape), dtype=np.float32)]
    rois = spread_boxes(rng, (1, 20)) / 2
    pooled = kernels.pyramid_roi_align(rois, features, [8], [], output_size=output_size)
    expected = by_torchvision(rois, features, [8], [], output_size=output_size)
    assert np.abs(pooled - expected).max() <= TOLERANCE


EDGES = {
    "whole canvas": (0, 0, 768, 512),
    "up to a corner": (600, 400, 768, 512),
    "across the left edge": (-60, 100, 40, 220),
    "across all edges": (-100, -100, 900, 700),
    "last cell": (760, 504, 768, 512),
    "half a cell outside": (-4, -4, 60, 60),
    "a cell outside": (-12, -12, -4, -4),
    "just beyond a cell outside": (-13, -13, -5, -5),
    "outside": (900, 100, 1000, 200),
    "far outside": (-5e5, -5e5, -5e5 + 100, -5e5 + 100),
    "no area": (100, 100, 100, 200),
    "a point": (100, 100, 100, 100),
    "turned around": (300, 300, 100, 100),
    "tiny": (100.2, 100.2, 100.3, 100.25),
    "thin": (100, 100, 101, 400),
    "large": (-3000, -2500, 4000, 3000),
}


@pytest.mark.parametrize("sampling_ratio", [0, 2])
@pytest.mark.parametrize("box", EDGES.values(), ids=EDGES.keys())
def test_edges(kernels: Kernels, box: tuple[float, ...], sampling_ratio: int) -> None:
    rng = np.random.default_rng(2)
    rois, features = np.array([[box]], np.float32), random_features(rng)
    for stride, feature in zip(STRIDES, features, strict=True):
        one = {"sampling_ratio": sampling_ratio}
        pooled = kernels.pyramid_roi_align(rois, [feature], [stride], [], **one)
        expected = by_torchvision(rois, [feature], [stride], [], **one)
        assert np.abs(pooled - expected).max() <= TOLERANCE


@pytest.mark.parametrize("sampling_ratio", [0, 1])
def test_level_borders_are_exact(kernels: Kernels, sampling_ratio: int) -> None:
    """A square of a border's size is on that level, one of the float32 below it on the level below.

    The root of a float32 square is the side again, so nothing but the border decides.
    """
    constant = [np.full((1, 1, 16, 16), level, np.float32) for level in range(5)]
    for level, border in enumerate(BORDERS, start=1):
        below = np.nextafter(np.float32(border), np.float32(0))
        rois = np.array([[[0, 0, side, side] for side in (border, below)]], np.float32)
        pooled = kernels.pyramid_roi_align(
            rois, constant, [1] * 5, BORDERS, canonical_size=1.0, sampling_ratio=sampling_ratio
        )
        np.testing.assert_allclose(pooled[0, 0], level, rtol=1e-6)
        np.testing.assert_allclose(pooled[0, 1], level - 1, rtol=1e-6)


def test_a_box_turned_around_on_one_side_has_no_samples(kernels: Kernels) -> None:
    """torchvision cannot count its samples."""
    rois = np.array([[[300, 100, 100, 300], [100, 300, 300, 100]]], np.float32)
    ones = [np.ones((1, 2, 64, 96), np.float32)]
    assert not kernels.pyramid_roi_align(rois, ones, [8], []).any()


def test_a_stride_that_is_no_power_of_two(kernels: Kernels) -> None:
    rng = np.random.default_rng(3)
    rois, features = spread_boxes(rng, (1, 40)), random_features(rng, strides=[12])
    pooled = kernels.pyramid_roi_align(rois, features, [12], [])
    expected = by_torchvision(rois, features, [12], [])
    assert np.abs(pooled - expected).max() <= TOLERANCE


def test_a_thousand_boxes_and_none(kernels: Kernels) -> None:
    rng = np.random.default_rng(4)
    rois, features = spread_boxes(rng, (1, 1000)), random_features(rng, channels=2)
    pooled = kernels.pyramid_roi_align(rois, features, STRIDES, BORDERS)
    assert np.abs(pooled - by_torchvision(rois, features)).max() <= TOLERANCE
    none = kernels.pyramid_roi_align(rois[:, :0], features, STRIDES, BORDERS)
    assert none.shape == (1, 0, 2, 7, 7)
    no_channels = [feature[:, :0] for feature in features]
    assert kernels.pyramid_roi_align(rois, no_channels, STRIDES, BORDERS).size == 0
    no_picture = [feature[:0] for feature in features]
    assert kernels.pyramid_roi_align(rois[:0], no_picture, STRIDES, BORDERS).size == 0


def test_levels_without_cells_pool_to_zeros(kernels: Kernels) -> None:
    rois = spread_boxes(np.random.default_rng(5), (1, 10))
    for shape in ((0, 5), (5, 0), (0, 0)):
        pooled = kernels.pyramid_roi_align(rois, [np.zeros((1, 4, *shape), np.float32)], [8], [])
        assert pooled.shape == (1, 10, 4, 7, 7)
        assert not pooled.any()


def test_coordinates_that_are_not_finite_count_as_zero(kernels: Kernels) -> None:
    rng = np.random.default_rng(6)
    features = random_features(rng)
    rois = np.array([[[NAN, 10, 90, 90], [-INF, -INF, INF, 50], [NAN] * 4]], np.float32)
    pooled = kernels.pyramid_roi_align(rois, features, STRIDES, BORDERS)
    finite = np.nan_to_num(rois, nan=0, posinf=0, neginf=0)
    again = kernels.pyramid_roi_align(finite, features, STRIDES, BORDERS)
    np.testing.assert_array_equal(pooled, again)
    assert pooled[0, 0].any()


@pytest.mark.parametrize("side", [1e7, 1e8, 1e10, 1e20, 3e38])
def test_huge_boxes_take_no_longer(kernels: Kernels, side: float) -> None:
    """The middle bin holds the whole map of ones, which is a small part of it."""
    ones = [np.ones((1, 1, 64, 96), np.float32)]
    rois = np.array([[[-side, -side, side, side]] * 50], np.float32)
    pooled = kernels.pyramid_roi_align(rois, ones, [8], [])
    bin_size = 2 * side / 8 / 7
    expected = (64 + 1) * (96 + 1) / bin_size**2  # a sample counts up to half a cell outside
    assert pooled[0, 0, 0, 3, 3] == pytest.approx(expected, rel=0.05, abs=1e-12)
    pooled[:, :, :, 3, 3] = 0
    assert not pooled.any()
    fixed = kernels.pyramid_roi_align(rois, ones, [8], [], sampling_ratio=3)
    assert np.isfinite(fixed).all()


@settings(deadline=None, max_examples=30)
@given(st.integers(0, 10**6), st.integers(1, 30), st.sampled_from([0, 2]), st.integers(-9, 9))
def test_order_duplicates_and_scale(
    kernels: Kernels, seed: int, count: int, sampling_ratio: int, exponent: int
) -> None:
    rng = np.random.default_rng(seed)
    rois, features = spread_boxes(rng, (1, count)), random_features(rng, strides=STRIDES[:3])
    borders, options = BORDERS[:2], {"sampling_ratio": sampling_ratio}
    pooled = kernels.pyramid_roi_align(rois, features, STRIDES[:3], borders, **options)
    order = rng.integers(0, count, 2 * count)  # some more than once, others not at all
    mixed = kernels.pyramid_roi_align(rois[:, order], features, STRIDES[:3], borders, **options)
    np.testing.assert_array_equal(mixed, pooled[:, order])
    twice = kernels.pyramid_roi_align(
        rois * 2, features, [2 * s for s in STRIDES[:3]], borders, canonical_size=448.0, **options
    )
    np.testing.assert_array_equal(twice, pooled)
    factor = np.float32(2.0**exponent)
    larger = [feature * factor for feature in features]
    scaled = kernels.pyramid_roi_align(rois, larger, STRIDES[:3], borders, **options)
    np.testing.assert_array_equal(scaled, pooled * factor)


@pytest.mark.parametrize("channels", [1, 16, 33])
def test_threads_and_batches_give_the_same(kernels: Kernels, channels: int) -> None:
    rng = np.random.default_rng(7)
    rois = spread_boxes(rng, (3, 130))
    features = random_features(rng, batch=3, channels=channels)
    serial = kernels.pyramid_roi_align(rois, features, STRIDES, BORDERS)
    threaded = kernels.pyramid_roi_align(rois, features, STRIDES, BORDERS, threads=4)
    np.testing.assert_array_equal(threaded, serial)
    alone = [feature[1:2] for feature in features]
    one = kernels.pyramid_roi_align(rois[1:2], alone, STRIDES, BORDERS)
    np.testing.assert_array_equal(one, serial[1:2])


def status(kernels: Kernels, level: Level, *, borders: Sequence[float] = (), **changed: int) -> int:
    """Of a call whose tensors nobody may touch."""
    sizes = {"batch": 1, "rois": 1, "channels": 1, "output_size": 7, "sampling_ratio": 0}
    size = changed.pop("canonical_size", 224)
    levels = (Level * 2)(level, level)
    limits = np.array([*borders, 0.5], np.float32)
    count = changed.pop("level_count", len(borders) + 1)
    found: int = kernels.library.cn2_kernels_pyramid_roi_align(
        None, levels, ctypes.c_int64(count), limits.ctypes.data_as(ctypes.c_void_p),
        *map(ctypes.c_int64, {**sizes, **changed}.values()), ctypes.c_float(size),
        ctypes.c_int32(0), None,
    )  # fmt: skip
    return found


@pytest.mark.parametrize(
    "changed",
    [
        {"batch": -1},
        {"rois": -1},
        {"channels": -1},
        {"output_size": 0},
        {"output_size": 2**20},
        {"sampling_ratio": -1},
        {"sampling_ratio": 2**40},
        {"batch": 2**40, "rois": 2**40},
        {"channels": 2**60},
        {"level_count": 0},
        {"canonical_size": 0},
        {"canonical_size": -1},
        {"canonical_size": NAN},
        {"canonical_size": INF},
    ],
)
def test_what_no_call_can_have(kernels: Kernels, changed: dict[str, int]) -> None:
    assert status(kernels, Level(None, 4, 4, 8), **changed) == INVALID_ARGUMENT


def test_levels_that_none_can_be(kernels: Kernels) -> None:
    for wrong in ((-1, 4, 8), (4, -1, 8), (4, 4, 0), (4, 4, -8), (2**40, 2**40, 8)):
        assert status(kernels, Level(None, *wrong)) == INVALID_ARGUMENT
    assert status(kernels, Level(None, 4, 4, 8), borders=[NAN]) == INVALID_ARGUMENT
