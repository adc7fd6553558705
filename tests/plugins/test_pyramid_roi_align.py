"""PyramidRoIAlign against torchvision on each level."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
import torch
import torchvision.ops  # type: ignore[import-untyped]
from numpy.typing import NDArray

from native_kernels import Kernels
from plugin_inputs import BORDERS, STRIDES, random_features, spread_boxes

Floats = NDArray[np.float32]
TOLERANCE = 1e-5


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
