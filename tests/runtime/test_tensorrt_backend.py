"""The backend `tensorrt` on fakes of the bindings and of CUDA: pictures, memory, streams."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from backend_contract import BackendContract
from cn2.runtime.backends.base import Backend, PictureBackend
from cn2.runtime.backends.tensorrt import TensorRTBackend
from cn2.runtime.canvas import CanvasRule
from cn2.runtime.detector import Detector
from cn2.runtime.engine_file import EngineProfile
from fake_backend import FakeBackend, make_manifest
from fake_cuda import CudaArray, DlpackArray
from fake_cuda_runtime import FakeCudaRuntime
from fake_tensorrt import FakeTensorRT, blocks, write_engine

pytestmark = pytest.mark.usefixtures("cuda")
FIXED = CanvasRule(short_edge=64, long_edge=96, divisor=32, interpolation="linear", fixed=(64, 96))


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return write_engine(tmp_path / "m.engine")


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


@pytest.mark.parametrize("count", [1, 2, 3, 4, 5, 7])
def test_fewer_pictures_than_a_profile_takes_are_filled_up(tmp_path: Path, count: int) -> None:
    """Also where the slot's memory still holds pictures of the call before."""
    path = write_engine(tmp_path / "m.engine", profiles=(LARGE,))  # 2 or 3 at a time
    rng = np.random.default_rng(5)
    pictures = list(rng.integers(0, 256, (count, 64, 96, 3), dtype=np.uint8))
    expected = Detector(FakeBackend())(pictures)
    sizes = np.array([[64, 96]] * count, np.int32)
    wanted = FakeBackend().infer(np.stack(pictures), sizes)
    with Detector.open(path, backend="tensorrt") as detector:
        for _ in range(2):
            found = detector(pictures)
            raw = detector.backend.infer(np.stack(pictures), sizes)
            for one, other in zip(found, expected, strict=True):
                np.testing.assert_array_equal(one.boxes, other.boxes)
                np.testing.assert_array_equal(one.scores, other.scores)
            for name in ("boxes", "scores", "num_detections"):
                np.testing.assert_array_equal(getattr(raw, name), getattr(wanted, name))


def test_a_picture_that_is_filled_up_in_cuda_memory(cuda: FakeCudaRuntime, tmp_path: Path) -> None:
    path = write_engine(tmp_path / "m.engine", profiles=(LARGE,))
    with Detector.open(path, backend="tensorrt") as detector:
        picture = on_device(cuda, blocks())
        np.testing.assert_array_equal(detector(picture).boxes, detector(blocks()).boxes)
        held = picture.__cuda_array_interface__["data"][0]
        with pytest.raises(ValueError, match="expected 2 to 3 pictures of 64x96 at a time"):
            detector.backend.infer_at(held, (1, 64, 96, 3), np.array([[64, 96]], np.int32))
    cuda.cudaFree(held)


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
