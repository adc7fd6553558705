"""How the CUDA kernels are launched: grids, blocks' memory, sizes at their limits; none runs."""

from __future__ import annotations

import ctypes
from collections.abc import Iterator
from ctypes import c_float, c_int32, c_int64

import numpy as np
import pytest

from native_cuda import Convolution, CudaKernels, Launch, Picture
from native_kernels import INVALID_ARGUMENT, OK, Level, address, sizes

MOST_X, MOST_YZ = 2**31 - 1, 65535  # blocks of a grid
ORDINARY_BYTES = 48 * 1024  # of a block's memory, without asking for more


@pytest.fixture
def dry(cuda: CudaKernels) -> Iterator[CudaKernels]:
    with cuda.dry_run():
        yield cuda


def proposal_nms(cuda: CudaKernels, batch: int, boxes: int, proposals: int) -> int:
    nothing = [None] * 3
    status: int = cuda.library.cn2_kernels_proposal_nms(
        *nothing, *sizes(batch, boxes, proposals), c_float(0.5), c_int32(0), *nothing
    )
    return status


def detection_nms(cuda: CudaKernels, batch: int, rows: int, classes: int, limit: int) -> int:
    status: int = cuda.library.cn2_kernels_detection_nms(
        None, None, *sizes(batch, rows, classes), c_int32(1), *sizes(limit), c_float(0.5),
        c_float(0.1), c_int32(0), *[None] * 4,
    )  # fmt: skip
    return status


def roi_align(
    cuda: CudaKernels, batch: int, rois: int, channels: int, bins: int = 7, side: int = 64
) -> int:
    levels = (Level * 1)(Level(None, side, side, 8))
    status: int = cuda.library.cn2_kernels_pyramid_roi_align(
        None, levels, *sizes(1), None, *sizes(batch, rois, channels, bins, 0), c_float(224),
        c_int32(0), None,
    )  # fmt: skip
    return status


def deform_conv(cuda: CudaKernels, convolution: Convolution) -> int:
    numbers = np.array(convolution.numbers(), np.int64)
    status: int = cuda.library.cn2_cuda_deform_conv(
        *[None] * 5, address(numbers), c_int32(0), c_int64(0), None
    )
    return status


