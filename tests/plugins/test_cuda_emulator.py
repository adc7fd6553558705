"""The emulator itself: it computes what CUDA would, and planted faults do not escape it."""

from __future__ import annotations

import ctypes

import numpy as np
import pytest

from native_cuda import INVALID_CONFIGURATION, LAUNCH_FAILURE, CudaKernels

SHIFT, RACE, SOME_WAIT, PART_OF_WARP, PAST_THE_END, SUM = range(6)
NUMBERS = np.arange(64, dtype=np.int32) ** 2


@pytest.mark.parametrize("seed", range(4))
def test_barriers_and_warps(cuda: CudaKernels, seed: int) -> None:
    cuda.set_seed(seed)
    status, shifted = cuda.run_fault(SHIFT, NUMBERS)
    assert status == 0
    np.testing.assert_array_equal(shifted, np.roll(NUMBERS, -1))
    status, sums = cuda.run_fault(SUM, NUMBERS)
    assert status == 0
    np.testing.assert_array_equal(sums, np.repeat([NUMBERS[:32].sum(), NUMBERS[32:].sum()], 32))


def test_a_race_shows_as_a_difference_between_orders(cuda: CudaKernels) -> None:
    results = []
    for seed in range(3):
        cuda.set_seed(seed)
        results.append(cuda.run_fault(RACE, NUMBERS)[1])
    assert (results[0] != results[1]).any()
    assert (results[1] != results[2]).any()


@pytest.mark.parametrize("fault", [SOME_WAIT, PART_OF_WARP, PAST_THE_END])
def test_faults_fail_the_launch(
    cuda: CudaKernels, fault: int, capfd: pytest.CaptureFixture[str]
) -> None:
    assert cuda.run_fault(fault, NUMBERS)[0] == LAUNCH_FAILURE
    assert "cuda_emulator: " in capfd.readouterr().err
    assert cuda.run_fault(SHIFT, NUMBERS)[0] == 0  # it goes on afterwards


@pytest.mark.parametrize(
    ("grid", "threads", "shared"),
    [
        ((0, 1), 64, 0),
        ((2**31, 1), 64, 0),
        ((1, 65536), 64, 0),
        ((1, 1), 2048, 0),
        ((1, 1), 64, 48 * 1024 + 1),
    ],
)
def test_what_no_gpu_launches(
    cuda: CudaKernels, grid: tuple[int, int], threads: int, shared: int
) -> None:
    launch = cuda.library.cn2_cuda_launch_empty
    x, y, block = map(ctypes.c_uint32, (*grid, threads))
    assert launch(x, y, block, ctypes.c_uint64(shared)) == INVALID_CONFIGURATION


def test_half_precision_is_numpys(cuda: CudaKernels) -> None:
    bits = np.arange(2**16, dtype=np.uint16)
    expected = bits.view(np.float16).astype(np.float32)
    ours = np.array([cuda.half_to_float(int(b)) for b in bits], np.float32)
    np.testing.assert_array_equal(ours, expected)
    finite = expected[np.isfinite(expected)]
    middles = ((finite[:-1].astype(np.float64) + finite[1:]) / 2).astype(np.float32)  # ties
    some = np.concatenate([finite[::7], middles[::7], [1e5, -1e5, 65519, 65520, np.inf, 1e-9]])
    with np.errstate(over="ignore"):
        rounded = some.astype(np.float32).astype(np.float16).view(np.uint16)
    assert [cuda.float_to_half(float(value)) for value in some] == rounded.tolist()
