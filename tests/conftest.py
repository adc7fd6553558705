"""Fixtures shared by all tests: the shared data, and random state put back after each test."""

from __future__ import annotations

import os
import random
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

# Read when torch loads: OpenMP threads that spin while they wait slow busy cores down tenfold.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of real pictures and conformance fixtures ($CN2_SHARED, default ../shared)."""
    folder = Path(os.environ.get("CN2_SHARED", ROOT.parent / "shared"))
    if not (folder / "conformance").is_dir():
        message = f"shared data: expected {folder}/conformance, found none; set CN2_SHARED"
        if os.environ.get("CI"):
            pytest.fail(message)
        pytest.skip(message)
    return folder


@pytest.fixture(scope="session")
def quick_export() -> Iterator[None]:
    """Exports share what torch else builds anew for each; asked for, as it imports torch."""
    from onnx_registry import share_registry

    with pytest.MonkeyPatch.context() as patch:
        share_registry(patch)
        yield


@pytest.fixture(scope="session")
def nano_onnx(tmp_path_factory: pytest.TempPathFactory, quick_export: None) -> Path:
    """The bundled trained checkpoint as an ONNX file, exported once."""
    from cn2.export.describe import open_checkpoint
    from cn2.export.onnx_file import export_onnx
    from cn2.runtime.demo import CHECKPOINT

    model, config, origin = open_checkpoint(CHECKPOINT)
    path = tmp_path_factory.mktemp("models") / "nano.onnx"
    export_onnx(model, config, path, origin=origin)
    return path


@pytest.fixture(scope="session")
def operator_library() -> Path:
    """libcn2_ort_ops; without it a skip, or a failure where it is required."""
    from native_libraries import built_library

    return built_library("cn2_ort_ops")


@pytest.fixture(autouse=True)
def _same_random_state() -> Iterator[None]:
    """No test leaks its seed into the next one."""
    state = random.getstate(), np.random.get_state()
    random.seed(0)
    np.random.seed(0)
    yield
    random.setstate(state[0])
    np.random.set_state(state[1])


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Skip what needs a GPU where torch sees none; with REQUIRE_CUDA=1 let it fail instead."""
    if item.get_closest_marker("needs_cuda") is None or os.environ.get("REQUIRE_CUDA") == "1":
        return
    import torch  # here: most tests of the runtime do without it

    if not torch.cuda.is_available():
        pytest.skip("torch sees no GPU")
