"""The native libraries as `make native` built them, and models to open with libcn2."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from c_library import Library, Model
from native_cuda import CudaKernels
from native_kernels import Kernels
from native_libraries import built_library, missing
from native_plugins import PluginLibrary
from tiny_onnx import write_tiny_onnx

ROOT = Path(__file__).resolve().parent.parent.parent


@pytest.fixture(scope="session")
def onnxruntime_path() -> bytes:
    """ONNX Runtime's library in the Python package, which an editable cn2 is not beside."""
    import onnxruntime

    found = sorted((Path(onnxruntime.__file__).parent / "capi").glob("libonnxruntime.so.*"))
    if not found:
        missing("libonnxruntime.so: not in the Python package onnxruntime")
    return str(found[0]).encode()


@pytest.fixture(scope="session")
def library() -> Library:
    """The built library."""
    return Library(built_library("cn2"))


@pytest.fixture
def tiny_path(tmp_path: Path) -> Path:
    """A model file of two fixed detections (tiny_onnx.py)."""
    return write_tiny_onnx(tmp_path / "tiny.onnx")


@pytest.fixture
def tiny(library: Library, tiny_path: Path, onnxruntime_path: bytes) -> Iterator[Model]:
    """That file, opened."""
    model = library.open(tiny_path, threads=1, runtime_path=onnxruntime_path)
    yield model
    model.close()


@pytest.fixture(scope="module")
def nano(library: Library, nano_onnx: Path, onnxruntime_path: bytes) -> Iterator[Model]:
    """The bundled detector."""
    model = library.open(nano_onnx, threads=1, runtime_path=onnxruntime_path)
    yield model
    model.close()


def find_library(variable: str, default: Path) -> Path:
    """A library's file; without it the test is skipped, or fails where CI is set."""
    path = Path(os.environ.get(variable, default))
    if not path.is_file():
        missing(f"{path}: expected a native library, found none; run make native")
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


@pytest.fixture(scope="session")
def plugins() -> PluginLibrary:
    """TensorRT plugins, emulated ($CN2_EMULATED_PLUGINS: another build of them)."""
    default = ROOT / "build" / "native" / "libcn2_trt_plugins_emulated.so"
    return PluginLibrary(find_library("CN2_EMULATED_PLUGINS", default))
