"""PyramidRoIAlign as CUDA kernels, emulated, against the CPU's kernel."""

from __future__ import annotations

import numpy as np
import pytest

from cn2.export.operators.pooling import level_borders
from native_cuda import CudaKernels
from native_kernels import Floats, Kernels
from plugin_inputs import spread_boxes

STRIDES = (8, 16, 32, 64, 128)
BORDERS = level_borders(STRIDES, 4)
TOLERANCE = 1e-5  # of sums in another order
HALF_STEP = 2.0**-11  # relative, of rounding to half precision


def pyramid(rng: np.random.Generator, batch: int = 1, channels: int = 3) -> list[Floats]:
    """The levels of a canvas of 512 x 768 pixels."""
    return [
        rng.standard_normal((batch, channels, 512 // s, 768 // s), dtype=np.float32)
        for s in STRIDES
    ]


@pytest.mark.parametrize("sampling_ratio", [0, 1, 3])
@pytest.mark.parametrize("channels", [1, 33])  # blocks take 32
def test_pyramid(cuda: CudaKernels, kernels: Kernels, sampling_ratio: int, channels: int) -> None:
    rng = np.random.default_rng(0)
    rois, features = spread_boxes(rng, (2, 60)), pyramid(rng, 2, channels)
    call = (rois, features, STRIDES, BORDERS)
    ours = cuda.pyramid_roi_align(*call, sampling_ratio=sampling_ratio)
    theirs = kernels.pyramid_roi_align(*call, sampling_ratio=sampling_ratio)
    assert np.abs(ours - theirs).max() <= TOLERANCE


@pytest.mark.parametrize("output_size", [1, 7, 14, 32, 33])  # above 32: sample by sample
@pytest.mark.parametrize("shape", [(1, 1), (20, 2), (2, 20), (30, 41)])
def test_sizes_of_result_and_level(
    cuda: CudaKernels, kernels: Kernels, output_size: int, shape: tuple[int, int]
) -> None:
    rng = np.random.default_rng(1)
    features = [rng.standard_normal((1, 3, *shape), dtype=np.float32)]
    call = (spread_boxes(rng, (1, 12)) / 2, features, [8], [])
    ours = cuda.pyramid_roi_align(*call, output_size=output_size)
    theirs = kernels.pyramid_roi_align(*call, output_size=output_size)
    assert np.abs(ours - theirs).max() <= TOLERANCE


@pytest.mark.parametrize("shape", [(6, 700), (700, 6)])  # more columns, more weights than kept
def test_boxes_whose_weights_are_too_many(
    cuda: CudaKernels, kernels: Kernels, shape: tuple[int, int]
) -> None:
    rng = np.random.default_rng(2)
    features = [rng.standard_normal((1, 2, *shape), dtype=np.float32)]
    rois = rng.uniform(-300, 6000, (1, 20, 4)).astype(np.float32)
    rois[..., 2:] = rois[..., :2] + np.abs(rois[..., 2:])
    rois[0, :4] = [[0, 0, 5600, 5600], [-1e7, -1e7, 1e7, 1e7], [0, 0, 30, 30], [-9, -9, 3e38, 9]]
    for sampling_ratio in (0, 2):
        call = (rois, features, [8], [])
        ours = cuda.pyramid_roi_align(*call, sampling_ratio=sampling_ratio)
        theirs = kernels.pyramid_roi_align(*call, sampling_ratio=sampling_ratio)
        assert np.abs(ours - theirs).max() <= TOLERANCE


def test_half_precision_features(cuda: CudaKernels, kernels: Kernels) -> None:
    """Rounded once, at the end: what is summed is float32, and so are boxes."""
    rng = np.random.default_rng(3)
    rois, halfs = spread_boxes(rng, (2, 40)) * 2, [f.astype(np.float16) for f in pyramid(rng, 2)]
    strides = [2 * stride for stride in STRIDES]
    ours = cuda.pyramid_roi_align_fp16(rois, halfs, strides, BORDERS).astype(np.float32)
    wide = [half.astype(np.float32) for half in halfs]
    exact = kernels.pyramid_roi_align(rois, wide, strides, BORDERS)
    error = np.abs(ours - exact)
    assert (error <= HALF_STEP * np.abs(exact) + TOLERANCE).all()
    assert error.max() > 0


def test_order_of_threads_does_not_matter(cuda: CudaKernels) -> None:
    rng = np.random.default_rng(4)
    call = (spread_boxes(rng, (2, 20)), pyramid(rng, 2, 40), STRIDES, BORDERS)
    first = cuda.pyramid_roi_align(*call)
    for seed in range(1, 4):
        cuda.set_seed(seed)
        np.testing.assert_array_equal(cuda.pyramid_roi_align(*call), first)


def test_boxes_that_are_none(cuda: CudaKernels, kernels: Kernels) -> None:
    rng = np.random.default_rng(5)
    odd = np.array([np.nan, np.inf, -np.inf, 0, -0.0, 100, 100.5, 511, 1e20, -1e20], np.float32)
    call = (rng.choice(odd, (1, 80, 4)), pyramid(rng), STRIDES, BORDERS)
    for sampling_ratio in (0, 2):
        ours = cuda.pyramid_roi_align(*call, sampling_ratio=sampling_ratio)
        theirs = kernels.pyramid_roi_align(*call, sampling_ratio=sampling_ratio)
        assert np.abs(ours - theirs).max() <= TOLERANCE


def test_more_levels_than_a_launch_takes(cuda: CudaKernels) -> None:
    features = [np.zeros((1, 1, 2, 2), np.float32)] * 17
    with pytest.raises(ValueError, match="invalid argument"):
        cuda.pyramid_roi_align(np.zeros((1, 1, 4), np.float32), features, [8] * 17, range(16))
