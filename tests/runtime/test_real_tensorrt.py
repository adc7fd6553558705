"""What the fakes stand for: the installed bindings take the calls that the backend makes."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from cn2.plugins import trt_plugins_path
from cn2.runtime.backends import cuda_runtime
from cn2.runtime.backends.cuda_runtime import Cuda
from cn2.runtime.backends.tensorrt_library import MODULES, OPERATORS, open_tensorrt
from cn2.runtime.errors import BackendUnavailableError, Cn2Error
from cn2.runtime.machine import has_cuda_driver
from cn2.runtime.probe_tensorrt import build_negation
from fake_tensorrt import FakeContext, FakeEngine
from native_libraries import missing


@pytest.fixture(params=MODULES)
def library(request: pytest.FixtureRequest) -> Any:
    try:
        return open_tensorrt(request.param)
    except BackendUnavailableError as error:
        pytest.skip(str(error))


def test_methods_of_the_fakes_are_real(library: Any) -> None:
    module = library.module
    for fake, real, prefix in (
        (FakeEngine, module.ICudaEngine, ""),
        (FakeContext, module.IExecutionContext, "do_"),
    ):
        names = [name for name in vars(fake) if name.startswith(prefix) and name[0] != "_"]
        assert names
        assert [n for n in names if not hasattr(real, n.removeprefix(prefix))] == []
    for name in ("num_io_tensors", "num_optimization_profiles"):
        assert hasattr(module.ICudaEngine, name)
    assert hasattr(module.IPluginRegistry, "load_library")
    assert {"FLOAT", "INT32", "UINT8"} <= set(module.DataType.__members__)
    assert {"INPUT", "OUTPUT"} <= set(module.TensorIOMode.__members__)


@pytest.mark.skipif(has_cuda_driver(), reason="a driver is here, and addresses are made up")
def test_a_plan_is_built_and_refused_without_a_driver(library: Any) -> None:
    if not hasattr(library.module, "ComputeCapability"):
        pytest.skip(f"{library.runtime} builds nothing without a GPU")
    plan = build_negation(library, "SM86")
    runtime = library.module.Runtime(library.log)
    assert runtime.deserialize_cuda_engine(plan) is None
    assert "driver" in library.take_error()
    assert library.take_error() == "it gave no reason"


def test_plugins_are_loaded_once(library: Any) -> None:
    if not trt_plugins_path():
        missing("libcn2_trt_plugins: not built; make native where nvcc is")
    assert library.load_plugins()
    names = [creator.name for creator in library.module.get_plugin_registry().all_creators]
    assert {*OPERATORS} <= {*names}
    assert library.load_plugins()
    again = [creator.name for creator in library.module.get_plugin_registry().all_creators]
    assert again == names


CALLS: list[tuple[str, tuple[Any, ...]]] = [
    ("select", ()),
    ("allocate", (16,)),
    ("allocate_pinned", (16,)),
    ("create_stream", ()),
    ("copy", (4096, 8192, 16, 7)),
    ("copy_rows", (4096, 16, 8192, 16, (2, 16), 7)),
    ("wait_for_default_stream", (7,)),
    ("synchronize", (7,)),
]


@pytest.mark.skipif(has_cuda_driver(), reason="a driver is here, and addresses are made up")
@pytest.mark.parametrize(("name", "arguments"), CALLS)
def test_cuda_takes_the_calls(name: str, arguments: tuple[Any, ...]) -> None:
    """As it gets as far as its own error, and not a TypeError of its bindings."""
    pytest.importorskip("cuda.bindings.runtime")
    cuda = Cuda.__new__(Cuda)  # its constructor finds no driver
    cuda._runtime, cuda.number = cuda_runtime.import_cuda(), 0
    with pytest.raises(Cn2Error, match=r"CUDA error \d+: CUDA driver version is insufficient"):
        getattr(cuda, name)(*arguments)


@pytest.mark.skipif(has_cuda_driver(), reason="a driver is here, and addresses are made up")
def test_cuda_takes_the_calls_that_give_back() -> None:
    pytest.importorskip("cuda.bindings.runtime")
    cuda = Cuda.__new__(Cuda)
    cuda._runtime, cuda.number = cuda_runtime.import_cuda(), 0
    cuda.free(4096)
    cuda.free_pinned(np.zeros(1, np.uint8))
    cuda.destroy_stream(7)
    for name in ("cudaEventRecord", "cudaStreamWaitEvent", "cudaEventDestroy"):
        more = {"cudaEventRecord": (5, 1), "cudaStreamWaitEvent": (7, 5, 0)}.get(name, (5,))
        with pytest.raises(Cn2Error, match="insufficient"):
            cuda._call(name, *more)
