"""The backend `native` on a fake libcn2: what reaches C, what comes back, errors, contexts."""

from __future__ import annotations

import ctypes
import gc
import logging
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from backend_contract import BackendContract
from cn2.runtime.arrays import DevicePicture
from cn2.runtime.backends import libcn2, native
from cn2.runtime.backends.base import Backend, PictureBackend
from cn2.runtime.backends.native import NativeBackend
from cn2.runtime.backends.native_images import host_image
from cn2.runtime.detector import Detector
from cn2.runtime.errors import BackendUnavailableError, InferenceError, ModelFormatError
from fake_backend import FakeBackend, make_manifest
from fake_cuda import CudaArray, DlpackArray
from fake_tensorrt import write_engine
from native_libraries import fake_library

RGB = (240, 120, 60)  # grey levels of the three channels
MEANS = [value / 256 for value in RGB]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return fake_library(tmp_path_factory.mktemp("fake")).parent


@pytest.fixture(autouse=True)
def library(folder: Path, monkeypatch: pytest.MonkeyPatch) -> libcn2.Libcn2:
    monkeypatch.setenv("CN2_LIBRARY_DIR", str(folder))
    return libcn2.open_library()


@pytest.fixture
def model(tmp_path: Path) -> Path:
    path = tmp_path / "m.onnx"
    path.write_text(make_manifest().to_json())
    return path


@pytest.fixture
def live(folder: Path) -> Iterator[Callable[[], int]]:
    """How many models and contexts are open; none may be left by the test."""
    count: Any = ctypes.CDLL(str(folder / "libcn2.so")).fake_live
    gc.collect()
    before = count()
    yield lambda: count() - before
    gc.collect()
    assert count() == before


class TestNativeOnTheFake(BackendContract):
    @pytest.fixture
    def backend(self, model: Path) -> Iterator[Backend]:
        backend = NativeBackend.open(model, device="cpu")
        yield backend
        backend.close()


def picture(height: int = 20, width: int = 30) -> np.ndarray:
    return np.full((height, width, 3), RGB, np.uint8)


def test_it_takes_whole_pictures(model: Path) -> None:
    with Detector.open(model, backend="native", device="cpu") as detector:
        assert isinstance(detector.backend, PictureBackend)
        assert not isinstance(FakeBackend(), PictureBackend)
        (first, second), timings = detector.detect_timed([picture(), picture(50, 40)])
        assert repr(detector) == "<Detector: fake, native on cpu>"
    np.testing.assert_array_equal(first.boxes, [[0, 0, 30, 20]] * 3)
    np.testing.assert_array_equal(second.boxes, [[0, 0, 40, 50]] * 3)
    np.testing.assert_allclose(first.scores, MEANS)
    assert first.labels == ["red", "green", "blue"]
    assert first.boxes.dtype == first.scores.dtype == np.float32
    assert (first.class_ids.dtype, first.image_size) == (np.int64, (20, 30))
    assert (timings.preprocess_ms, timings.inference_ms) == (0.25, 0.5)


def test_thresholds_reach_c(model: Path) -> None:
    detector = Detector.open(model, backend="native", device="cpu")
    assert [len(detector(picture(), value)) for value in (None, 0.3, 0.9, 1.0)] == [3, 2, 1, 0]
    with pytest.raises(ValueError, match=r"expected 0.01 \(the lowest of this model\) to 1"):
        detector(picture(), 0.001)