def test_suppression_takes_a_block_per_picture(dry: CudaKernels) -> None:
    assert proposal_nms(dry, 16, 5000, 256) == OK
    assert detection_nms(dry, 3, 128, 80, 100) == OK
    launches = dry.take_launches()
    assert [launch.grid for launch in launches] == [(16, 1, 1), (3, 1, 1)]
    assert all(launch.threads == 1024 for launch in launches)
    assert all(launch.block_bytes < ORDINARY_BYTES // 2 for launch in launches)


def test_many_scores_are_collected_by_the_whole_gpu(dry: CudaKernels) -> None:
    """4096 a block; up to 16384 a picture the suppressing block reads them itself."""
    for boxes, grids in ((16384, [(2, 1, 1)]), (16385, [(2 * 5, 1, 1), (2, 1, 1)])):
        assert proposal_nms(dry, 2, boxes, 256) == OK
        assert [launch.grid for launch in dry.take_launches()] == grids
    assert detection_nms(dry, 3, 256, 1203, 300) == OK
    collect, suppress = dry.take_launches()
    assert (collect.grid, suppress.grid) == ((3 * 76, 1, 1), (3, 1, 1))
    assert collect.block_bytes < ORDINARY_BYTES
    assert detection_nms(dry, 2**29, 2**7, 2**7 + 1, 1) == INVALID_ARGUMENT  # 5 * 2^29 blocks


@pytest.mark.parametrize(("batch", "status"), [(MOST_X, OK), (MOST_X + 1, INVALID_ARGUMENT)])
def test_as_many_pictures_as_a_grid_has_blocks(dry: CudaKernels, batch: int, status: int) -> None:
    assert proposal_nms(dry, batch, 100, 10) == status
    assert detection_nms(dry, batch, 100, 1, 10) == status
    assert roi_align(dry, batch, 1, 1) == status


@pytest.mark.parametrize(
    ("batch", "boxes", "proposals"),
    [(1, 2**32, 1), (2**30, 2**31, 1), (2**30, 1, 2**40), (2**31 - 1, 2**31, 2**31)],
)
def test_suppression_of_more_than_can_be(
    dry: CudaKernels, batch: int, boxes: int, proposals: int
) -> None:
    assert proposal_nms(dry, batch, boxes, proposals) == INVALID_ARGUMENT
    assert not dry.take_launches()


def test_no_picture_is_no_launch(dry: CudaKernels) -> None:
    assert proposal_nms(dry, 0, 10, 10) == OK
    assert detection_nms(dry, 0, 10, 10, 10) == OK
    assert roi_align(dry, 0, 10, 10) == OK
    assert roi_align(dry, 10, 0, 10) == OK
    assert roi_align(dry, 10, 10, 0) == OK
    assert deform_conv(dry, Convolution(0, 4, 4, 4, 4)) == OK
    assert not dry.take_launches()


def test_roi_align_takes_a_block_per_box_and_32_channels(dry: CudaKernels) -> None:
    assert roi_align(dry, 2, 128, 160) == OK
    (launch,) = dry.take_launches()
    assert launch.grid == (256, 5, 1)
    assert launch.block_bytes < 20 * 1024  # three blocks on the 64 KiB of Turing
    assert roi_align(dry, 1, 1, 33) == OK
    assert dry.take_launches()[0].grid == (1, 2, 1)


def test_roi_align_without_weights_is_launched_only_where_needed(dry: CudaKernels) -> None:
    for bins, side, launches in ((7, 430, 1), (7, 500, 2), (32, 90, 1), (33, 10, 2)):
        assert roi_align(dry, 1, 10, 10, bins, side) == OK
        assert len(dry.take_launches()) == launches


def test_roi_align_at_its_limits(dry: CudaKernels) -> None:
    assert roi_align(dry, 1, 1, 32 * MOST_YZ, 1, 1) == OK
    assert dry.take_launches()[0].grid == (1, MOST_YZ, 1)
    assert roi_align(dry, 1, 1, 32 * MOST_YZ + 1, 1, 1) == INVALID_ARGUMENT
    assert roi_align(dry, 2**16, 2**15, 1) == INVALID_ARGUMENT  # 2^31 boxes
    assert roi_align(dry, 1, 1, 1, 7, 2**24 + 1) == INVALID_ARGUMENT


DEFORM_BLOCKS = [(16, 1, 1), (17, 1, 1), (64, 1, 1), (65, 1, 1), (256, 1, 2), (512, 32, 32)]


@pytest.mark.parametrize(("outputs", "groups", "blocks"), DEFORM_BLOCKS)
def test_deform_conv_takes_a_block_per_64_pixels_and_some_outputs(
    dry: CudaKernels, outputs: int, groups: int, blocks: int
) -> None:
    assert deform_conv(dry, Convolution(2, 64, 50, 84, outputs, groups=groups)) == OK
    order, product = dry.take_launches()
    assert order.grid == (-(-outputs * 64 // groups * 9 // 256), 1, 1)
    assert product.grid == (2 * 66, blocks, 1)  # 4200 pixels are 65.6 blocks
    assert product.block_bytes < 16 * 1024


def test_deform_conv_at_its_limits(dry: CudaKernels) -> None:
    large = Convolution(1, 1, 2**20, 2**10, 1, kernel=(1, 1), pads=(0, 0, 0, 0))
    assert deform_conv(dry, large) == OK
    assert dry.take_launches()[1].grid == (2**24, 1, 1)
    assert deform_conv(dry, large._replace(batch=127)) == OK
    assert deform_conv(dry, large._replace(batch=128)) == INVALID_ARGUMENT  # 2^31 blocks
    assert deform_conv(dry, large._replace(width=2**10 + 1)) == INVALID_ARGUMENT


def preprocess(cuda: CudaKernels, picture: Picture, count: int, kind: int, side: int) -> int:
    status: int = cuda.library.cn2_cuda_preprocess(
        (Picture * count)(*[picture] * count), c_int64(count), *map(c_int32, (kind, side, side)),
        c_int64(0), None, None,
    )  # fmt: skip
    return status


def test_preprocessing_takes_16_pictures_a_launch(dry: CudaKernels) -> None:
    picture = picture_of(100, 96)
    assert preprocess(dry, picture, 33, 1, 640) == OK
    linear = dry.take_launches()
    assert [launch.grid for launch in linear] == [(10, 40, 16), (10, 40, 16), (10, 40, 1)]
    assert preprocess(dry, picture, 2, 0, 640) == OK
    weights, rows, columns = dry.take_launches()
    assert weights == Launch((1, 1, 2), 256, 0)
    assert rows.grid == (2, 7, 2)
    assert columns.grid == (8, 40, 2)


@pytest.mark.parametrize("kind", [0, 1])
def test_the_largest_pictures_and_canvases(dry: CudaKernels, kind: int) -> None:
    """Grids stay within their limits."""
    assert preprocess(dry, picture_of(65535, 65535), 1, kind, 65535) == OK
    assert preprocess(dry, picture_of(65535, 1), 1, kind, 65535) == OK
    assert len(dry.take_launches()) == (2 if kind == 1 else 6)


def picture_of(side: int, resized: int) -> Picture:
    """Square, RGB; its pixels are not there."""
    pixels = ctypes.create_string_buffer(1)
    picture = Picture(ctypes.addressof(pixels), None, 3 * side, 0, 0, side, side, resized, resized)
    return picture
