"""A build that shows how far it is and can be stopped."""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Protocol, TypeVar

LOG = logging.getLogger(__name__)
Result = TypeVar("Result")
INTERRUPTED = 130  # the exit code, 128 + SIGINT
LOOK_EVERY_S = 0.1  # how long a Ctrl-C may wait to be seen


class Phases(Protocol):
    """What is told of the phases of a build, from any thread."""

    def start(self, name: str, parent: str | None, steps: int) -> None: ...
    def step(self, name: str, done: int) -> None: ...
    def finish(self, name: str) -> None: ...


def make_monitor(trt: Any, phases: Phases, stop: threading.Event) -> Any:
    """TensorRT's progress monitor; the build ends soon after `stop` is set, without an engine."""

    class Monitor(trt.IProgressMonitor):  # type: ignore[misc]
        def __init__(self) -> None:
            trt.IProgressMonitor.__init__(self)

        def phase_start(self, phase_name: str, parent_phase: str | None, num_steps: int) -> None:
            phases.start(phase_name, parent_phase, num_steps)

        def phase_finish(self, phase_name: str) -> None:
            phases.finish(phase_name)

        def step_complete(self, phase_name: str, step: int) -> bool:
            phases.step(phase_name, step + 1)
            return not stop.is_set()

    return Monitor()


class Stopped(Exception):
    """The work has seen that it is to stop."""


def run_stoppable(work: Callable[[threading.Event], Result]) -> Result:
    """Run long foreign code in a thread of its own, so that Ctrl-C is seen while it runs.

    In the main thread it would be raised inside one of the library's calls of Python, and be lost.

    Args:
        work: gets an event that is set when it is to end soon.
    Raises:
        KeyboardInterrupt: Ctrl-C; the work was told, and has ended. A second one ends the process.
    """
    stop = threading.Event()
    results: list[Result] = []
    errors: list[BaseException] = []
    ended = threading.Event()  # and not Thread.join, which takes an interrupted wait for the end

    def run() -> None:
        try:
            results.append(work(stop))
        except BaseException as error:
            errors.append(error)
        finally:
            ended.set()

    thread = threading.Thread(target=run, name="cn2-build", daemon=True)
    try:
        thread.start()
        _wait_for(ended)
    except KeyboardInterrupt:
        stop.set()
        LOG.info("stopping after this step; Ctrl-C again ends at once")
        _wait_or_exit(ended)
        raise
    if errors:
        raise errors[0]
    return results[0]


def _wait_or_exit(ended: threading.Event) -> None:
    """A second Ctrl-C ends the process here: Python's own end could abort in the thread."""
    try:
        _wait_for(ended)
    except KeyboardInterrupt:
        os._exit(INTERRUPTED)


def _wait_for(ended: threading.Event) -> None:
    while not ended.wait(LOOK_EVERY_S):
        pass


class Bars:
    """A bar per open phase, indented below the phase that it is part of."""

    def __init__(self, progress: Any) -> None:
        self._progress = progress
        self._open: dict[str, tuple[Any, int]] = {}  # task and depth of a phase
        self._lock = threading.Lock()

    def start(self, name: str, parent: str | None, steps: int) -> None:
        with self._lock:
            depth = self._open[parent][1] + 1 if parent in self._open else 0
            task = self._progress.add_task("  " * depth + name, total=max(1, steps))
            self._open[name] = task, depth

    def step(self, name: str, done: int) -> None:
        with self._lock:
            if name in self._open:
                self._progress.update(self._open[name][0], completed=done)

    def finish(self, name: str) -> None:
        with self._lock:
            if name in self._open:
                self._progress.remove_task(self._open.pop(name)[0])


@contextmanager
def shown_bars() -> Iterator[Bars]:
    """Bars on stderr, gone when the build is over; nothing where that is no terminal."""
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

    columns = TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn()
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        yield Bars(progress)
