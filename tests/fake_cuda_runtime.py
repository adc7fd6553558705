"""cuda.bindings.runtime without a GPU: device memory is the host's, streams run when waited for.

Nothing is done before somebody waits for a stream, so what reads results too early finds none.
"""

from __future__ import annotations

import ctypes
from collections import defaultdict
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

LEGACY_STREAM = 1
INVALID_VALUE = 1


class FakeCudaRuntime:
    """The functions that the backends call, each a tuple of the status and what it gives."""

    cudaMemcpyKind = SimpleNamespace(cudaMemcpyDefault=4)

    def __init__(self, devices: int = 2) -> None:
        self.devices = devices
        self.status = 0  # of cudaGetDeviceCount
        self.failing: dict[str, int] = {}  # name -> status
        self.device_memory: dict[int, Any] = {}
        self.pinned: dict[int, Any] = {}
        self.queues: dict[int, list[Callable[[], None]]] = defaultdict(list)
        self.streams: set[int] = set()
        self.selected: list[int] = []
        self.calls: list[str] = []
        self.copied = 0  # bytes, in either direction
        self._next = 100

    def __getattr__(self, name: str) -> Callable[..., tuple[Any, ...]]:
        if not name.startswith("cuda"):
            raise AttributeError(name)
        function = getattr(self, f"_{name.removeprefix('cuda')}")

        def call(*arguments: Any) -> tuple[Any, ...]:
            self.calls.append(name)
            if self.failing.get(name):
                return (self.failing[name], None)
            result = function(*arguments)
            return result if isinstance(result, tuple) else (0,)

        return call

    @property
    def live(self) -> int:
        """Pieces of memory and streams that are not given back."""
        return len(self.device_memory) + len(self.pinned) + len(self.streams)

    def queue(self, stream: int, work: Callable[[], None]) -> None:
        """Do something once the stream is waited for."""
        assert stream == LEGACY_STREAM or stream in self.streams, f"no stream {stream}"
        self.queues[stream].append(work)

    def is_on_device(self, address: int, size: int) -> bool:
        """Whether so many bytes lie within one piece of device memory."""
        return any(
            start <= address and address + size <= start + len(memory)
            for start, memory in list(self.device_memory.items())
        )

    def _GetDeviceCount(self) -> tuple[Any, ...]:
        return self.status, 0 if self.status else self.devices

    def _GetErrorString(self, status: int) -> tuple[Any, ...]:
        return 0, f"fake error {status}".encode()

    def _SetDevice(self, number: int) -> None:
        self.selected.append(number)

    def _Malloc(self, size: int) -> tuple[Any, ...]:
        return 0, self._keep(self.device_memory, size)

    def _MallocHost(self, size: int) -> tuple[Any, ...]:
        return 0, self._keep(self.pinned, size)

    def _Free(self, address: int) -> None:
        del self.device_memory[address]

    def _FreeHost(self, address: int) -> None:
        del self.pinned[address]

    def _StreamCreate(self) -> tuple[Any, ...]:
        self._next += 1
        self.streams.add(self._next)
        return 0, self._next

    def _StreamDestroy(self, stream: int) -> None:
        self.streams.remove(stream)

    def _StreamSynchronize(self, stream: int) -> None:
        work, self.queues[stream] = self.queues[stream], []
        for one in work:
            one()

    def _EventCreateWithFlags(self, flags: int) -> tuple[Any, ...]:
        assert flags == 2
        self._next += 1
        return 0, self._next

    def _EventDestroy(self, event: int) -> None:
        pass

    def _EventRecord(self, event: int, stream: int) -> None:
        self.calls.append(f"record {event} on {stream}")

    def _StreamWaitEvent(self, stream: int, event: int, flags: int) -> None:
        self.calls.append(f"{stream} waits for {event}")
        self.queue(stream, lambda: self._StreamSynchronize(LEGACY_STREAM))

    def _MemcpyAsync(self, to: int, source: int, size: int, kind: int, stream: int) -> None:
        self.copied += size
        self.queue(stream, lambda: ctypes.memmove(to, source, size) and None)

    def _Memcpy2DAsync(
        self,
        to: int,
        to_pitch: int,
        source: int,
        pitch: int,
        width: int,
        rows: int,
        kind: int,
        stream: int,
    ) -> tuple[Any, ...] | None:
        if width > min(to_pitch, pitch):
            return INVALID_VALUE, None
        for row in range(rows):
            self._MemcpyAsync(to + row * to_pitch, source + row * pitch, width, kind, stream)
        return None

    def _keep(self, memory: dict[int, Any], size: int) -> int:
        """Memory that begins as TensorRT wants it, and holds nothing sensible."""
        block = (ctypes.c_uint8 * (size + 256))(*([0xA5] * min(size, 64)))
        start = -(-ctypes.addressof(block) // 256) * 256
        memory[start] = _Block(block, size)
        return start


class _Block:
    def __init__(self, block: Any, size: int) -> None:
        self.block, self._size = block, size

    def __len__(self) -> int:
        return self._size
