"""Engines that libcn2 cannot open: the status and one line that says why and what to do."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest

from c_library import MODEL_ERROR, UNAVAILABLE
from fake_backend import make_manifest
from native_libraries import built_library, missing
from tensorrt_fakes import PLAN, PLUGINS, PROFILE, FakeGpu


@pytest.fixture
def gpu(tmp_path: Path) -> FakeGpu:
    """A fake GPU with TensorRT 10, and an engine."""
    made = FakeGpu(tmp_path, 10)
    made.write()
    return made


def real_rtx() -> Path:
    """TensorRT-RTX's library in its Python package."""
    found = importlib.util.find_spec("tensorrt_rtx_libs")
    if found is None or not found.submodule_search_locations:
        missing("tensorrt_rtx_libs: not installed")
    return Path(found.submodule_search_locations[0]) / "libtensorrt_rtx.so.1"


@pytest.mark.parametrize(
    ("number", "said"),
    [
        (
            "120000",
            "expected TensorRT 10 or 11, or TensorRT-RTX 1.5 or a later 1, got version 12.0.0",
        ),
        ("90200", "got version 9.2.0"),
        ("8601", "got version 8601"),
        ("20000", "got version 2.0.0"),
        ("10400", "got version 1.4.0"),
        ("110400", "TensorRT 11.4.0: expected libcn2_tensorrt11.so beside libcn2"),
        ("10701", "expected TensorRT, which built this engine, got TensorRT-RTX 1.7.1"),
    ],
)
def test_versions_that_are_not_run(gpu: FakeGpu, number: str, said: str) -> None:
    """TensorRT's own, as getInferLibVersion gives it."""
    status, message = gpu.refusal(CN2_FAKE_TENSORRT_VERSION=number)
    assert (status, said in message) == (UNAVAILABLE, True), message


@pytest.mark.parametrize("number", ["10500", "10701"])
def test_rtx_has_the_abi_of_11(gpu: FakeGpu, number: str) -> None:
    gpu.write(runtime="tensorrt-rtx")
    status, message = gpu.refusal(CN2_FAKE_TENSORRT_VERSION=number)
    assert (status, "libcn2_tensorrt11.so" in message) == (UNAVAILABLE, True), message


def test_no_driver_is_told_before_tensorrt_is_asked(gpu: FakeGpu) -> None:
    """Where there is none, TensorRT's own functions may return what is no object."""
    for environment, said in (
        ({"LD_LIBRARY_PATH": ""}, "CUDA needs NVIDIA's driver, which is not here (libcuda.so.1"),
        ({"CN2_FAKE_CUDA_FAILS": "init"}, "the driver does not start: CUDA error 100 ("),
        ({"CN2_FAKE_CUDA_FAILS": "count"}, "expected one of the 0 CUDA devices"),
    ):
        status, message = gpu.refusal(CN2_FAKE_TENSORRT_FAILS="runtime", **environment)
        assert (status, said in message) == (UNAVAILABLE, True), message


def test_devices(gpu: FakeGpu) -> None:
    status, message = gpu.refusal(", device=b'cuda:1'")
    assert (status, "expected one of the 1 CUDA devices" in message) == (UNAVAILABLE, True)
    status, message = gpu.refusal(", device=b'cpu'")
    assert (status, "an engine runs on a CUDA device" in message) == (UNAVAILABLE, True)


def test_tensorrt_that_is_not_there(gpu: FakeGpu) -> None:
    status, message = gpu.refusal(CN2_TENSORRT="/nowhere/libnvinfer.so.10")
    assert (status, "expected its library at one of: /nowhere/lib" in message) == (
        UNAVAILABLE,
        True,
    )
    status, message = gpu.refusal(CN2_TENSORRT="")
    assert status == UNAVAILABLE
    assert "tensorrt_libs/libnvinfer.so.10" in message
    assert message.endswith("pip install tensorrt-cu13, or set CN2_TENSORRT to its path")
    gpu.write(runtime="tensorrt-rtx")
    status, message = gpu.refusal(CN2_TENSORRT="")
    assert "tensorrt_rtx_libs/libtensorrt_rtx.so.1, libtensorrt_rtx.so.1" in message
    status, message = gpu.refusal(", runtime_path=b'libm.so.6'")
    assert (status, "found no getInferLibVersion" in message) == (UNAVAILABLE, True)


def test_plans_that_tensorrt_refuses(gpu: FakeGpu) -> None:
    for plan, failing, said in (
        (
            "torn",
            "",
            "TensorRT 10.14.1 cannot load it (fake: no plan of ours); an engine runs where",
        ),
        (PLAN, "runtime", "cannot load it (fake: no runtime)"),
        (PLAN, "type", "expected the inputs images uint8 of 4"),
        (PLAN, "location", "images uint8 on the host"),
        ("fake plan 2 -1 -1 2 threshold " + PROFILE, "", "expected images of shape (any, any"),
        ("fake plan -1 -1 -1 2 threshold", "", "expected an optimization profile"),
    ):
        gpu.write(plan)
        status, message = gpu.refusal(CN2_FAKE_TENSORRT_FAILS=failing)
        assert (status, said in message) == (MODEL_ERROR, True), message


