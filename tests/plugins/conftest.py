"""The native libraries under test: `make native` builds them."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from native_cuda import CudaKernels
from native_kernels import Kernels

ROOT = Path(__file__).resolve().parent.parent.parent


def find_library(variable: str, default: Path) -> Path:
    """A library's file; without it the test is skipped, or fails where CI is set."""
    path = Path(os.environ.get(variable, default))
    if not path.is_file():
        message = f"{path}: expected a native library, found none; run make native"
        if os.environ.get("CI"):
            pytest.fail(message)
        pytest.skip(message)
    return path


@pytest.fixture(scope="session")
def kernels() -> Kernels:
    """The kernels themselves ($CN2_KERNELS: another build of libcn2_kernels)."""
    default = ROOT / "build" / "native" / "libcn2_kernels.so"
    return Kernels(find_library("CN2_KERNELS", default))


@pytest.fixture(scope="session")
def ort_ops() -> Path:
    """ONNX Runtime's library of operators ($CN2_ORT_OPS: another build of libcn2_ort_ops)."""
    default = ROOT / "plugins" / "lib" / "libcn2_ort_ops.so"
    return find_library("CN2_ORT_OPS", default)


@pytest.fixture
def cuda() -> Iterator[CudaKernels]:
    """The CUDA kernels, emulated ($CN2_CUDA_KERNELS: another build of them)."""
    default = ROOT / "build" / "native" / "libcn2_kernels_cuda_emulated.so"
    kernels = CudaKernels(find_library("CN2_CUDA_KERNELS", default))
    yield kernels
    kernels.set_seed(0)
