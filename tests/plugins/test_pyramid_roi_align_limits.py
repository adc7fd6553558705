"""PyramidRoIAlign of unusual boxes and levels, and what must hold of any input."""

from __future__ import annotations

import ctypes
from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from native_kernels import INVALID_ARGUMENT, Kernels, Level
from plugin_inputs import BORDERS, STRIDES, random_features, spread_boxes

NAN, INF = float("nan"), float("inf")


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
