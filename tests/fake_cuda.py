"""Arrays that claim to lie in CUDA memory; their memory is the host's."""

from __future__ import annotations

from typing import Any

import numpy as np

DLPACK_CUDA = 2


class CudaArray:
    """Offers `__cuda_array_interface__` alone, as PyCUDA's arrays do."""

    def __init__(self, array: np.ndarray, **changes: Any) -> None:
        self._array, self._changes = array, changes

    @property
    def __cuda_array_interface__(self) -> dict[str, Any]:
        array = self._array
        return {
            "shape": array.shape,
            "typestr": array.dtype.str,
            "data": (array.ctypes.data, False),
            "strides": None if array.flags.c_contiguous else array.strides,
            "version": 3,
            **self._changes,
        }


class DlpackArray:
    """Offers DLPack alone; the tensor in its capsule is numpy's."""

    def __init__(self, array: np.ndarray, device: int = 0, kind: int = DLPACK_CUDA) -> None:
        self._array, self._device, self._kind = array, device, kind
        self.streams: list[int | None] = []

    def __dlpack__(self, *, stream: int | None = None, **_: Any) -> object:
        self.streams.append(stream)
        return self._array.__dlpack__()

    def __dlpack_device__(self) -> tuple[int, int]:
        return self._kind, self._device
