"""What the backend `tensorrt` refuses, and what fails in it, in one line each."""

from __future__ import annotations

import logging
import re
import sys
from pathlib import Path
from typing import Any

import pytest

from cn2.runtime.backends import cuda_runtime
from cn2.runtime.backends.tensorrt import TensorRTBackend
from cn2.runtime.detector import Detector
from cn2.runtime.errors import (
    BackendUnavailableError,
    InferenceError,
    ModelFormatError,
    PluginError,
)
from fake_cuda_runtime import FakeCudaRuntime
from fake_tensorrt import FakeTensorRT, blocks, write_engine

pytestmark = pytest.mark.usefixtures("cuda")


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return write_engine(tmp_path / "m.engine")


@pytest.mark.parametrize(
    ("method", "kind"),
    [
        ("set_input_shape", InferenceError),
        ("set_tensor_address", InferenceError),
        ("execute_async_v3", InferenceError),
    ],
)
def test_a_refusal_is_one_line(
    model: Path, trt: FakeTensorRT, cuda: FakeCudaRuntime, method: str, kind: type[Exception]
) -> None:
    detector = Detector.open(model, backend="tensorrt")
    trt.refuses = method
    with pytest.raises(kind) as caught:
        detector(blocks())
    assert str(caught.value) == (
        f"{model}: TensorRT failed on images of (1, 64, 96, 3) on cuda:0 (fake: {method} refused)"
    )
    assert cuda.live == 0  # a slot that failed is not used again
    trt.refuses = ""
    assert len(detector(blocks())) == 2


@pytest.mark.parametrize(
    ("function", "status", "kind", "message"),
    [
        ("cudaMalloc", 2, MemoryError, r"cuda:0: not enough memory for cudaMalloc\(\d+,\)"),
        ("cudaStreamCreate", 700, InferenceError, "cudaStreamCreate failed .CUDA error 700: fake"),
        (
            "cudaStreamSynchronize",
            700,
            InferenceError,
            r"failed on images of .*cudaStreamSynchronize failed \(CUDA error 700: fake error 700",
        ),
    ],
)
def test_cuda_that_fails(
    cuda: FakeCudaRuntime,
    model: Path,
    function: str,
    status: int,
    kind: type[Exception],
    message: str,
) -> None:
    with Detector.open(model, backend="tensorrt") as detector:
        cuda.failing[function] = status
        with pytest.raises(kind, match=message):
            detector(blocks())
        assert cuda.live == 0
        cuda.failing.clear()
        assert len(detector(blocks())) == 2


def test_no_context(tmp_path: Path) -> None:
    path = write_engine(tmp_path / "m.engine", plan={"contexts": False})
    detector = Detector.open(path, backend="tensorrt")
    with pytest.raises(MemoryError, match=r"TensorRT made no context \(out of memory\)"):
        detector(blocks())


