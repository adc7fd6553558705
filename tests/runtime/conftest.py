"""TensorRT-RTX and cuda-python as fakes, for tests that ask for `cuda`."""

from __future__ import annotations

import gc
import sys
from collections.abc import Iterator
from typing import Any

import pytest

from cn2.runtime.backends import cuda_runtime, tensorrt_library
from fake_cuda_runtime import FakeCudaRuntime
from fake_tensorrt import FakeTensorRT


@pytest.fixture
def cuda(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeCudaRuntime]:
    """Fakes of CUDA and TensorRT-RTX; all that a test takes of them it gives back."""
    runtime = FakeCudaRuntime()
    module = FakeTensorRT(runtime)
    monkeypatch.setitem(sys.modules, "cuda.bindings.runtime", runtime)  # type: ignore[arg-type]
    monkeypatch.setitem(sys.modules, "tensorrt_rtx", module)  # type: ignore[arg-type]
    monkeypatch.setattr(cuda_runtime, "has_cuda_driver", lambda: True)
    tensorrt_library.open_tensorrt.cache_clear()
    yield runtime
    tensorrt_library.open_tensorrt.cache_clear()
    gc.collect()
    assert runtime.live == 0


@pytest.fixture
def trt() -> FakeTensorRT:
    module: Any = sys.modules["tensorrt_rtx"]
    assert isinstance(module, FakeTensorRT)
    return module
