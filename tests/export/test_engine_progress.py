"""A build that is shown and can be stopped: bars, the monitor, Ctrl-C."""

from __future__ import annotations

import signal
import subprocess
import sys
import threading
import time
from io import StringIO
from typing import Any

import pytest
from onnx import helper
from rich.console import Console
from rich.progress import Progress

from cn2.export.engine.config import make_config
from cn2.export.engine.options import BuildOptions
from cn2.export.engine.progress import Bars, make_monitor, run_stoppable
from engine_networks import PROFILE, rtx_without_plugins, small_network, weights

# Work that does not end by itself and does not look at `stop`, until a second Ctrl-C.
STUBBORN = """
import time
from cn2.export.engine.progress import run_stoppable
def work(stop):
    print("begun", flush=True)
    stop.wait()
    print("told", flush=True)
    time.sleep(3600)
run_stoppable(work)
"""


class Told:
    """Phases as a monitor tells them."""

    def __init__(self, stop: threading.Event | None = None) -> None:
        self.lines: list[tuple[Any, ...]] = []
        self.stop = stop

    def start(self, name: str, parent: str | None, steps: int) -> None:
        self.lines.append(("start", name, parent, steps))

    def step(self, name: str, done: int) -> None:
        self.lines.append(("step", name, done))
        if self.stop is not None:
            self.stop.set()

    def finish(self, name: str) -> None:
        self.lines.append(("finish", name))


def build(told: Told, stop: threading.Event) -> Any:
    library = rtx_without_plugins()
    node = helper.make_node("Conv", ["x", "w"], ["y"], pads=[1, 1, 1, 1], name="the_y")
    network = small_network([node], "y", w=weights(8, 3, 3, 3))
    options = BuildOptions(runtime="tensorrt-rtx", profile=PROFILE, targets=("sm_86",))
    config = make_config(library, network, options)
    monitor = make_monitor(library.module, told, stop)
    config.progress_monitor = monitor
    return network.builder.build_serialized_network(network.definition, config)


def test_a_build_tells_its_phases() -> None:
    told = Told()
    assert build(told, threading.Event()) is not None
    started = [line[1] for line in told.lines if line[0] == "start"]
    assert sorted(started) == sorted(line[1] for line in told.lines if line[0] == "finish")
    first = told.lines[0]
    assert (first[0], first[2]) == ("start", None)
    assert all(line[2] in started for line in told.lines[1:] if line[0] == "start")
    steps = [line[2] for line in told.lines if line[:2] == ("step", first[1])]
    assert steps == sorted(set(steps))
    assert steps[-1] <= first[3]


def test_a_build_ends_at_the_step_after_it_is_stopped() -> None:
    stop = threading.Event()
    told = Told(stop)
    assert build(told, stop) is None
    assert len([line for line in told.lines if line[0] == "step"]) == 1


def test_a_bar_per_open_phase() -> None:
    progress = Progress(console=Console(file=StringIO()))
    bars = Bars(progress)
    bars.start("whole", None, 4)
    bars.start("part", "whole", 0)
    bars.step("whole", 3)
    bars.step("never begun", 1)
    assert [task.description for task in progress.tasks] == ["whole", "  part"]
    assert [(task.completed, task.total) for task in progress.tasks] == [(3, 4), (0, 1)]
    bars.finish("part")
    bars.finish("never begun")
    assert [task.description for task in progress.tasks] == ["whole"]


def test_results_and_errors_come_back() -> None:
    assert run_stoppable(lambda stop: stop.is_set()) is False

    def fail(stop: threading.Event) -> None:
        raise ValueError("from the thread")

    with pytest.raises(ValueError, match="from the thread"):
        run_stoppable(fail)


def test_ctrl_c_waits_for_work_that_was_told() -> None:
    ended = []

    def work(stop: threading.Event) -> None:
        signal.raise_signal(signal.SIGINT)  # as the terminal does; Python's handler runs in main
        assert stop.wait(timeout=60)
        time.sleep(0.2)
        ended.append(True)

    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with pytest.raises(KeyboardInterrupt):
            run_stoppable(work)
    finally:
        signal.signal(signal.SIGINT, before)
    assert ended == [True]


def test_a_second_ctrl_c_ends_the_process() -> None:
    with subprocess.Popen(
        [sys.executable, "-c", STUBBORN],
        stdout=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    ) as process:
        assert process.stdout is not None
        for line in ("begun\n", "told\n"):
            assert process.stdout.readline() == line
            process.send_signal(signal.SIGINT)
        assert process.wait(timeout=60) == 130
