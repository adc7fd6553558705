"""One CUDA device through cuda-python: its memory, streams and copies; no driver, one line."""

from __future__ import annotations

import ctypes
import importlib
from typing import Any

import numpy as np
import numpy.typing as npt

from ..arrays import LEGACY_STREAM
from ..errors import BackendUnavailableError, InferenceError
from ..machine import has_cuda_driver

SUCCESS, OUT_OF_MEMORY = 0, 2  # cudaError_t
NO_TIMING = 2  # cudaEventDisableTiming
FIX = "pip install 'cn2[tensorrt-rtx]', or 'cn2[tensorrt]'"


class Cuda:
    """A device. The device that is selected is the thread's, so `select` comes before other calls.

    Sizes are bytes; addresses and streams are numbers, as other libraries hand them over.
    """

    def __init__(self, number: int) -> None:
        """Find a device.

        Args:
            number: CUDA's number of it, from 0.
        Raises:
            BackendUnavailableError: cuda-bindings is not installed; no driver; no such device.
        """
        self._runtime = import_cuda()
        self.number = number
        if not has_cuda_driver():
            raise BackendUnavailableError(
                "an engine needs an NVIDIA GPU and its driver, found no libcuda.so.1; "
                "run the .onnx file on this machine"
            )
        status, count = self._runtime.cudaGetDeviceCount()
        if status != SUCCESS or not count:
            raise BackendUnavailableError(
                f"an engine needs an NVIDIA GPU, found none ({self._say(status)}); nvidia-smi "
                f"tells whether the driver sees one"
            )
        if number >= count:
            raise BackendUnavailableError(
                f"device 'cuda:{number}': expected cuda:0 to cuda:{count - 1}, which are here"
            )

    def select(self) -> None:
        """Make it this thread's device."""
        self._call("cudaSetDevice", self.number)

    def allocate(self, size: int) -> int:
        """Device memory; MemoryError where there is not enough."""
        return int(self._call("cudaMalloc", size))

    def free(self, address: int) -> None:
        """Give device memory back."""
        self._runtime.cudaFree(address)

    def allocate_pinned(self, size: int) -> npt.NDArray[np.uint8]:
        """Host memory that copies run from without a detour; `free_pinned` ends it."""
        address = int(self._call("cudaMallocHost", size))
        return np.ctypeslib.as_array((ctypes.c_uint8 * size).from_address(address))

    def free_pinned(self, memory: npt.NDArray[np.uint8]) -> None:
        """Give host memory of `allocate_pinned` back."""
        self._runtime.cudaFreeHost(memory.ctypes.data)

    def create_stream(self) -> int:
        """A new stream; `destroy_stream` ends it."""
        return int(self._call("cudaStreamCreate"))

    def destroy_stream(self, stream: int) -> None:
        """End a stream of `create_stream`."""
        self._runtime.cudaStreamDestroy(stream)

    def copy(self, to: int, source: int, size: int, stream: int) -> None:
        """Queue a copy between any two places."""
        kind = self._runtime.cudaMemcpyKind.cudaMemcpyDefault
        self._call("cudaMemcpyAsync", to, source, size, kind, stream)

    def copy_rows(
        self, to: int, to_pitch: int, source: int, pitch: int, size: tuple[int, int], stream: int
    ) -> None:
        """Queue a copy of so many bytes of so many rows: `size` is (rows, bytes of each)."""
        rows, width = size
        kind = self._runtime.cudaMemcpyKind.cudaMemcpyDefault
        self._call("cudaMemcpy2DAsync", to, to_pitch, source, pitch, width, rows, kind, stream)

    def wait_for_default_stream(self, stream: int) -> None:
        """Let what is queued on a stream from now on wait for CUDA's default stream."""
        event = self._call("cudaEventCreateWithFlags", NO_TIMING)
        try:
            self._call("cudaEventRecord", event, LEGACY_STREAM)
            self._call("cudaStreamWaitEvent", stream, event, 0)
        finally:
            self._runtime.cudaEventDestroy(event)  # once it has been waited for

    def synchronize(self, stream: int) -> None:
        """Wait until all that is queued on a stream is done."""
        self._call("cudaStreamSynchronize", stream)

    def _call(self, name: str, *arguments: Any) -> Any:
        """Call a function; what it returns beside its status, if anything."""
        status, *values = getattr(self._runtime, name)(*arguments)
        if status == OUT_OF_MEMORY:
            raise MemoryError(f"cuda:{self.number}: not enough memory for {name}{arguments}")
        if status != SUCCESS:
            raise InferenceError(f"cuda:{self.number}: {name} failed ({self._say(status)})")
        return values[0] if values else None

    def _say(self, status: Any) -> str:
        _, text = self._runtime.cudaGetErrorString(status)
        return f"CUDA error {int(status)}: {text.decode('utf-8', 'replace')}"


def import_cuda() -> Any:
    """cuda-python's module of the CUDA runtime.

    Raises:
        BackendUnavailableError: it is not installed.
    """
    try:
        return importlib.import_module("cuda.bindings.runtime")
    except ImportError as error:
        raise BackendUnavailableError(f"cuda-bindings is not installed ({error}); {FIX}") from error
