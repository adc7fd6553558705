"""What the tests of benchmarks/gpu.py share."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from benchmark_scripts import imported

NAMES = (
    *("gpu", "gpu_plan", "gpu_steps", "gpu_step", "gpu_job", "gpu_measure", "gpu_verdicts"),
    *("gpu_capture",),
    *("gpu_export", "gpu_torch", "gpu_onnxruntime", "gpu_libcn2", "gpu_tensorrt", "gpu_kernels"),
)


@pytest.fixture(scope="module")
def scripts() -> Iterator[dict[str, ModuleType]]:
    with imported(*NAMES) as modules:
        yield modules


def make_job(scripts: dict[str, ModuleType], folder: Path, step: str = "torch") -> Any:
    return scripts["gpu_job"].Job(step=step, preset="nano", folder=folder)