def test_lists_are_cut_into_batches(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    detector = Detector.open(model, backend="native", device="cpu", max_batch=3)
    sizes: list[int] = []
    whole = NativeBackend.detect

    def detect(self: NativeBackend, pictures: Any, score_threshold: Any = None) -> Any:
        sizes.append(len(pictures))
        return whole(self, pictures, score_threshold)

    monkeypatch.setattr(NativeBackend, "detect", detect)
    found = detector([picture(10 + index, 20) for index in range(8)])
    assert sizes == [3, 3, 2]
    assert [result.image_size[0] for result in found] == [*range(10, 18)]
    assert detector([]) == []


def wide() -> np.ndarray:
    rng = np.random.default_rng(0)
    return rng.integers(0, 256, (40, 60, 3), dtype=np.uint8)


def padded() -> np.ndarray:
    """Rows of 17 pixels, 60 pixels apart."""
    return wide()[4:30, 10:27]


@pytest.mark.parametrize(
    ("view", "is_copied"),
    [
        (wide(), False),
        (padded(), False),
        (padded()[..., ::-1], False),  # BGR, as OpenCV has it
        (wide()[::3], False),
        (wide()[:1, ::2], True),
        (padded()[:, ::-1], True),
        (padded()[::-1], True),
        (padded().transpose(1, 0, 2), True),
        (np.asfortranarray(wide()), True),
        (np.broadcast_to(wide()[:1], (9, 60, 3)), True),
        (np.broadcast_to(wide()[:, :, :1], (40, 60, 3)), True),
        (wide()[7:8, 8:9], False),
        (wide()[7:8, 8:9, ::-1], False),
        (wide()[:, 8:9], False),
    ],
)
def test_arrays_of_any_strides(model: Path, view: np.ndarray, is_copied: bool) -> None:
    image, owner = host_image(view)
    assert np.shares_memory(owner, view) is not is_copied
    assert image.pitch >= 3 * view.shape[1]
    found = NativeBackend.open(model, device="cpu").detect([view], 0.01)[0][0]
    means = view.reshape(-1, 3).astype(np.float64).mean(axis=0) / 256
    np.testing.assert_allclose(found.scores[np.argsort(found.class_ids)], means, rtol=1e-6)


@pytest.mark.parametrize("kind", [CudaArray, DlpackArray])
def test_device_pictures_reach_c_by_their_pointers(model: Path, kind: Any) -> None:
    cuda = Detector.open(model, backend="native", device="cuda")
    assert cuda.backend.device == "cuda:0"
    for view in (wide(), padded(), wide()[7:8, 8:9]):
        means = view.reshape(-1, 3).astype(np.float64).mean(axis=0) / 256
        found = cuda(kind(view), 0.01)
        np.testing.assert_allclose(found.scores[np.argsort(found.class_ids)], means, rtol=1e-6)
        assert found.image_size == view.shape[:2]


def test_device_pictures_are_ready_on_the_default_stream(
    model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    streams: list[int | None] = []
    backend = NativeBackend.open(model, device="cuda")
    detect = backend._library.detect

    def watched(context: Any, images: Any, count: Any, options: Any, *more: Any) -> None:
        streams.append(options._obj.cuda_stream)
        detect(context, images, count, options, *more)

    monkeypatch.setattr(backend._library, "detect", watched)
    for picture_ in (wide(), CudaArray(wide()), DlpackArray(wide())):
        Detector(backend)(picture_)
    assert streams == [None, 1, 1]


@pytest.mark.parametrize("kind", [CudaArray, DlpackArray])
def test_device_pictures_and_a_model_on_the_cpu(model: Path, kind: Any) -> None:
    detector = Detector.open(model, backend="native", device="cpu")
    with pytest.raises(BackendUnavailableError, match="in CUDA memory, the model on the CPU"):
        detector(kind(wide()))


def test_device_pictures_of_another_device(model: Path) -> None:
    detector = Detector.open(model, backend="native", device="cuda:1")
    assert len(detector(DlpackArray(wide(), device=1))) == 3
    with pytest.raises(ValueError, match=r"cuda:1, where the model is, got cuda:0; copy it, or op"):
        detector(DlpackArray(wide(), device=0))


def test_other_backends_refuse_device_pictures() -> None:
    for array in (CudaArray(wide()), DlpackArray(wide())):
        with pytest.raises(ValueError, match=r"in CUDA memory; copy it \(torch: .cpu.*'native'$"):
            Detector(FakeBackend())(array)


def test_the_python_packages_onnxruntime_is_found() -> None:
    code = (
        "import sys; from cn2.runtime.backends.native import find_onnxruntime as find; "
        "print(find(), 'onnxruntime' in sys.modules)"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    path, is_imported = run.stdout.split()
    assert re.fullmatch(r"libonnxruntime\.so\.\d+\.\d+\.\d+", Path(path).name)
    assert Path(path).is_file()
    assert is_imported == "False"


def test_no_onnxruntime_to_be_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    assert native.find_onnxruntime() is None


def test_options_reach_c(model: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(native, "find_onnxruntime", lambda: tmp_path / "o.so")
    monkeypatch.delenv("CN2_ONNXRUNTIME", raising=False)
    backend = NativeBackend.open(model, device="cpu", threads=3, fused=False)
    assert backend.runtime == f"device cpu, threads 3, standard_ops 1, {tmp_path / 'o.so'}"
    monkeypatch.setenv("CN2_ONNXRUNTIME", "its own")
    runtime = NativeBackend.open(model, device="cuda").runtime
    assert runtime == "device cuda:0, threads 0, standard_ops 0, null"
    with pytest.raises(ModelFormatError, match=r"m\.onnx: expected fused operators, got stand"):
        NativeBackend.open(model, device="cpu", fused=True)
    for wrong in ({"threads": 0}, {"device": "gpu"}):
        with pytest.raises(ValueError, match="expected"):
            Detector.open(model, backend="native", **wrong)  # type: ignore[arg-type]


def test_engines_run_on_a_gpu_by_the_library_that_is_installed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found: dict[str, Path | None] = {"tensorrt-rtx": tmp_path / "t.so", "tensorrt": None}
    monkeypatch.setattr(native, "find_tensorrt", found.__getitem__)
    monkeypatch.delenv("CN2_TENSORRT", raising=False)
    path = write_engine(tmp_path / "m.engine")
    path.write_text(make_manifest().to_json())  # as the fake reads it
    for device, where in (("auto", "cuda:0"), ("cuda", "cuda:0"), ("cuda:1", "cuda:1")):
        backend = NativeBackend.open(path, device=device)
        assert backend.runtime == f"device {where}, threads 0, standard_ops 0, {tmp_path / 't.so'}"
    monkeypatch.setenv("CN2_TENSORRT", "its own")
    assert NativeBackend.open(path).runtime.endswith(", null")


@pytest.mark.parametrize("name", ["libtensorrt_rtx.so.1", "libnvinfer.so.10", "libnvinfer.so.11"])
def test_tensorrts_library_in_its_python_package(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    package = "tensorrt_rtx_libs" if "rtx" in name else "tensorrt_libs"
    (tmp_path / package).mkdir()
    for file in ("__init__.py", name, "libnvinfer_lean.so.11", "libtensorrt_onnxparser_rtx.so.1"):
        (tmp_path / package / file).touch()
    spec = SimpleNamespace(submodule_search_locations=[str(tmp_path / package)])
    monkeypatch.setattr(
        native.importlib.util, "find_spec", lambda name: spec if name == package else None
    )
    answers = [native.find_tensorrt(runtime) for runtime in ("tensorrt", "tensorrt-rtx")]
    expected = tmp_path / package / name
    assert answers == ([None, expected] if "rtx" in name else [expected, None])


def test_kernels_are_of_the_cpu(
    tmp_path: Path, model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fused = tmp_path / "fused.onnx"
    fused.write_text(make_manifest(ops="fused").to_json())
    with pytest.raises(BackendUnavailableError, match="have kernels for the CPU alone"):
        NativeBackend.open(fused, device="cuda", fused=True)
    monkeypatch.setattr(native, "has_cuda_driver", lambda: True)
    assert NativeBackend.open(fused, device="auto", fused=True).device == "cpu"
    assert NativeBackend.open(fused, device="auto").device == "cuda:0"


def test_auto_takes_cuda_where_it_works(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(native, "has_cuda_driver", lambda: True)
    assert NativeBackend.open(model).device == "cuda:0"
    monkeypatch.setattr(native, "has_cuda_driver", lambda: False)
    assert NativeBackend.open(model).device == "cpu"


@pytest.mark.parametrize(
    ("code", "kind"),
    [
        (1, ValueError),
        (2, ModelFormatError),
        (3, BackendUnavailableError),
        (4, InferenceError),
        (5, MemoryError),
        (6, RuntimeError),
        (77, RuntimeError),
    ],
)
def test_statuses_become_exceptions(code: int, kind: type[Exception], tmp_path: Path) -> None:
    with pytest.raises(kind, match=f"^fake: status-{code}-x.onnx$") as caught:
        NativeBackend.open(tmp_path / f"status-{code}-x.onnx", device="cpu")
    assert type(caught.value) is kind


def test_a_failing_picture(model: Path, live: Callable[[], int]) -> None:
    detector = Detector.open(model, backend="native", device="cpu")
    bad = picture()
    bad[0, 0] = (1, 2, 3)
    with pytest.raises(InferenceError, match="fake: the engine"):
        detector([picture(), bad])
    assert len(detector(picture())) == 3  # the context is given back all the same
    assert live() == 2


def test_a_manifest_that_python_refuses(tmp_path: Path, live: Callable[[], int]) -> None:
    (tmp_path / "m.onnx").write_text("{}")
    with pytest.raises(ModelFormatError, match=r"m.onnx: expected a cn2 manifest with a format"):
        NativeBackend.open(tmp_path / "m.onnx", device="cpu")


def test_each_thread_has_a_context(model: Path, live: Callable[[], int]) -> None:
    """The fake fails where two threads are in one context."""
    detector = Detector.open(model, backend="native", device="cpu")
    pictures = [np.full((300, 400 + index, 3), 3 * index + 60, np.uint8) for index in range(40)]
    alone = [detector(one).scores.tolist() for one in pictures]
    assert live() == 2
    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(lambda one: detector(one).scores.tolist(), pictures * 5)) == alone * 5
    assert 2 <= live() <= 9
    detector.close()
    assert live() == 0


def test_closing_while_a_call_is_under_way(model: Path, live: Callable[[], int]) -> None:
    backend = NativeBackend.open(model, device="cpu")
    with backend._contexts.borrow():
        backend.close()
        assert live() == 1  # the context
    assert live() == 0
    with pytest.raises(ValueError, match="this detector is closed; open the model again"):
        backend.detect([picture()])
    with pytest.raises(ValueError, match="this detector is closed"):
        backend.infer(np.zeros((1, 64, 96, 3), np.uint8), np.ones((1, 2), np.int32))


def test_what_is_forgotten_is_closed(model: Path, live: Callable[[], int]) -> None:
    detector = Detector.open(model, backend="native", device="cpu")
    detector(picture())
    assert live() == 2
    del detector
    gc.collect()
    assert live() == 0


def test_lines_of_c_are_logged(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    libcn2._load.cache_clear()
    with caplog.at_level(logging.WARNING):
        libcn2.open_library()
    (record,) = caplog.records
    assert (record.levelname, record.getMessage()) == ("WARNING", "a line of C")
    assert record.name == "cn2.runtime.backends.libcn2"


def test_a_picture_without_an_owner_of_its_own_lives_through_the_call(model: Path) -> None:
    """The only references to the copies that are made are held by the call."""
    backend = NativeBackend.open(model, device="cpu")
    views = [np.full((500, 500, 3), level, np.uint8)[:, ::-1] for level in range(50, 90)]
    found, _ = backend.detect(views)
    scores = [result.scores[0] for result in found]
    np.testing.assert_allclose(scores, [level / 256 for level in range(50, 90)])


def test_device_pictures_say_where_they_are() -> None:
    from cn2.runtime.arrays import as_array

    view = padded()
    found = as_array(CudaArray(view))
    assert isinstance(found, DevicePicture)
    assert (found.pointer, found.shape) == (view.ctypes.data, (26, 17, 3))
    assert (found.pitch, found.device) == (180, None)
