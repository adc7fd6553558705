"""The backend `native` on the built libcn2: it finds what `onnxruntime` finds; its errors."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from backend_contract import BackendContract
from cn2.runtime.backends.base import Backend
from cn2.runtime.backends.native import NativeBackend
from cn2.runtime.bench import BUNDLED_PICTURES
from cn2.runtime.detections import Detections
from cn2.runtime.detector import Detector
from cn2.runtime.errors import BackendUnavailableError, ModelFormatError
from cn2.runtime.manifest import FORMAT_VERSION
from cn2.runtime.pictures import open_picture
from command_line import cn2
from fake_backend import make_manifest
from fake_cuda import CudaArray
from native_libraries import needs_library
from tiny_onnx import SECOND_BOX, write_tiny_onnx

BOX_PX, SCORE = 0.02, 2e-5  # of the same canvas: fused kernels sum in another order


pytestmark = needs_library("cn2")


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return write_tiny_onnx(tmp_path / "m.onnx")


class TestNative(BackendContract):
    @pytest.fixture
    def backend(self, model: Path) -> Iterator[Backend]:
        backend = NativeBackend.open(model, device="cpu", threads=1)
        yield backend
        backend.close()


def grey(level: int = 204, height: int = 128, width: int = 192) -> np.ndarray:
    return np.full((height, width, 3), level, np.uint8)


def assert_equal(found: Detections, expected: Detections) -> None:
    np.testing.assert_array_equal(found.boxes, expected.boxes)
    np.testing.assert_array_equal(found.scores, expected.scores)
    np.testing.assert_array_equal(found.class_ids, expected.class_ids)


def test_detections_through_the_whole_runtime(model: Path) -> None:
    with Detector.open(model, backend="native", device="cpu", threads=1) as detector:
        found, timings = detector.detect_timed([grey()])
        assert repr(detector) == "<Detector: fake, native on cpu>"
    np.testing.assert_allclose(found[0].boxes, [[0, 0, 192, 128], 2 * np.array(SECOND_BOX)])
    np.testing.assert_allclose(found[0].scores, [0.9, 0.4], rtol=1e-6)
    assert found[0].labels == ["red", "blue"]
    stages = (timings.preprocess_ms, timings.inference_ms, timings.postprocess_ms)
    assert min(stages) > 0
    with pytest.raises(ValueError, match="this detector is closed"):
        detector(grey())


@pytest.mark.parametrize("with_threshold", [True, False])
def test_thresholds(tmp_path: Path, with_threshold: bool) -> None:
    path = write_tiny_onnx(tmp_path / "m.onnx", with_threshold=with_threshold)
    detector = Detector.open(path, backend="native", device="cpu", threads=1)
    assert [len(detector(grey(), value)) for value in (None, 0.3, 0.5, 0.95)] == [2, 2, 1, 0]
    assert len(detector(grey(15))) == 1  # second score 0.03, default threshold 0.05
    assert len(detector(grey(15), 0.01)) == (2 if with_threshold else 1)


SIZES = [(64, 96), (96, 64), (128, 192), (70, 70), (480, 640), (1, 300), (300, 1), (33, 77)]


def test_boxes_of_all_shapes_are_those_of_python(model: Path) -> None:
    """Both scale the same boxes back; the mean grey level does not depend on the resize."""
    pictures = [grey(40 + 10 * index, *size) for index, size in enumerate(SIZES * 2)]
    native = Detector.open(model, backend="native", device="cpu", threads=1)
    python = Detector.open(model, backend="onnxruntime", device="cpu", threads=1)
    for found, expected in zip(native(pictures), python(pictures), strict=True):
        np.testing.assert_allclose(found.boxes, expected.boxes, rtol=1e-6, atol=1e-5)
        np.testing.assert_allclose(found.scores, expected.scores, rtol=0, atol=1e-6)
        np.testing.assert_array_equal(found.class_ids, expected.class_ids)
        assert found.image_size == expected.image_size


@pytest.fixture(scope="module")
def nano(nano_onnx: Path) -> Iterator[Detector]:
    with Detector.open(nano_onnx, backend="native", device="cpu", threads=1) as detector:
        yield detector


@pytest.fixture(scope="module")
def scenes() -> list[np.ndarray]:
    return [open_picture(path) for path in sorted(BUNDLED_PICTURES.glob("*.jpg"))]


def test_nano_finds_what_onnxruntime_finds(
    nano: Detector, nano_onnx: Path, scenes: list[np.ndarray]
) -> None:
    with Detector.open(nano_onnx, device="cpu", threads=1) as detector:
        expected = detector(scenes)
    count = 0
    for found, wanted in zip(nano(scenes), expected, strict=True):
        np.testing.assert_array_equal(found.class_ids, wanted.class_ids)
        np.testing.assert_allclose(found.boxes, wanted.boxes, rtol=0, atol=BOX_PX)
        np.testing.assert_allclose(found.scores, wanted.scores, rtol=0, atol=SCORE)
        count += len(found)
    assert count > 50


def test_threads_equal_serial(nano: Detector, scenes: list[np.ndarray]) -> None:
    pictures = [scene[: 200 + 30 * index, : 250 + 40 * index] for index, scene in enumerate(scenes)]
    alone = [nano(picture, 0.02) for picture in pictures]
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda picture: nano(picture, 0.02), pictures * 3))
    for one, expected in zip(found, alone * 3, strict=True):
        assert_equal(one, expected)
    assert sum(map(len, alone)) > 20


@pytest.mark.slow
def test_eight_threads_a_thousand_calls_each(nano: Detector) -> None:
    rng = np.random.default_rng(0)
    pictures = [rng.integers(0, 256, (32, 40 + index, 3), dtype=np.uint8) for index in range(8)]
    alone = [nano(picture, 0.02) for picture in pictures]

    def call(index: int) -> None:
        for _ in range(1000):
            assert_equal(nano(pictures[index], 0.02), alone[index])

    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(call, range(8))) == [None] * 8


def test_views_and_copies_give_the_same(nano: Detector, scenes: list[np.ndarray]) -> None:
    scene = scenes[0]
    expected = nano(scene)
    assert len(expected) > 3
    padded = np.zeros((scene.shape[0], scene.shape[1] + 7, 3), np.uint8)
    padded[:, :-7] = scene
    for view in (padded[:, :-7], scene[..., ::-1].copy()[..., ::-1], np.asfortranarray(scene)):
        assert_equal(nano(view), expected)


def test_device_memory_and_a_model_on_the_cpu(nano: Detector, scenes: list[np.ndarray]) -> None:
    with pytest.raises(BackendUnavailableError) as caught:
        nano(CudaArray(scenes[0]))
    assert "\n" not in str(caught.value)


def test_a_missing_gpu_is_an_error_if_asked_for_by_name(model: Path) -> None:
    assert NativeBackend.open(model).device == "cpu"
    with pytest.raises(BackendUnavailableError) as caught:
        NativeBackend.open(model, device="cuda")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("keep", [0, 10, 0.5, 0.9])
def test_torn_files_are_refused(model: Path, keep: float) -> None:
    content = model.read_bytes()
    model.write_bytes(content[: int(keep if keep in (0, 10) else keep * len(content))])
    with pytest.raises(ModelFormatError) as caught:
        Detector.open(model, backend="native")
    assert "\n" not in str(caught.value)
    assert str(caught.value).startswith(str(model))


@pytest.mark.parametrize(
    "metadata",
    [
        {"names": "{}"},
        {"cn2.manifest": make_manifest(format_version=FORMAT_VERSION + 1).to_json()},
        {"cn2.manifest": "{}"},
    ],
    ids=["foreign", "newer", "empty"],
)
def test_foreign_and_newer_files_are_refused(tmp_path: Path, metadata: dict[str, str]) -> None:
    path = write_tiny_onnx(tmp_path / "m.onnx", metadata=metadata)
    with pytest.raises(ModelFormatError, match=r"m\.onnx: "):
        Detector.open(path, backend="native")


def test_a_missing_runtime_is_one_line(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CN2_ONNXRUNTIME", str(tmp_path / "none.so"))
    with pytest.raises(BackendUnavailableError, match=r"none\.so") as caught:
        Detector.open(model, backend="native")
    assert "\n" not in str(caught.value)


def test_it_says_what_runs(model: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO):
        backend = NativeBackend.open(model, device="cpu")
    assert backend.runtime.startswith("onnxruntime ")
    assert f"{model}: native, {backend.runtime}" in [r.getMessage() for r in caplog.records]


def test_commands_take_it(model: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    from command_line import write_grey

    picture = write_grey(tmp_path / "a.png", 204)
    ran = cn2(capfd, "detect", model, picture, "--backend", "native", "--json", "-")
    assert (ran.code, ran.errors) == (0, [])
    assert ran.json()["model"]["backend"] == "native"
    assert len(ran.json()["images"][0]["detections"]) == 2
    words = ("--backend", "native", "--images", picture, "--runs", 2, "--warmup", 0, "--json", "-")
    (row,) = cn2(capfd, "bench", model, *words).json()
    assert (row["backend"], row["device"]) == ("native", "cpu")
