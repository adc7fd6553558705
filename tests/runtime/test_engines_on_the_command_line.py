"""Engines in `cn2 info`, `detect`, `eval`, `bench`, `doctor`, on fakes of TensorRT and CUDA."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from cn2.runtime import doctor, probe, probe_tensorrt
from cn2.runtime.backends import cuda_runtime, opening, tensorrt_library
from cn2.runtime.engine_file import EngineProfile
from cn2.runtime.errors import BackendUnavailableError, InferenceError
from command_line import cn2
from fake_cuda_runtime import FakeCudaRuntime
from fake_tensorrt import ANY, FakeTensorRT, write_engine
from native_libraries import needs_library

Capture = pytest.CaptureFixture[str]


@pytest.fixture(autouse=True)
def _no_probes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "run_probe", lambda name, device: {"works": name == "tensorrt-rtx"})


@pytest.fixture
def trt(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeTensorRT]:
    """Fakes in place of TensorRT-RTX and cuda-python."""
    module = FakeTensorRT(FakeCudaRuntime())
    monkeypatch.setitem(sys.modules, "cuda.bindings.runtime", module.cuda)  # type: ignore[arg-type]
    monkeypatch.setitem(sys.modules, "tensorrt_rtx", module)  # type: ignore[arg-type]
    monkeypatch.setattr(cuda_runtime, "has_cuda_driver", lambda: True)
    monkeypatch.setattr(probe, "has_cuda_driver", lambda: True)
    tensorrt_library.open_tensorrt.cache_clear()
    yield module
    tensorrt_library.open_tensorrt.cache_clear()


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return write_engine(tmp_path / "m.engine")


@pytest.fixture
def picture(tmp_path: Path) -> Path:
    pixels = np.zeros((64, 96, 3), np.uint8)
    pixels[10:40, 20:60, 1] = 230
    path = tmp_path / "pictures" / "a.png"
    path.parent.mkdir()
    Image.fromarray(pixels).save(path)
    return path


def test_detect(trt: FakeTensorRT, model: Path, picture: Path, capfd: Capture) -> None:
    ran = cn2(capfd, "detect", model, picture, "--backend", "tensorrt", "--json", "-")
    assert ran.code == 0, ran.err
    found = ran.json()
    assert (found["model"]["backend"], found["model"]["device"]) == ("tensorrt", "cuda:0")
    (one,) = found["images"][0]["detections"]
    assert (one["box"], one["label"]) == ([20, 10, 60, 40], "green")
    assert trt.cuda.live == 0


def test_eval(
    trt: FakeTensorRT, model: Path, picture: Path, tmp_path: Path, capfd: Capture
) -> None:
    truth = {
        "images": [{"id": 1, "file_name": "a.png", "width": 96, "height": 64}],
        "categories": [{"id": n, "name": c} for n, c in ((1, "red"), (3, "green"), (7, "blue"))],
        "annotations": [
            {"id": 1, "image_id": 1, "category_id": 3, "bbox": [20, 10, 40, 30], "area": 1200}
            | {"iscrowd": 0}
        ],
    }
    (tmp_path / "a.json").write_text(json.dumps(truth))
    words = [model, "--annotations", tmp_path / "a.json", "--images", picture.parent]
    ran = cn2(capfd, "eval", *words, "--backend", "tensorrt", "--json", "-")
    assert ran.code == 0, ran.err
    assert ran.json()["AP"] == pytest.approx(1)


def test_bench(trt: FakeTensorRT, model: Path, picture: Path, capfd: Capture) -> None:
    words = ["--images", picture, "--runs", "2", "--warmup", "1", "--batch", "1,2"]
    ran = cn2(capfd, "bench", model, *words, "--backend", "tensorrt", "--json", "-")
    assert ran.code == 0, ran.err
    rows = ran.json()
    assert [(row["backend"], row["batch"]) for row in rows] == [("tensorrt", 1), ("tensorrt", 2)]
    assert rows[0]["latency_ms"]["preprocess"]["median"] > 0


def test_info(tmp_path: Path, capfd: Capture) -> None:
    fixed = EngineProfile(batch=(2, 2, 2), height=(64, 64, 64), width=(96, 96, 96))
    path = write_engine(tmp_path / "m.engine", profiles=(ANY, fixed), device="NVIDIA T4")
    found = cn2(capfd, "info", path, "--json", "-").json()
    assert set(found) == {"file", "size_bytes", "manifest", "engine", "runs_here"}
    assert found["manifest"]["class_names"] == ["red", "green", "blue"]
    assert found["engine"]["targets"] == ["sm_75", "sm_86"]
    assert [(row["library"], row["works"]) for row in found["runs_here"]] == [
        (None, False),
        ("tensorrt", False),
        ("tensorrt-rtx", True),
    ]
    ran = cn2(capfd, "info", path)
    named = [line for line in ran.out.splitlines() if "  " in line and not line.startswith(" ")]
    facts = dict(line.split(maxsplit=1) for line in named)
    assert "built by    tensorrt-rtx 9.8.7.6" in ran.out
    assert "runs on     sm_75, sm_86 (built on NVIDIA T4)" in ran.out
    assert "batch 1 to 8, canvas 32x32 to 640x640; fastest at 4 of 64x96" in ran.out
    assert "batch 2, canvas 64x96" in ran.out
    assert facts["sha256"] == found["engine"]["sha256"]
    assert max(map(len, ran.out.splitlines())) <= 80


@pytest.mark.parametrize(
    ("files", "backend"),
    [
        ((), "tensorrt"),
        (("cn2",), "tensorrt"),
        (("cn2_tensorrt11",), "tensorrt"),
        (("cn2", "cn2_tensorrt11"), "native"),
        (("cn2", "cn2_tensorrt10"), "native"),
    ],
)
def test_auto_is_native_where_it_reads_engines(
    files: tuple[str, ...],
    backend: str,
    model: Path,
    trt: FakeTensorRT,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("CN2_LIBRARY_DIR", str(tmp_path))
    for name in files:
        (tmp_path / f"lib{name}.so").write_text("no library")
    try:
        opened = opening.open_backend(model).name
    except Exception as error:  # the fake libcn2 does not load
        opened = "native" if "libcn2.so: cannot be loaded" in str(error) else str(error)
    assert opened == backend


def test_a_machine_without_a_driver(
    model: Path, picture: Path, capfd: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cuda_runtime, "has_cuda_driver", lambda: False)
    monkeypatch.setattr(opening, "reads_engines", lambda: False)
    ran = cn2(capfd, "detect", model, picture)
    assert ran.code == 2
    (line,) = ran.errors
    assert "needs an NVIDIA GPU and its driver" in line or "cannot be imported" in line


@pytest.mark.parametrize("name", ["native-engine", "tensorrt", "tensorrt-rtx"])
def test_probes_without_a_driver(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(probe, "has_cuda_driver", lambda: False)
    answer = probe.probe(name, "cuda")
    assert (answer["works"], answer["reason"]) == (False, probe.NO_DRIVER[0])


def test_the_probe_of_a_runtime_that_is_not_installed(
    trt: FakeTensorRT, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "tensorrt", None)
    answer = probe.probe("tensorrt", "cuda")
    assert answer["reason"].startswith("tensorrt cannot be imported (")
    assert answer["fix"] == "pip install 'cn2[tensorrt]'"


@pytest.mark.parametrize(
    ("error", "fix"),
    [
        (BackendUnavailableError("no GPU; buy one"), "buy one"),
        (InferenceError("-(1) was 3"), "install its package again, or a driver that fits it"),
    ],
)
def test_the_probe_of_a_runtime_that_fails(
    error: Exception, fix: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(runtime: str) -> str:
        raise error

    monkeypatch.setattr(probe, "has_cuda_driver", lambda: True)
    monkeypatch.setattr(probe_tensorrt, "negate_one", fail)
    answer = probe.probe("tensorrt-rtx", "cuda")
    assert (answer["works"], answer["fix"]) == (False, fix)
    assert answer["reason"] in str(error)
    monkeypatch.setattr(probe_tensorrt, "negate_one", lambda runtime: "1.2")
    assert probe.probe("tensorrt-rtx", "cuda") == {"works": True, "version": "1.2"}


def test_the_probe_of_a_libcn2_without_tensorrt(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(probe, "has_cuda_driver", lambda: True)
    monkeypatch.setattr(probe_tensorrt, "negate_one", lambda runtime: "1.2")
    monkeypatch.setenv("CN2_LIBRARY_DIR", str(tmp_path))
    assert probe.probe("native-engine", "cuda")["reason"] == "libcn2 is not here"
    (tmp_path / "libcn2.so").touch()
    answer = probe.probe("native-engine", "cuda")
    assert answer["reason"] == "libcn2 was built without TensorRT's headers"
    (tmp_path / "libcn2_tensorrt11.so").touch()
    monkeypatch.setattr(probe_tensorrt, "open_with_libcn2", lambda runtime: "1.3")
    assert probe.probe("native-engine", "cuda") == {"works": True, "version": "1.3"}


def test_a_runtime_without_a_builder_is_started(trt: FakeTensorRT) -> None:
    """The fake is such a one."""
    assert probe_tensorrt.negate_one("tensorrt-rtx") == trt.__version__
    assert trt.logger is not None
    trt.cuda.devices = 0
    with pytest.raises(BackendUnavailableError, match="found none"):
        probe_tensorrt.negate_one("tensorrt-rtx")


class Negation:
    """An engine of y = -x, and its context."""

    def __init__(self, cuda: FakeCudaRuntime, factor: float) -> None:
        self.cuda, self.factor, self.addresses = cuda, factor, {"": 0}

    def create_execution_context(self) -> Negation:
        return self

    def set_tensor_address(self, name: str, address: int) -> bool:
        self.addresses[name] = address
        return True

    def execute_async_v3(self, stream: int) -> bool:
        import ctypes

        def run() -> None:
            x, y = (ctypes.c_float.from_address(self.addresses[name]) for name in "xy")
            y.value = self.factor * x.value

        self.cuda.queue(stream, run)
        return True


@pytest.mark.parametrize(("factor", "works"), [(-1.0, True), (2.0, False)])
def test_the_smallest_engine_is_run(
    trt: Any, monkeypatch: pytest.MonkeyPatch, factor: float, works: bool
) -> None:
    from types import SimpleNamespace

    engine = Negation(trt.cuda, factor)
    trt.Builder = object
    trt.Runtime = lambda log: SimpleNamespace(deserialize_cuda_engine=lambda plan: engine)
    monkeypatch.setattr(probe_tensorrt, "build_negation", lambda library: b"plan")
    if works:
        assert probe_tensorrt.negate_one("tensorrt-rtx") == trt.__version__
    else:
        with pytest.raises(InferenceError, match=r"does not run an engine \(-\(1\) was 2\.0\)"):
            probe_tensorrt.negate_one("tensorrt-rtx")
    assert trt.cuda.live == 0


@needs_library("cn2")
def test_native_hands_engines_to_libcn2(model: Path) -> None:
    """Which reads the JSON itself, hash first."""
    from cn2.runtime.errors import ModelFormatError

    model.write_bytes(b"torn")
    with pytest.raises(ModelFormatError, match=r"m\.engine"):
        opening.open_backend(model, "native")
