"""The CUDA kernels on numpy arrays, emulated or on a GPU: tests/plugins/native/cuda_entries.h."""

from __future__ import annotations

import ctypes
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from native_kernels import Floats, Ints, Kernels, address, check, pool, sizes

Bytes = NDArray[np.uint8]
Halfs = NDArray[np.float16]
LAUNCH_FAILURE, INVALID_CONFIGURATION = 719, 9


class Launch(NamedTuple):
    """Of a kernel."""

    grid: tuple[int, ...]  # blocks: x, y, z
    threads: int  # of a block
    block_bytes: int  # of its memory


class CudaKernels(Kernels):
    """The entries of the CPU's kernels, run by the CUDA kernels, and those only these have."""

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self.emulated = hasattr(self.library, "cn2_cuda_set_seed")
        if self.emulated:
            self.library.cn2_cuda_half_to_float.restype = ctypes.c_float
            self.library.cn2_cuda_float_to_half.restype = ctypes.c_uint16

    def set_seed(self, seed: int) -> None:
        """The order of blocks and threads from now on; 0: ascending. A GPU has its own."""
        if self.emulated:
            self.library.cn2_cuda_set_seed(ctypes.c_uint64(seed))

    def set_repeats(self, repeats: int) -> None:
        """From now on calls launch their kernels so often, in a CUDA graph, timed; 0: once."""
        self.library.cn2_cuda_set_repeats(ctypes.c_int32(repeats))

    def take_times(self) -> list[float]:
        """How long a launch of the last call took, for each repeat, microseconds."""
        times = np.zeros(10_000, np.float32)
        get = self.library.cn2_cuda_get_times
        get.restype = ctypes.c_int64
        count = get(address(times), ctypes.c_int64(len(times)))
        return [float(value) for value in times[:count]]

    @contextmanager
    def dry_run(self) -> Iterator[None]:
        """Launches are checked and recorded, but not run: tensors may be anywhere."""
        self.take_launches()
        self.library.cn2_cuda_set_dry_run(1)
        try:
            yield
        finally:
            self.library.cn2_cuda_set_dry_run(0)

    def take_launches(self) -> list[Launch]:
        """Those since the last call."""
        numbers = np.zeros((64, 5), np.int64)
        take = self.library.cn2_cuda_take_launches
        take.restype = ctypes.c_int64
        count = take(address(numbers), ctypes.c_int64(len(numbers)))
        return [Launch(tuple(x[:3]), *x[3:]) for x in numbers[:count].tolist()]

    def pyramid_roi_align_fp16(
        self,
        rois: Floats,
        features: Sequence[Halfs],
        strides: Sequence[int],
        borders: Sequence[float],
        *,
        output_size: int = 7,
        sampling_ratio: int = 0,
        canonical_size: float = 224.0,
    ) -> Halfs:
        """(B, K, C, P, P) of rois (B, K, 4)."""
        entry = self.library.cn2_cuda_pyramid_roi_align_fp16
        kept = [np.ascontiguousarray(feature, dtype=np.float16) for feature in features]
        rule = (output_size, sampling_ratio, canonical_size)
        return pool(entry, rois, kept, strides, borders, rule)

    def half_to_float(self, bits: int) -> float:
        """As the emulated kernels read half precision."""
        value: float = self.library.cn2_cuda_half_to_float(ctypes.c_uint16(bits))
        return value

    def float_to_half(self, value: float) -> int:
        """As the emulated kernels write half precision, as bits."""
        bits: int = self.library.cn2_cuda_float_to_half(ctypes.c_float(value))
        return bits

    def run_fault(self, fault: int, numbers: Ints) -> tuple[int, Ints]:
        """A kernel of emulator_faults.cpp on 64 numbers: the status, and the numbers after it."""
        after = np.array(numbers, dtype=np.int32)
        status: int = self.library.cn2_cuda_run_fault(ctypes.c_int32(fault), address(after))
        return status, after


class Picture(ctypes.Structure):
    """cn2_cuda_picture."""

    _fields_ = (
        ("data", ctypes.c_void_p),
        ("chroma", ctypes.c_void_p),
        ("pitch", ctypes.c_int64),
        ("chroma_pitch", ctypes.c_int64),
        ("format", ctypes.c_int32),
        ("width", ctypes.c_int32),
        ("height", ctypes.c_int32),
        ("resized_width", ctypes.c_int32),
        ("resized_height", ctypes.c_int32),
    )


def preprocess(
    cuda: CudaKernels,
    pictures: Sequence[Picture],
    interpolation: int,
    canvas: tuple[int, int],
    *,
    workspace_more: int = 0,
) -> tuple[Bytes, Ints]:
    """Canvases (B, H, W, 3) and image sizes (B, 2)."""
    array = (Picture * len(pictures))(*pictures)
    canvases = np.full((len(pictures), *canvas, 3), 77, np.uint8)
    image_sizes = np.full((len(pictures), 2), -7, np.int32)
    check(
        cuda.library.cn2_cuda_preprocess(
            array,
            *sizes(len(pictures)),
            *map(ctypes.c_int32, (interpolation, *canvas)),
            *sizes(workspace_more),
            address(canvases),
            address(image_sizes),
        )
    )
    return canvases, image_sizes


class Convolution(NamedTuple):
    """The sizes of a deformable convolution: cn2::DeformConvShape."""

    batch: int
    channels: int
    height: int
    width: int
    outputs: int
    kernel: tuple[int, int] = (3, 3)
    stride: tuple[int, int] = (1, 1)
    dilation: tuple[int, int] = (1, 1)
    pads: tuple[int, int, int, int] = (1, 1, 1, 1)  # top, left, bottom, right
    groups: int = 1
    offset_groups: int = 1

    def numbers(self) -> list[int]:
        """In the order of the struct."""
        sides = (*self.kernel, *self.stride, *self.dilation, *self.pads)
        return [*self[:5], *sides, self.groups, self.offset_groups]

    def out_size(self) -> tuple[int, int]:
        """Height and width of the result."""
        return self._out_side(0, self.height), self._out_side(1, self.width)

    def _out_side(self, axis: int, side: int) -> int:
        reach = self.dilation[axis] * (self.kernel[axis] - 1) + 1
        padded = side + self.pads[axis] + self.pads[axis + 2]
        return (padded - reach) // self.stride[axis] + 1


def deform_conv(
    cuda: CudaKernels,
    sizes: Convolution,
    tensors: Sequence[NDArray[Any] | None],
    *,
    workspace_more: int = 0,
) -> NDArray[Any]:
    """y of x, weight, offset, bias and mask, all float32 or all float16."""
    dtype = np.float32 if tensors[0] is None else tensors[0].dtype
    kept = [None if one is None else np.ascontiguousarray(one, dtype=dtype) for one in tensors]
    y = np.full((sizes.batch, sizes.outputs, *sizes.out_size()), -7, dtype)
    numbers = np.array(sizes.numbers(), np.int64)
    check(
        cuda.library.cn2_cuda_deform_conv(
            *map(address, kept),
            address(numbers),
            ctypes.c_int32(dtype == np.float16),
            ctypes.c_int64(workspace_more),
            address(y),
        )
    )
    return y
