"""The driver for tests does work late, and in order: what other tests rely on."""

from __future__ import annotations

import ctypes
import subprocess
import sys
from ctypes import byref, c_float, c_long, c_size_t, c_ulonglong, c_void_p
from typing import Any

import numpy as np
import pytest

from tensorrt_fakes import BUILD, needed

LIBRARY = BUILD / "fake_cuda" / "libcuda.so.1"
BYTES = 16


class Driver:
    """The driver with a context current, and what the tests make of it."""

    def __init__(self) -> None:
        self.library = ctypes.CDLL(str(needed(LIBRARY)))
        self.library.fake_cuda_waiting.restype = c_long
        self.call("cuCtxPushCurrent_v2", c_void_p(1))

    def call(self, name: str, *arguments: Any) -> None:
        assert getattr(self.library, name)(*arguments) == 0, name

    def made(self, name: str, flags: int) -> c_void_p:
        handle = c_void_p()
        self.call(name, byref(handle), flags)
        return handle

    def stream(self) -> c_void_p:
        return self.made("cuStreamCreate", 1)

    def event(self, stream: c_void_p) -> c_void_p:
        """One that is recorded on a stream now."""
        handle = self.made("cuEventCreate", 0)
        self.call("cuEventRecord", handle, stream)
        return handle

    def paint(self, target: np.ndarray, value: int, stream: c_void_p) -> None:
        self.call(
            "cuMemsetD8Async", c_ulonglong(target.ctypes.data), value, c_size_t(BYTES), stream
        )

    def copy(self, target: np.ndarray, source: np.ndarray, stream: c_void_p) -> None:
        where = (c_ulonglong(target.ctypes.data), c_void_p(source.ctypes.data))
        self.call("cuMemcpyHtoDAsync_v2", *where, c_size_t(BYTES), stream)


@pytest.fixture
def driver(monkeypatch: pytest.MonkeyPatch) -> Driver:
    monkeypatch.delenv("CN2_FAKE_CUDA_ORDER", raising=False)
    return Driver()


def row(value: int) -> np.ndarray:
    return np.full(BYTES, value, np.uint8)


def test_work_is_done_when_the_host_waits_for_it(driver: Driver) -> None:
    """What it reads is read then."""
    stream, source, target = driver.stream(), row(1), row(0)
    driver.copy(target, source, stream)
    source[:] = 2
    assert driver.library.fake_cuda_waiting() == 1
    assert target[0] == 0
    driver.call("cuStreamSynchronize", stream)
    assert driver.library.fake_cuda_waiting() == 0
    assert target[0] == 2


def test_an_event_is_a_place_in_its_stream(driver: Driver) -> None:
    stream, one, two = driver.stream(), row(0), row(0)
    driver.paint(one, 1, stream)
    event = driver.event(stream)
    driver.paint(two, 2, stream)
    late, elapsed = driver.event(stream), c_float()
    assert driver.library.cuEventElapsedTime(byref(elapsed), event, late) == 600  # not ready
    driver.call("cuEventSynchronize", event)
    assert (one[0], two[0]) == (1, 0)
    driver.call("cuEventSynchronize", late)
    driver.call("cuEventElapsedTime", byref(elapsed), event, late)
    assert (two[0], elapsed.value) == (2, 1.0)


def test_streams_are_in_order_where_one_waits_for_the_other(driver: Driver) -> None:
    first, second, source, target = driver.stream(), driver.stream(), row(1), row(0)
    driver.paint(source, 2, first)
    event = driver.event(first)
    driver.paint(source, 3, first)
    driver.call("cuEventRecord", event, first)  # the wait above keeps the place that it saw
    driver.copy(target, source, second)
    driver.call("cuStreamSynchronize", second)
    assert target[0] == 1  # nothing has waited for the first stream
    driver.call("cuStreamWaitEvent", second, event, 0)
    driver.copy(target, source, second)
    driver.call("cuEventRecord", event, second)
    driver.call("cuEventSynchronize", event)
    assert target[0] == 3


@pytest.mark.parametrize(("order", "seen"), [("early", {2}), ("late", {1}), ("drawn", {1, 2})])
def test_orders(
    driver: Driver, monkeypatch: pytest.MonkeyPatch, order: str, seen: set[int]
) -> None:
    """Two streams that do not wait: what the second reads of what the first writes."""
    monkeypatch.setenv("CN2_FAKE_CUDA_ORDER", order if order != "drawn" else "5")
    found = set()
    for _ in range(50):
        first, second, source, target = driver.stream(), driver.stream(), row(1), row(0)
        driver.paint(source, 2, first)
        driver.copy(target, source, second)
        driver.call("cuStreamSynchronize", second)
        found.add(int(target[0]))
        driver.call("cuStreamSynchronize", first)
    assert found == seen


def test_work_on_freed_memory_ends_the_process() -> None:
    program = (
        "import ctypes; from ctypes import *\n"
        f"cuda = ctypes.CDLL({str(needed(LIBRARY))!r}); cuda.cuCtxPushCurrent_v2(c_void_p(1))\n"
        "block = c_ulonglong(); cuda.cuMemAlloc_v2(byref(block), c_size_t(64))\n"
        "cuda.cuMemsetD8Async(block, 1, c_size_t(64), None); cuda.cuMemFree_v2(block)\n"
        "cuda.cuStreamSynchronize(None)\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.returncode != 0
    assert done.stderr == "fake_libcuda: work on memory that was freed before it\n"
