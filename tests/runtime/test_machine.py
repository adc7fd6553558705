"""Facts about the machine: present, plausible, and of this process alone."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest

from cn2 import __version__
from cn2.runtime import machine

PEAK = "from cn2.runtime.machine import peak_rss_mb; print(peak_rss_mb())"


def test_peak_memory_is_of_this_process_alone() -> None:
    """A child of a process of 300 MB is small all the same, and a peak stays after it is freed."""
    block = np.ones(300_000_000, np.uint8)
    child = subprocess.run([sys.executable, "-c", PEAK], capture_output=True, text=True, check=True)
    assert 5 < float(child.stdout) < 200
    del block
    peak = machine.peak_rss_mb()
    assert peak is not None
    assert peak > 300


def test_cores_and_memory() -> None:
    assert machine.cpu_cores() >= 1
    assert machine.cpu_name()
    memory = machine.memory_mb()
    assert memory is None or memory > 500


def test_versions_are_of_what_is_installed() -> None:
    found = machine.versions("numpy", "no-such-package")
    assert found == {
        "python": ".".join(map(str, sys.version_info[:3])),
        "cn2": __version__,
        "numpy": np.__version__,
    }


def test_cpu_name_without_proc(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine.Path, "exists", lambda _: False)
    monkeypatch.setattr(machine.platform, "processor", lambda: "")
    monkeypatch.setattr(machine.platform, "machine", lambda: "x86_64")
    assert machine.cpu_name() == "x86_64"