def test_a_machine_without_a_gpu(
    cuda: FakeCudaRuntime, model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cuda.devices = 0
    with pytest.raises(BackendUnavailableError, match="needs an NVIDIA GPU, found none"):
        TensorRTBackend.open(model)
    cuda.status = 35
    with pytest.raises(BackendUnavailableError, match=r"found none \(CUDA error 35: fake error 3"):
        TensorRTBackend.open(model)
    monkeypatch.setattr(cuda_runtime, "has_cuda_driver", lambda: False)
    cuda.calls.clear()
    with pytest.raises(BackendUnavailableError, match=r"found no libcuda\.so\.1; run the \.onnx"):
        TensorRTBackend.open(model)
    assert cuda.calls == []  # the driver is looked for first


@pytest.mark.parametrize(
    ("device", "message"),
    [
        ("cpu", r"m\.engine: device 'cpu': an engine runs on an NVIDIA GPU; open the \.onnx"),
        ("cuda:2", "device 'cuda:2': expected cuda:0 to cuda:1, which are here"),
    ],
)
def test_devices_that_cannot_be(model: Path, device: str, message: str) -> None:
    with pytest.raises(BackendUnavailableError, match=message):
        TensorRTBackend.open(model, device=device)


@pytest.mark.parametrize(
    ("module", "message"),
    [
        ("tensorrt_rtx", r"tensorrt-rtx cannot be imported .*pip install 'cn2\[tensorrt-rtx\]'"),
        (
            "cuda.bindings.runtime",
            r"cuda-bindings is not installed .*install 'cn2\[tensorrt-rtx",
        ),
    ],
)
def test_missing_packages(
    model: Path, monkeypatch: pytest.MonkeyPatch, module: str, message: str
) -> None:
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(BackendUnavailableError, match=message):
        TensorRTBackend.open(model)


def test_an_engine_of_full_tensorrt_wants_its_bindings(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write_engine(tmp_path / "m.engine", runtime="tensorrt")
    monkeypatch.setitem(sys.modules, "tensorrt", None)
    with pytest.raises(BackendUnavailableError, match=r"tensorrt cannot be imp.*'cn2\[tensorrt\]'"):
        TensorRTBackend.open(path)


def test_another_version(tmp_path: Path) -> None:
    path = write_engine(tmp_path / "m.engine", version="9.8.7.5")
    with pytest.raises(BackendUnavailableError) as caught:
        TensorRTBackend.open(path)
    assert str(caught.value) == (
        f"{path}: expected tensorrt-rtx 9.8.7.5, which built it, got 9.8.7.6; install that "
        f"version, or build the engine with this one"
    )


def test_version_compatible_engines_run_in_newer_versions(
    tmp_path: Path, trt: FakeTensorRT
) -> None:
    options = {"options": {"version_compatible": True}}
    path = write_engine(tmp_path / "m.engine", version="9.1.0.0", build=options)
    with Detector.open(path, backend="tensorrt") as detector:
        assert len(detector(blocks())) == 2
    assert trt.runtime.engine_host_code_allowed is True
    write_engine(tmp_path / "m.engine")
    TensorRTBackend.open(path)
    assert not hasattr(trt.runtime, "engine_host_code_allowed")
    write_engine(tmp_path / "m.engine", version="8.9.0.0", build=options)
    with pytest.raises(BackendUnavailableError, match=r"expected tensorrt-rtx 8\.9\.0\.0, which"):
        TensorRTBackend.open(path)


def test_a_plan_that_does_not_load(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CN2_LIBRARY_DIR", str(tmp_path))
    path = write_engine(tmp_path / "m.engine", plan={"manifest": {}})
    with pytest.raises(BackendUnavailableError) as caught:
        TensorRTBackend.open(path)
    assert str(caught.value).startswith(f"{path}: tensorrt-rtx 9.8.7.6 does not load it (")
    words = (
        r"does not match\)\); it was built for sm_75, sm_86; if the engine has plugins, they are in"
    )
    assert re.search(words, str(caught.value))


def test_a_torn_plan_reaches_no_library(model: Path, trt: FakeTensorRT) -> None:
    model.write_bytes(model.read_bytes()[:-1])
    with pytest.raises(ModelFormatError, match=r"expected sha256 .*torn or mixed up"):
        TensorRTBackend.open(model)
    assert trt.logger is None


def test_plugins(
    model: Path, trt: FakeTensorRT, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CN2_LIBRARY_DIR", str(tmp_path))
    TensorRTBackend.open(model)
    assert trt.libraries == []
    library = tmp_path / "libcn2_trt_plugins.so"
    library.touch()
    TensorRTBackend.open(model)
    TensorRTBackend.open(model)
    assert trt.libraries == [str(library)]  # once


def test_plugins_that_somebody_has_loaded(
    model: Path, trt: FakeTensorRT, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CN2_LIBRARY_DIR", str(tmp_path))
    (tmp_path / "libcn2_trt_plugins.so").touch()
    trt.plugins += trt.brings
    TensorRTBackend.open(model)
    assert trt.libraries == []


@pytest.mark.parametrize(
    ("brings", "missing"),
    [
        ([("PyramidRoIAlign", "1", "cn2"), ("DetectionNMS", "1", "cn2")], "ProposalNMS"),
        ([], "PyramidRoIAlign, ProposalNMS, DetectionNMS"),
        # of another version of ours, and somebody else's
        (
            [("ProposalNMS", "2", "cn2"), ("DetectionNMS", "1", "")],
            "PyramidRoIAlign, ProposalNMS, DetectionNMS",
        ),
    ],
)
def test_a_library_that_lacks_plugins(
    model: Path,
    trt: FakeTensorRT,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    brings: list[tuple[str, str, str]],
    missing: str,
) -> None:
    """An older one, say: told before the engine, whose error would say less."""
    monkeypatch.setenv("CN2_LIBRARY_DIR", str(tmp_path))
    (tmp_path / "libcn2_trt_plugins.so").touch()
    trt.brings = brings
    with pytest.raises(PluginError, match=rf"expected plugins {missing}; run make native again"):
        TensorRTBackend.open(model)


def test_plugins_that_do_not_load(
    model: Path, trt: FakeTensorRT, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CN2_LIBRARY_DIR", str(tmp_path))
    TensorRTBackend.open(model)
    (tmp_path / "libcn2_trt_plugins.so").touch()
    trt.loads_libraries = False
    with pytest.raises(PluginError, match=r"plugins\.so: tensorrt-rtx .* cannot load it \(not a p"):
        TensorRTBackend.open(model)


@pytest.mark.parametrize(
    ("plan", "message"),
    [
        ({"rows": 5}, "expected boxes of 3 rows by its manifest, got 5"),
        ({"classes": "INT64"}, "expected the tensors .*out int32 of 2 dim.* got .*out INT64 of 2"),
        ({"profiles": 3}, r"expected 1 profiles as m\.engine\.json says, got 3"),
    ],
)
def test_plans_that_break_the_contract(tmp_path: Path, plan: dict[str, Any], message: str) -> None:
    path = write_engine(tmp_path / "m.engine", plan=plan)
    with pytest.raises(ModelFormatError, match=message):
        TensorRTBackend.open(path)


def test_lines_of_tensorrt_are_logged(model: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO):
        TensorRTBackend.open(model)
    assert [record.getMessage() for record in caplog.records] == [
        "a warning",
        f"{model}: tensorrt on cuda:0, 9.8.7.6",
    ]
