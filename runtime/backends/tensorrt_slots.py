"""What a call of TensorRT works with: an execution context, a stream, memory on both sides."""

from __future__ import annotations

import math
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from ..errors import InferenceError
from .cuda_runtime import Cuda

INPUTS: dict[str, tuple[Any, int]] = {  # type, dimensions
    "images": (np.uint8, 4),
    "image_sizes": (np.int32, 2),
    "score_threshold": (np.float32, 0),
}
OUTPUTS: dict[str, tuple[Any, int]] = {
    "num_detections": (np.int32, 1),
    "boxes": (np.float32, 3),
    "scores": (np.float32, 2),
    "classes": (np.int32, 2),
}


class Tensor:
    """The memory of one input or output: pinned on the host, and on the device. It only grows."""

    def __init__(self, cuda: Cuda, dtype: npt.DTypeLike) -> None:
        self._cuda, self._dtype = cuda, np.dtype(dtype)
        self._pinned: npt.NDArray[np.uint8] | None = None
        self._capacity = 0
        self.device = 0
        self.host: npt.NDArray[Any] = np.empty(0, self._dtype)

    def reserve(self, shape: tuple[int, ...]) -> None:
        """Make room for a shape; `host` is then an array of it, whose values are any."""
        size = max(1, math.prod(shape)) * self._dtype.itemsize
        if size > self._capacity:
            self.close()
            self.device = self._cuda.allocate(size)
            self._pinned = self._cuda.allocate_pinned(size)
            self._capacity = size
        assert self._pinned is not None
        self.host = self._pinned[: math.prod(shape) * self._dtype.itemsize].view(self._dtype)
        self.host = self.host.reshape(shape)

    def upload(self, stream: int) -> None:
        """Queue the copy to the device."""
        self._cuda.copy(self.device, self.host.ctypes.data, self.host.nbytes, stream)

    def download(self, stream: int) -> None:
        """Queue the copy to the host."""
        self._cuda.copy(self.host.ctypes.data, self.device, self.host.nbytes, stream)

    def close(self) -> None:
        """Give the memory back."""
        if self.device:
            self._cuda.free(self.device)
        if self._pinned is not None:
            self._cuda.free_pinned(self._pinned)
        self.host = np.empty(0, self._dtype)
        self._pinned, self.device, self._capacity = None, 0, 0


@dataclass
class Slot:
    """What one call uses; the next one that it serves finds the memory there."""

    context: Any  # TensorRT's execution context
    stream: int
    inputs: dict[str, Tensor]
    outputs: dict[str, Tensor]
    close: Callable[[], None]
    profile: int = 0  # that the context is set to

    def reserve(self, shape: tuple[int, ...], rows: int) -> None:
        """Make room for images of a shape (B, H, W, 3) and `rows` detections of each."""
        batch = shape[0]
        self.inputs["images"].reserve(shape)
        self.inputs["image_sizes"].reserve((batch, 2))
        self.inputs["score_threshold"].reserve(())
        self.outputs["num_detections"].reserve((batch,))
        self.outputs["boxes"].reserve((batch, rows, 4))
        self.outputs["scores"].reserve((batch, rows))
        self.outputs["classes"].reserve((batch, rows))


def create_slot(create_context: Callable[[], Any], cuda: Cuda, stream: int | None) -> Slot:
    """A slot on a stream, or on one of its own."""
    context = create_context()
    used = cuda.create_stream() if stream is None else stream
    inputs = {name: Tensor(cuda, dtype) for name, (dtype, _) in INPUTS.items()}
    outputs = {name: Tensor(cuda, dtype) for name, (dtype, _) in OUTPUTS.items()}

    def close() -> None:
        cuda.select()
        for tensor in (*inputs.values(), *outputs.values()):
            tensor.close()
        if stream is None:
            cuda.destroy_stream(used)

    return Slot(context, used, inputs, outputs, close)


class Slots:
    """The slots of an engine: a call takes one that is idle, or a new one."""

    def __init__(self, create: Callable[[], Slot]) -> None:
        self._create = create
        self._idle: list[Slot] = []
        self._lock = threading.Lock()
        self._closed = False

    def check_open(self) -> None:
        """Raise ValueError once they are closed."""
        if self._closed:
            raise ValueError("this detector is closed; open the model again")

    @contextmanager
    def borrow(self) -> Iterator[Slot]:
        """A slot for one call. One whose call failed is not used again."""
        with self._lock:
            self.check_open()
            slot = self._idle.pop() if self._idle else None
        slot = slot or self._create()
        try:
            yield slot
        except BaseException:
            with suppress(InferenceError):  # what failed may fail to end, too
                slot.close()
            raise
        with self._lock:
            if not self._closed:
                self._idle.append(slot)
                return
        slot.close()

    def close(self) -> None:
        """End the idle slots; those that are borrowed end when they come back."""
        with self._lock:
            self._closed = True
            idle, self._idle = self._idle, []
        for slot in idle:
            slot.close()
