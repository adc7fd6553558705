"""`cn2 doctor` on engines by libcn2: it is tried itself, with an engine that it must refuse."""

from __future__ import annotations

from pathlib import Path

import pytest

from cn2.runtime import probe, probe_tensorrt
from cn2.runtime.errors import BackendUnavailableError, PluginError
from tensorrt_fakes import PLAN, FakeGpu


def test_libcn2_is_tried_with_the_tensorrt_that_works(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    works: set[str] = set()
    tried: list[str] = []

    def negate(runtime: str) -> str:
        if runtime not in works:
            raise BackendUnavailableError(f"{runtime} is not here; get it")
        return "1.2"

    def open_engine(runtime: str) -> str:
        tried.append(runtime)
        raise PluginError("libcn2.so: ABI 7; run make native again")

    for name in ("libcn2.so", "libcn2_tensorrt11.so"):
        (tmp_path / name).touch()
    monkeypatch.setenv("CN2_LIBRARY_DIR", str(tmp_path))
    monkeypatch.setattr(probe, "has_cuda_driver", lambda: True)
    monkeypatch.setattr(probe_tensorrt, "negate_one", negate)
    monkeypatch.setattr(probe_tensorrt, "open_with_libcn2", open_engine)
    answer = probe.probe("native-engine", "cuda")
    assert answer["reason"].startswith("libcn2 was not tried, as Python's bindings build the engin")
    assert answer["reason"].endswith(": tensorrt is not here")
    assert (answer["fix"], tried) == ("get it", [])
    works.add("tensorrt-rtx")
    answer = probe.probe("native-engine", "cuda")
    assert answer == {"works": False, "reason": "libcn2.so: ABI 7", "fix": "run make native again"}
    assert tried == ["tensorrt-rtx"]


OPEN_BY_LIBCN2 = """
from cn2.runtime.probe_tensorrt import check_opened
try:
    check_opened("tensorrt", "10.0.0", {plan!r})
    print("opened")
except Exception as error:
    print(type(error).__name__, error)
"""


@pytest.mark.parametrize(
    ("plan", "environment", "said"),
    [
        # as the probe's engine: open, and no detector
        (PLAN, {"CN2_FAKE_TENSORRT_FAILS": "type"}, "opened"),
        ("torn", {}, "InferenceError TensorRT 10.14.1 cannot load it (fake: no plan"),
        (PLAN, {"CN2_TENSORRT": "/nowhere/lib"}, "BackendUnavailableError "),
        # a detector that was not refused
        (PLAN, {}, "InferenceError libcn2 took an engine that is no detector's"),
    ],
)
def test_libcn2_loads_tensorrt_for_the_probe(
    tmp_path: Path, plan: str, environment: dict[str, str], said: str
) -> None:
    gpu = FakeGpu(tmp_path, 10)
    program = OPEN_BY_LIBCN2.format(plan=plan.encode())
    found = gpu.run(program, **{"CN2_LIBRARY_DIR": str(gpu.libraries), **environment})
    assert found.startswith(said), found
