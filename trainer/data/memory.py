"""Memory: how much is free, and bytes that several processes share."""

from __future__ import annotations

import contextlib
import fcntl
import mmap
import os
import tempfile
import weakref
from collections.abc import Iterator
from multiprocessing.reduction import DupFd
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

# Limit, use, and the key in memory.stat of what the kernel can drop; control groups 2 and 1.
CGROUP_FILES = (
    ("memory.max", "memory.current", "memory.stat", "inactive_file"),
    (
        "memory/memory.limit_in_bytes",
        "memory/memory.usage_in_bytes",
        "memory/memory.stat",
        "total_inactive_file",
    ),
)


def free_memory(
    meminfo: Path = Path("/proc/meminfo"), cgroup: Path = Path("/sys/fs/cgroup")
) -> int:
    """Bytes that can still be taken, of the machine and of the container around this process."""
    machine = _entry(meminfo, "MemAvailable:")
    if machine is None:  # not Linux: half of the memory is taken to be free
        free = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2
    else:
        free = machine * 1024
    for limit_file, used_file, stat, droppable in CGROUP_FILES:
        limit, used = _number(cgroup / limit_file), _number(cgroup / used_file)
        if limit is not None and used is not None:
            free = min(free, limit - used + (_entry(cgroup / stat, droppable) or 0))
    return max(free, 0)


def _entry(path: Path, key: str) -> int | None:
    """The number after a key at the start of a line."""
    with contextlib.suppress(OSError):
        for line in path.read_text().splitlines():
            name, *values = line.split()
            if name == key:
                return int(values[0])
    return None


def _number(path: Path) -> int | None:
    """The number in a file; None for "max" and where there is no such file."""
    try:
        return int(path.read_text())
    except (OSError, ValueError):
        return None


class SharedBytes:
    """Zeros at first, seen by every process that this object is handed to as it starts.

    They lie in a file without a name: it takes memory only where it was written to, and is gone
    with the last process, however that ends.
    """

    def __init__(self, size: int, fd: int | None = None) -> None:
        if fd is None:
            fd = _nameless_file()
            os.ftruncate(fd, size)
        self._fd, self._size = fd, size
        self._finalizer = weakref.finalize(self, os.close, fd)
        self.values: NDArray[np.uint8] = np.frombuffer(mmap.mmap(fd, size), np.uint8)

    @contextlib.contextmanager
    def locked(self, place: int) -> Iterator[None]:
        """Hold the other processes off one byte, and see all they wrote before they let it go."""
        fcntl.lockf(self._fd, fcntl.LOCK_EX, 1, place)
        try:
            yield
        finally:
            fcntl.lockf(self._fd, fcntl.LOCK_UN, 1, place)

    def __reduce__(self) -> tuple[Any, ...]:
        return _receive, (self._size, DupFd(self._fd))


def _receive(size: int, sent: Any) -> SharedBytes:
    return SharedBytes(size, sent.detach())


def _nameless_file() -> int:
    if hasattr(os, "memfd_create"):
        return os.memfd_create("cn2-pictures")
    with tempfile.TemporaryFile() as file:
        return os.dup(file.fileno())
