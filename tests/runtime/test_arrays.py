"""Pictures in arrays of other libraries, in host memory and in memory that claims to be CUDA's."""

from __future__ import annotations

import ctypes
import gc
import weakref
from typing import Any

import numpy as np
import pytest
from PIL import Image

from cn2.runtime import arrays
from cn2.runtime.arrays import DevicePicture, as_array
from cn2.runtime.detector import Detector
from cn2.runtime.pictures import open_picture
from fake_backend import FakeBackend
from fake_cuda import CudaArray, DlpackArray


def rgb(height: int = 8, width: int = 12) -> np.ndarray:
    rng = np.random.default_rng(0)
    return rng.integers(0, 256, (height, width, 3), dtype=np.uint8)


class HostDlpack:
    """Another library's array in host memory."""

    def __init__(self, array: np.ndarray, kind: int = 1) -> None:
        self._array, self._kind = array, kind

    def __dlpack__(self, **options: Any) -> object:
        return self._array.__dlpack__(**options)

    def __dlpack_device__(self) -> tuple[int, int]:
        return self._kind, 0


class HostInterface:
    def __init__(self, array: np.ndarray) -> None:
        self.__array_interface__ = array.__array_interface__
        self._owner = array


def test_host_arrays_are_shared_not_copied() -> None:
    picture = rgb()
    for array in (picture, HostDlpack(picture), HostInterface(picture)):
        found = open_picture(array)
        assert isinstance(found, np.ndarray)
        assert np.shares_memory(found, picture)
        np.testing.assert_array_equal(found, picture)
    assert open_picture(picture) is picture


def test_torch_tensors_are_pictures() -> None:
    torch = pytest.importorskip("torch")
    picture = np.zeros((64, 96, 3), np.uint8)
    picture[10:30, 20:50, 0] = 255
    found = Detector(FakeBackend())(torch.from_numpy(picture))
    np.testing.assert_array_equal(found.boxes, [[20, 10, 50, 30]])
    with pytest.raises(ValueError, match=r"got float32 \(64, 96, 3\)"):
        open_picture(torch.zeros(64, 96, 3))


def test_pillow_pictures_are_arrays() -> None:
    np.testing.assert_array_equal(open_picture(Image.fromarray(rgb())), rgb())  # type: ignore[arg-type]


def test_what_is_no_array() -> None:
    for value in ("a.jpg", 3, None, [1, 2], object()):
        assert as_array(value) is None
    with pytest.raises(TypeError, match=r"expected a path or an .* array, got NoneType"):
        open_picture(None)  # type: ignore[arg-type]


def test_memory_that_nobody_here_can_read() -> None:
    with pytest.raises(ValueError, match=r"host or CUDA memory, got DLPack device type 10; copy"):
        as_array(DlpackArray(rgb(), kind=10))  # ROCm
    refusing = HostDlpack(rgb())
    refusing.__class__ = type("Refusing", (HostDlpack,), {"__dlpack__": refuse})
    with pytest.raises(ValueError, match=r"numpy cannot share its memory \(it needs a gradient\)"):
        as_array(refusing)


def refuse(*_: Any, **__: Any) -> object:
    raise RuntimeError("it needs a gradient")


@pytest.mark.parametrize("kind", [CudaArray, DlpackArray])
def test_cuda_arrays_are_described(kind: Any) -> None:
    whole = rgb(20, 30)
    for view, pitch in (
        (whole, 90),
        (whole[3:9, 5:12], 90),
        (whole[:1, 4:6], 6),
        (whole[::2], 180),
    ):
        found = as_array(kind(view))
        assert isinstance(found, DevicePicture)
        assert (found.pointer, found.shape, found.pitch) == (view.ctypes.data, view.shape, pitch)
        assert found.device == (0 if kind is DlpackArray else None)


def test_dlpack_is_asked_for_the_stream_that_libcn2_copies_on() -> None:
    array = DlpackArray(rgb(), device=3)
    found = as_array(array)
    assert isinstance(found, DevicePicture)
    assert (array.streams, found.device) == ([1], 3)


def test_the_picture_keeps_its_memory_alive() -> None:
    picture = rgb()
    alive = weakref.ref(picture)
    found = as_array(DlpackArray(picture))
    del picture
    gc.collect()
    assert alive() is not None
    del found
    gc.collect()
    assert alive() is None


@pytest.mark.parametrize("kind", [CudaArray, DlpackArray])
@pytest.mark.parametrize(
    ("array", "message"),
    [
        (np.zeros((8, 12, 3), np.float32), r"got another type \(8, 12, 3\)"),
        (np.zeros((8, 12, 3), np.int8), r"got another type \(8, 12, 3\)"),
        (np.zeros((8, 12), np.uint8), r"got uint8 \(8, 12\)"),
        (np.zeros((3, 8, 12), np.uint8), r"got uint8 \(3, 8, 12\)"),
        (np.zeros((8, 12, 4), np.uint8), r"got uint8 \(8, 12, 4\)"),
        (np.zeros((0, 12, 3), np.uint8), r"got uint8 \(0, 12, 3\)"),
        (rgb()[:, ::2], r"whole RGB pixels .*got strides \(36, 6, 1\).*; copy it into a contig"),
        (rgb()[..., ::-1], r"got strides \(36, 3, -1\)"),
        (rgb().transpose(1, 0, 2), r"got strides \(3, 36, 1\)"),
        (rgb()[::-1], r"got strides \(-36, 3, 1\)"),
    ],
)
def test_cuda_arrays_that_are_no_pictures(kind: Any, array: np.ndarray, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        as_array(kind(array))


class FakeDriver:
    """libcuda's one function that is called."""

    def __init__(self, status: int) -> None:
        self.status = status
        self.streams: list[int | None] = []

    def cuStreamSynchronize(self, stream: ctypes.c_void_p) -> int:
        self.streams.append(stream.value)
        return self.status


@pytest.mark.parametrize(
    ("stream", "waited"), [(None, []), (1, []), (2, [2]), (7 << 40, [7 << 40])]
)
def test_a_stream_that_still_writes_is_waited_for(
    stream: int | None, waited: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    driver = FakeDriver(0)
    monkeypatch.setattr(arrays.ctypes, "CDLL", lambda _: driver)
    as_array(CudaArray(rgb(), stream=stream))
    assert driver.streams == waited


def test_a_stream_without_a_driver(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(name: str) -> object:
        raise OSError(f"{name}: no such file")

    monkeypatch.setattr(arrays.ctypes, "CDLL", missing)
    with pytest.raises(ValueError, match=r"needs NVIDIA's driver \(libcuda\.so\.1: no such file\)"):
        as_array(CudaArray(rgb(), stream=5))


@pytest.mark.parametrize("kind", [1, 2])  # host, CUDA
def test_a_library_that_does_not_share(kind: int, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> object:
        raise BufferError("it wants a gradient")

    monkeypatch.setattr(DlpackArray, "__dlpack__", refuse)
    with pytest.raises(ValueError, match="share its memory \\(it wants a gradient\\)"):
        as_array(DlpackArray(rgb(), kind=kind))


def test_a_stream_that_failed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(arrays.ctypes, "CDLL", lambda _: FakeDriver(700))
    with pytest.raises(ValueError, match="CUDA error 700 on the stream 5 of its array"):
        as_array(CudaArray(rgb(), stream=5))
