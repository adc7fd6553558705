"""The backend `tensorrt` on fakes of the bindings and of CUDA: memory, streams, errors."""

from __future__ import annotations

import gc
import logging
import re
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from backend_contract import BackendContract
from cn2.runtime.backends import cuda_runtime, tensorrt_library
from cn2.runtime.backends.base import Backend, PictureBackend
from cn2.runtime.backends.tensorrt import TensorRTBackend
from cn2.runtime.canvas import CanvasRule
from cn2.runtime.detector import Detector
from cn2.runtime.engine_file import EngineProfile
from cn2.runtime.errors import (
    BackendUnavailableError,
    InferenceError,
    ModelFormatError,
    PluginError,
)
from fake_backend import FakeBackend, make_manifest
from fake_cuda import CudaArray, DlpackArray
from fake_cuda_runtime import FakeCudaRuntime
from fake_tensorrt import FakeTensorRT, write_engine

FIXED = CanvasRule(short_edge=64, long_edge=96, divisor=32, interpolation="linear", fixed=(64, 96))


@pytest.fixture(autouse=True)
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


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return write_engine(tmp_path / "m.engine")


def blocks(height: int = 64, width: int = 96) -> np.ndarray:
    """Red on the left, blue below."""
    picture = np.zeros((height, width, 3), np.uint8)
    picture[: height // 2, : width // 3, 0] = 200
    picture[height // 2 :, width // 2 :, 2] = 250
    return picture


def on_device(cuda: FakeCudaRuntime, array: np.ndarray, kind: Any = CudaArray) -> Any:
    """An array in the fake's device memory."""
    _, address = cuda.cudaMalloc(array.nbytes)
    cuda.cudaMemcpyAsync(address, array.ctypes.data, array.nbytes, 4, 1)
    cuda.cudaStreamSynchronize(1)
    memory = cuda.device_memory[address].block
    offset = address - np.frombuffer(memory, np.uint8).ctypes.data
    view = np.frombuffer(memory, np.uint8)[offset : offset + array.nbytes].reshape(array.shape)
    assert view.ctypes.data == address
    return kind(view)


class TestTensorRTOnTheFake(BackendContract):
    @pytest.fixture
    def backend(self, model: Path) -> Iterator[Backend]:
        backend = TensorRTBackend.open(model)
        yield backend
        backend.close()

    def images(self, count: int = 1) -> np.ndarray:
        """Noise whose blocks are bright to different degrees, as the fake finds blocks."""
        rng = np.random.default_rng(0)
        return rng.integers(0, 256, (count, 64, 96, 3), dtype=np.uint8)


def test_the_whole_runtime(model: Path) -> None:
    with Detector.open(model, backend="tensorrt") as detector:
        assert isinstance(detector.backend, PictureBackend)
        assert repr(detector) == "<Detector: fake, tensorrt on cuda:0>"
        found, timings = detector.detect_timed([blocks(), blocks(128, 192), blocks(60, 64)])
    assert found[0].labels == ["blue", "red"]
    np.testing.assert_array_equal(found[0].boxes, [[48, 32, 96, 64], [0, 0, 32, 32]])
    np.testing.assert_allclose(found[1].boxes, 2 * found[0].boxes, atol=3)  # resized by half
    assert found[2].image_size == (60, 64)
    assert timings.inference_ms > 0


def test_as_the_same_model_without_tensorrt(model: Path) -> None:
    """Pictures of many sizes, by the slots' memory and by plain arrays."""
    rng = np.random.default_rng(1)
    pictures = [
        rng.integers(0, 256, (*rng.integers(10, 200, 2), 3), dtype=np.uint8) for _ in range(20)
    ]
    expected = Detector(FakeBackend())(pictures)
    with Detector.open(model, backend="tensorrt") as detector:
        found = detector(pictures)
        singles = [detector(picture) for picture in pictures]
    for one, other, alone in zip(expected, found, singles, strict=True):
        np.testing.assert_array_equal(one.boxes, other.boxes)
        np.testing.assert_array_equal(one.scores, other.scores)
        np.testing.assert_array_equal(one.boxes, alone.boxes)


def test_the_default_threshold_is_the_manifests(tmp_path: Path) -> None:
    grey = np.full((64, 96, 3), (140, 180, 250), np.uint8)  # scores .55, .70, .98
    path = write_engine(tmp_path / "m.engine", make_manifest(score_threshold=0.6))
    with Detector.open(path, backend="tensorrt") as detector:
        assert [len(detector(grey, value)) for value in (None, 0.01, 0.75, 1.0)] == [2, 3, 1, 0]


@pytest.mark.parametrize("kind", [CudaArray, DlpackArray])
def test_a_picture_in_cuda_memory_is_bound_as_it_is(
    cuda: FakeCudaRuntime, model: Path, kind: Any
) -> None:
    expected = Detector(FakeBackend())(blocks())
    with Detector.open(model, backend="tensorrt") as detector:
        detector(blocks())  # the slot's memory is there
        picture = on_device(cuda, blocks(), kind)
        before = cuda.copied
        found = detector(picture)
        small = 4 + 3 * (16 + 4 + 4) + 8 + 4  # outputs, and the two small inputs
        assert cuda.copied - before == small
    np.testing.assert_array_equal(found.boxes, expected.boxes)
    cuda.cudaFree(next(iter(cuda.device_memory)))


def test_canvases_in_cuda_memory(cuda: FakeCudaRuntime, model: Path) -> None:
    canvases = np.stack([blocks(), blocks()[::-1]])
    held = on_device(cuda, canvases, lambda array: array)
    sizes = np.array([[64, 96], [50, 96]], np.int32)
    backend = TensorRTBackend.open(model)
    expected = backend.infer(canvases, sizes, 0.3)
    before = cuda.copied
    found = backend.infer_at(held.ctypes.data, held.shape, sizes, 0.3)
    assert cuda.copied - before < 300
    for one, other in zip(found, expected, strict=True):
        np.testing.assert_array_equal(one, other)
    for address, shape in ((held.ctypes.data + 1, held.shape), (0, held.shape)):
        with pytest.raises(ValueError, match="expected an address in multiples of 256"):
            backend.infer_at(address, shape, sizes)
    with pytest.raises(ValueError, match=r"image_sizes \(B, 2\), got"):
        backend.infer_at(held.ctypes.data, held.shape, sizes[:1])
    backend.close()
    cuda.cudaFree(held.ctypes.data)


def test_the_stream_waits_for_who_wrote_the_picture(cuda: FakeCudaRuntime, model: Path) -> None:
    picture = on_device(cuda, np.zeros((64, 96, 3), np.uint8))
    late = blocks()
    address = picture.__cuda_array_interface__["data"][0]
    with Detector.open(model, backend="tensorrt") as detector:
        assert len(detector(picture)) == 0
        cuda.cudaMemcpyAsync(address, late.ctypes.data, late.nbytes, 4, 1)  # on the default stream
        assert len(detector(picture)) == 2
    cuda.cudaFree(address)


@pytest.mark.parametrize(
    "cut", [np.s_[:60, :90], np.s_[4:64, 3:93], np.s_[:32], np.s_[:, :50], np.s_[10:11, 20:22]]
)
def test_parts_of_pictures_in_cuda_memory(cuda: FakeCudaRuntime, model: Path, cut: Any) -> None:
    """Rows further apart than they are long; some are resized."""
    whole = blocks()
    view = on_device(cuda, whole, lambda array: array)
    with Detector.open(model, backend="tensorrt") as detector:
        host, device = detector(whole[cut]), detector(CudaArray(view[cut]))
    np.testing.assert_array_equal(host.boxes, device.boxes)
    cuda.cudaFree(view.ctypes.data)


def test_mixed_lists(cuda: FakeCudaRuntime, model: Path) -> None:
    one = on_device(cuda, blocks())
    with Detector.open(model, backend="tensorrt") as detector:
        found = detector([blocks(), one, blocks(100, 100), one, blocks()[::2]])
    assert [len(result) for result in found] == [2, 2, 2, 2, 2]
    np.testing.assert_array_equal(found[0].boxes, found[1].boxes)
    np.testing.assert_array_equal(found[0].boxes, found[3].boxes)
    cuda.cudaFree(one.__cuda_array_interface__["data"][0])


def test_pictures_of_another_device(model: Path) -> None:
    detector = Detector.open(model, backend="tensorrt", device="cuda:1")
    with pytest.raises(ValueError, match="expected host memory or cuda:1, where the model"):
        detector(DlpackArray(blocks(), device=0))


def test_calls_select_their_device(cuda: FakeCudaRuntime, model: Path) -> None:
    first = Detector.open(model, backend="tensorrt", device="cuda:0")
    second = Detector.open(model, backend="tensorrt", device="cuda:1")
    cuda.selected.clear()
    for detector in (first, second, first):
        detector(blocks())
    assert cuda.selected == [0, 1, 0]
    first.close()
    second.close()
    assert cuda.selected[3:] == [0, 1]


def test_a_stream_of_the_users(cuda: FakeCudaRuntime, model: Path) -> None:
    _, stream = cuda.cudaStreamCreate()
    with Detector.open(model, backend="tensorrt", stream=stream) as detector:
        assert len(detector(blocks())) == 2
        assert cuda.streams == {stream}
    assert cuda.streams == {stream}
    cuda.cudaStreamDestroy(stream)


SMALL = EngineProfile(batch=(1, 1, 1), height=(32, 64, 64), width=(32, 96, 96))
LARGE = EngineProfile(batch=(2, 2, 3), height=(64, 64, 96), width=(64, 96, 96))


def test_profiles_and_batches(tmp_path: Path, trt: FakeTensorRT) -> None:
    path = write_engine(tmp_path / "m.engine", profiles=(SMALL, LARGE))
    with Detector.open(path, backend="tensorrt") as detector:
        pictures = [np.full((64, 96, 3), 128 + index, np.uint8) for index in range(7)]
        scores = [found.scores[0] for found in detector(pictures)]  # 3, 3, 1
        np.testing.assert_allclose(scores, np.arange(128, 135) / 256)
        raw = detector.backend.infer(np.stack(pictures), np.array([[64, 96]] * 7, np.int32))
        np.testing.assert_allclose(raw.scores[:, 0], np.arange(128, 135) / 256)
    assert trt.contexts == 1


@pytest.mark.parametrize(
    ("profiles", "count", "message"),
    [
        ((LARGE,), 1, r"m\.engine: expected 2 to 3 pictures of 64x96 at a time, .* got 1; build"),
        (
            (EngineProfile(batch=(1, 1, 1), height=(32, 32, 32), width=(96, 96, 96)), LARGE),
            1,
            "expected 1 to 1 or 2 to 3 pictures of 64x96",
        ),
        (
            (EngineProfile(batch=(1, 1, 1), height=(32, 32, 32), width=(64, 96, 128)),),
            1,
            r"expected a canvas of 32x64 to 32x128, which it was built for, got 64x96; build an",
        ),
    ],
)
def test_what_no_profile_takes(
    tmp_path: Path, profiles: tuple[EngineProfile, ...], count: int, message: str
) -> None:
    path = write_engine(tmp_path / "m.engine", profiles=profiles)
    with Detector.open(path, backend="tensorrt") as detector:
        for _ in range(2):
            with pytest.raises(ValueError, match=message):
                detector([blocks()] * count)
        with pytest.raises(ValueError, match=message):
            detector.backend.infer(blocks()[None], np.array([[64, 96]], np.int32))


def test_a_fixed_canvas_and_batch(tmp_path: Path) -> None:
    profile = EngineProfile(batch=(2, 2, 2), height=(64, 64, 64), width=(96, 96, 96))
    manifest = make_manifest(canvas=FIXED, batch=2)
    path = write_engine(tmp_path / "m.engine", manifest, profiles=(profile,))
    with Detector.open(path, backend="tensorrt") as detector:
        found = detector([blocks(128, 192), blocks(), blocks(50, 50)])
    assert [len(one) for one in found] == [2, 2, 2]


def test_threads_have_slots_of_their_own(cuda: FakeCudaRuntime, model: Path) -> None:
    """The fake fails where two calls are in one context."""
    with Detector.open(model, backend="tensorrt") as detector:
        pictures = [np.full((64, 60 + n, 3), 130 + 3 * n, np.uint8) for n in range(36)]
        alone = [detector(one).scores.tolist() for one in pictures]
        with ThreadPoolExecutor(8) as pool:
            found = list(pool.map(lambda one: detector(one).scores.tolist(), pictures * 5))
        assert found == alone * 5
        assert 1 <= len(cuda.streams) <= 8


def test_closing_while_a_call_is_under_way(cuda: FakeCudaRuntime, model: Path) -> None:
    backend = TensorRTBackend.open(model)
    backend.detect([blocks()])
    with backend._slots.borrow():
        backend.close()
        assert cuda.live > 0
    assert cuda.live == 0
    with pytest.raises(ValueError, match="this detector is closed; open the model again"):
        backend.detect([blocks()])


def test_what_is_forgotten_is_closed(cuda: FakeCudaRuntime, model: Path) -> None:
    detector = Detector.open(model, backend="tensorrt")
    detector(blocks())
    assert cuda.live > 0
    del detector
    gc.collect()
    assert cuda.live == 0


def test_memory_grows_and_is_kept(cuda: FakeCudaRuntime, model: Path) -> None:
    with Detector.open(model, backend="tensorrt") as detector:
        detector([blocks()] * 4)
        cuda.calls.clear()
        for count in (4, 1, 2, 3):
            detector([blocks(64, 80)] * count)
        assert "cudaMalloc" not in cuda.calls
        detector([blocks()] * 5)
        assert "cudaMalloc" in cuda.calls


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
    trt.namespaces.append("cn2")
    TensorRTBackend.open(model)
    assert trt.libraries == []


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