def test_another_plan_than_the_sidecars_is_never_deserialized(gpu: FakeGpu) -> None:
    gpu.engine.write_text(PLAN + " ")
    status, message = gpu.refusal(CN2_FAKE_TENSORRT_FAILS="runtime", LD_LIBRARY_PATH="")
    assert (status, "expected sha256" in message) == (MODEL_ERROR, True)


def test_fused_operators_need_the_plugin_library(gpu: FakeGpu) -> None:
    fused = make_manifest(ops="fused")
    gpu.write(PLAN + " plugins", fused)
    status, message = gpu.refusal()
    assert (status, f"its fused operators need {PLUGINS} beside libcn2" in message) == (
        UNAVAILABLE,
        True,
    )
    (gpu.libraries / PLUGINS).touch()
    status, message = gpu.refusal()
    assert status == 0, message
    status, message = gpu.refusal(CN2_FAKE_TENSORRT_FAILS="plugins")
    wanted = f"{gpu.libraries / PLUGINS} (the plugin library cannot be loaded); torn, or not for"
    assert (status, wanted in message) == (UNAVAILABLE, True), message


def test_a_context_that_cannot_be_made(gpu: FakeGpu) -> None:
    program = "handle, context = c_void_p(), c_void_p()\n"
    program += "options = ModelOptions()\n"
    program += (
        "library.check(library.model_open(str(engine).encode(), byref(options), byref(handle)))\n"
    )
    program += (
        "print(library.context_create(handle, byref(context)), library.last_error().decode())\n"
    )
    program += "library.model_close(handle)\nprint(cuda.fake_cuda_live())\n"
    said, live = gpu.run(program, CN2_FAKE_TENSORRT_FAILS="context").splitlines()
    assert said.startswith("5 ")
    assert "makes no context (createExecutionContext failed)" in said
    assert live == "0"


def test_the_log_outlives_the_engine_that_was_opened_first(gpu: FakeGpu) -> None:
    """TensorRT keeps the first logger that it is given."""
    said = gpu.run(
        "library.set_log(hear, None, 0)\n"
        "first, second = library.open(engine), library.open(engine)\nfirst.close()\n"
        "said.clear(); Model(library, second.handle)\n"
        "print(said); said.clear(); library.open(engine)\n"
        "print([text for level, text in said if level > 1])\n"
    )
    context, warnings = said.splitlines()
    assert "(0, 'tensorrt: fake: a context')" in context
    assert warnings == "[]"


def test_a_failure_does_not_tell_an_error_of_an_earlier_call(gpu: FakeGpu) -> None:
    program = "options, handle, context = ModelOptions(), c_void_p(), c_void_p()\n"
    program += "opened = library.model_open(str(engine).encode(), byref(options), byref(handle))\n"
    program += "library.check(opened); os.environ['CN2_FAKE_TENSORRT_FAILS'] = 'context'\n"
    program += "library.context_create(handle, byref(context))\n"
    program += "print(library.last_error().decode())\n"
    said = gpu.run(program, CN2_FAKE_TENSORRT_FAILS="nothing")
    assert "makes no context (createExecutionContext failed)" in said


def test_the_real_tensorrt_rtx_without_a_driver(gpu: FakeGpu) -> None:
    """The library of the Python package loads, and the missing driver is told in one line."""
    library = real_rtx()
    gpu.write(runtime="tensorrt-rtx")
    status, message = gpu.refusal(CN2_TENSORRT=str(library), LD_LIBRARY_PATH="")
    assert (status, "NVIDIA's driver" in message) == (UNAVAILABLE, True)
    status, message = gpu.refusal(CN2_TENSORRT=str(library))
    assert (status, "expected libcn2_tensorrt11.so" in message) == (UNAVAILABLE, True), message


def test_the_real_tensorrt_rtx_loads_the_plugin_library(tmp_path: Path) -> None:
    """Into the registry of its runtime, whose table of methods is not TensorRT 10's."""
    gpu = FakeGpu(tmp_path, 11)
    gpu.add(built_library("cn2_trt_plugins"))
    gpu.write("fake plan " * 100, make_manifest(ops="fused"), runtime="tensorrt-rtx")
    said = gpu.run(
        "library.set_log(hear, None, 0)\nopen_status(library, engine)\nprint(*said)\n",
        CN2_TENSORRT=str(real_rtx()),
    )
    assert f"Loaded shared library {gpu.libraries / PLUGINS}" in said


def test_the_real_tensorrt_rtx_is_spoken_to_in_its_abi(tmp_path: Path) -> None:
    """With a driver that has a device, but does nothing else that TensorRT-RTX asks of it."""
    gpu = FakeGpu(tmp_path, 11)
    gpu.write("fake plan " * 100, runtime="tensorrt-rtx")
    hear = "hear = LogCallback(lambda _, level, text: print(level, text.decode()))\n"
    said = gpu.run(
        hear + "library.set_log(hear, None, 1)\nprint(open_status(library, engine))\n"
        "print(library.last_error().decode())\n",
        CN2_TENSORRT=str(real_rtx()),
    )
    assert "1 tensorrt: Loaded engine size: 0 MiB\n" in said
    assert "3 tensorrt: IRuntime::deserializeCudaEngine: Error Code 1: Serialization" in said
    status, message = said.splitlines()[-2:]
    assert int(status) == MODEL_ERROR
    assert "TensorRT-RTX 1.7.1 cannot load it (IRuntime::deserializeCudaEngine: Error" in message
