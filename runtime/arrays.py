"""Pictures in arrays of other libraries: as numpy sees host memory, or where CUDA memory lies.

An object is asked for `__dlpack__` first, which names its device and waits for the work that is
queued on it; then for `__cuda_array_interface__` and `__array_interface__`.
"""

from __future__ import annotations

import ctypes
from dataclasses import dataclass
from typing import Any, Protocol, TypeAlias

import numpy as np
import numpy.typing as npt

DLPACK_HOST = (1, 3)  # device types: CPU, memory pinned by CUDA
DLPACK_CUDA = (2, 13)  # CUDA, managed by CUDA
DLPACK_UNSIGNED = 1  # type code
SHARING_ERRORS = (BufferError, RuntimeError, TypeError)  # of a library that refuses
LEGACY_STREAM = 1  # CUDA's default stream, in DLPack and in the interface; libcn2 waits for it


class SharedArray(Protocol):
    """An array of another library that speaks DLPack: torch, CuPy, JAX, …"""

    def __dlpack__(self) -> object: ...

    def __dlpack_device__(self) -> tuple[int, int]: ...


class CudaArray(Protocol):
    """An array in CUDA memory: PyCUDA, Numba, …"""

    @property
    def __cuda_array_interface__(self) -> dict[str, Any]: ...


AnyArray: TypeAlias = npt.NDArray[Any] | SharedArray | CudaArray


@dataclass(frozen=True, kw_only=True, eq=False)
class DevicePicture:
    """An (H, W, 3) uint8 RGB picture in CUDA memory."""

    pointer: int
    """Of the top left pixel."""
    shape: tuple[int, int, int]
    """Height, width, 3."""
    pitch: int
    """Bytes from one row to the next."""
    device: int | None
    """CUDA's number of the device; None where the array does not tell."""
    owner: object
    """Keeps the memory alive."""


def as_array(value: object) -> npt.NDArray[Any] | DevicePicture | None:
    """An array of any library without a copy; None for what is no array.

    Raises:
        ValueError: neither host nor CUDA memory; in CUDA memory, and no picture.
    """
    if isinstance(value, np.ndarray):
        return value
    if hasattr(value, "__dlpack__") and hasattr(value, "__dlpack_device__"):
        return _from_dlpack(value)
    interface = getattr(value, "__cuda_array_interface__", None)
    if interface is not None:
        return _from_interface(interface, value)
    return np.asarray(value) if hasattr(value, "__array_interface__") else None


def _from_dlpack(value: Any) -> npt.NDArray[Any] | DevicePicture:
    kind, number = value.__dlpack_device__()
    if kind in DLPACK_HOST:
        try:
            return np.from_dlpack(value)
        except SHARING_ERRORS as error:
            raise ValueError(f"picture: numpy cannot share its memory ({error})") from error
    if kind not in DLPACK_CUDA:
        raise ValueError(
            f"picture: expected an array in host or CUDA memory, got DLPack device type "
            f"{int(kind)}; copy it to the host"
        )
    try:
        capsule = value.__dlpack__(stream=LEGACY_STREAM)
    except SHARING_ERRORS as error:
        raise ValueError(f"picture: its library does not share its memory ({error})") from error
    tensor = _tensor_in(capsule)
    sides = range(tensor.ndim)
    shape = tuple(tensor.shape[side] for side in sides)
    strides = tuple(tensor.strides[side] for side in sides) if tensor.strides else None
    is_uint8 = (tensor.code, tensor.bits, tensor.lanes) == (DLPACK_UNSIGNED, 8, 1)
    address = (tensor.data or 0) + tensor.byte_offset
    return _device_picture(address, shape, strides, is_uint8, int(number), (value, capsule))


class _Tensor(ctypes.Structure):
    """DLTensor of dlpack.h."""

    _fields_ = (
        ("data", ctypes.c_void_p),
        ("device_type", ctypes.c_int32),
        ("device_id", ctypes.c_int32),
        ("ndim", ctypes.c_int32),
        ("code", ctypes.c_uint8),
        ("bits", ctypes.c_uint8),
        ("lanes", ctypes.c_uint16),
        ("shape", ctypes.POINTER(ctypes.c_int64)),
        ("strides", ctypes.POINTER(ctypes.c_int64)),  # in elements
        ("byte_offset", ctypes.c_uint64),
    )


def _tensor_in(capsule: object) -> Any:
    """What a capsule holds; it stays the owner, and frees the tensor when it goes."""
    get_pointer = ctypes.pythonapi.PyCapsule_GetPointer
    get_pointer.restype = ctypes.c_void_p
    get_pointer.argtypes = [ctypes.py_object, ctypes.c_char_p]
    return _Tensor.from_address(get_pointer(capsule, b"dltensor"))


def _from_interface(interface: dict[str, Any], owner: object) -> DevicePicture:
    _wait_for(interface.get("stream"))
    return _device_picture(
        interface["data"][0],
        tuple(interface["shape"]),
        interface.get("strides"),
        interface["typestr"][1:] == "u1",
        None,
        owner,
    )


def _wait_for(stream: int | None) -> None:
    """Wait for the stream that still writes the array, unless libcn2 itself waits for it."""
    if stream not in (None, LEGACY_STREAM):
        try:
            driver = ctypes.CDLL("libcuda.so.1")
        except OSError as error:
            raise ValueError(
                f"picture: an array in CUDA memory needs NVIDIA's driver ({error})"
            ) from error
        status = driver.cuStreamSynchronize(ctypes.c_void_p(stream))
        if status:
            raise ValueError(f"picture: CUDA error {status} on the stream {stream} of its array")


def _device_picture(
    address: int,
    shape: tuple[int, ...],
    strides: tuple[int, ...] | None,
    is_uint8: bool,
    device: int | None,
    owner: object,
) -> DevicePicture:
    if len(shape) != 3 or shape[2] != 3 or 0 in shape or not is_uint8:
        raise ValueError(
            f"picture: expected an RGB array in CUDA memory, uint8 (H, W, 3) with H, W >= 1, got "
            f"{'uint8' if is_uint8 else 'another type'} {shape}"
        )
    height, width, _ = shape
    pitch, pixel, channel = strides or (3 * width, 3, 1)
    pitch = pitch if height > 1 else 3 * width
    if channel != 1 or (width > 1 and pixel != 3) or pitch < 3 * width:
        raise ValueError(
            f"picture: expected rows of whole RGB pixels in CUDA memory, got strides {strides} of "
            f"shape {shape}; copy it into a contiguous array"
        )
    return DevicePicture(
        pointer=address, shape=(height, width, 3), pitch=pitch, device=device, owner=owner
    )
