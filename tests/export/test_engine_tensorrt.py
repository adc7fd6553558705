"""`cn2 build --runtime tensorrt`: what full TensorRT is asked for, faked over TensorRT-RTX."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from cn2.export.engine import gpu as gpu_module
from cn2.export.engine.gpu import current_gpu
from cn2.export.engine.library import check_version, installed_runtime, open_library
from cn2.runtime.backends.tensorrt_library import open_tensorrt
from cn2.runtime.engine_file import read_engine
from cn2.runtime.errors import BackendUnavailableError
from command_line import cn2
from exported import Exported
from fake_tensorrt_builder import SOUND_CACHE, fake_tensorrt
from rtx_networks import rtx_with_plugins

Capture = pytest.CaptureFixture[str]
GPU = "NVIDIA GeForce RTX 4090"


@pytest.fixture(params=["10.14.1", "11.1.0"])
def tensorrt(
    request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> Iterator[Any]:
    """The fake as the module `tensorrt`, on a machine with a GPU."""
    module = fake_tensorrt(rtx_with_plugins(), request.param)
    monkeypatch.setitem(sys.modules, "tensorrt", module)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    put_gpu(monkeypatch)
    open_tensorrt.cache_clear()
    open_library.cache_clear()
    yield module
    open_tensorrt.cache_clear()
    open_library.cache_clear()


def put_gpu(monkeypatch: pytest.MonkeyPatch, count: int = 1, status: int = 0) -> None:
    """Let this machine have a driver and so many GPUs, as CUDA tells it."""

    class Status(int):
        name = "cudaSuccess" if status == 0 else "cudaErrorNoDevice"

    properties = SimpleNamespace(name=GPU.encode() + b"\0\0", major=8, minor=9)
    cuda = SimpleNamespace(
        cudaGetDeviceCount=lambda: (Status(status), count),
        cudaGetDevice=lambda: (Status(0), 0),
        cudaGetDeviceProperties=lambda device: (Status(0), properties),
    )
    monkeypatch.setattr(gpu_module, "import_cuda", lambda: cuda)
    monkeypatch.setattr(gpu_module, "has_cuda_driver", lambda: True)
    monkeypatch.setattr(
        "cn2.export.engine.build.audit_engine", lambda *_: {"skipped": "it is a fake"}
    )


def test_an_engine_for_this_gpu(
    tensorrt: Any, tiny_fused: Exported, tmp_path: Path, capfd: Capture
) -> None:
    path = tmp_path / "a.engine"
    ran = cn2(capfd, "build", tiny_fused.path, "-o", path, "--runtime", "tensorrt")
    assert (ran.code, ran.errors) == (0, [])
    about = read_engine(path)
    assert (about.runtime, about.version) == ("tensorrt", tensorrt.__version__)
    assert (about.targets, about.device) == (("sm_89",), GPU)
    assert f"sm_89 ({GPU})" in ran.out
    asked = tensorrt.asked
    assert asked["network_flags"] == (0 if tensorrt.__version__.startswith("11") else 1)
    assert (asked["set_flags"], asked["cleared_flags"]) == ([], ["TF32"])
    assert "hardware_compatibility_level" not in asked
    assert ran.out.splitlines()[-1].startswith("trtexec --onnx=")


@pytest.mark.parametrize(
    ("sums", "code", "said"),
    [
        ({"fp16": 96, "fp32": 4}, 0, "as built 96.0% in fp16, 4.0% in fp32"),
        ({"fp16": 60, "unknown": 40}, 0, "40.0% in unknown, as TensorRT's inspector does not name"),
        ({"fp16": 60, "fp32": 6, "unknown": 34}, 2, "TensorRT chose other types than the file's"),
    ],
)
def test_what_the_built_engine_computes_in_is_told_or_refused(
    tensorrt: Any,
    tiny_fp16: Exported,
    tmp_path: Path,
    capfd: Capture,
    monkeypatch: pytest.MonkeyPatch,
    sums: dict[str, int],
    code: int,
    said: str,
) -> None:
    built = {"multiply_adds": sums, "known_share": 1 - sums.get("unknown", 0) / 100}
    monkeypatch.setattr("cn2.export.engine.build.audit_engine", lambda *_: built)
    path = tmp_path / "a.engine"
    ran = cn2(capfd, "build", tiny_fp16.path, "-o", path, "--runtime", "tensorrt")
    assert ran.code == code
    assert said in " ".join(" ".join([ran.out, *ran.errors]).split())  # a terminal folds lines
    assert path.exists() == (code == 0)
    if code == 0:
        assert read_engine(path).build["audit"]["engine"] == built


def test_the_timing_cache_is_kept_and_used(
    tensorrt: Any, tiny_fused: Exported, tmp_path: Path, capfd: Capture
) -> None:
    command = ("build", tiny_fused.path, "-o", tmp_path / "a.engine", "--runtime", "tensorrt")
    seen = []
    for more in ([], ["--rebuild"]):
        ran = cn2(capfd, *command, *more)
        assert ran.code == 0
        seen.append(tensorrt.asked["timing_cache"])
    assert seen == [b"", SOUND_CACHE]
    name = f"timing-{tensorrt.__version__}-NVIDIA-GeForce-RTX-4090-sm-89.cache"
    kept = tmp_path / "cache" / "cn2" / name
    assert kept.read_bytes() == SOUND_CACHE
    assert f"--timingCacheFile={kept}" in ran.out.splitlines()[-1]


def test_a_timing_cache_of_another_gpu_is_replaced(
    tensorrt: Any, tiny_fused: Exported, tmp_path: Path, capfd: Capture
) -> None:
    kept = tmp_path / "my.cache"
    kept.write_bytes(b"of another GPU")
    command = ("build", tiny_fused.path, "-o", tmp_path / "a.engine", "--runtime", "tensorrt")
    ran = cn2(capfd, *command, "--timing-cache", kept)
    assert ran.code == 0
    assert any("of another TensorRT or GPU, or torn; measuring anew" in line for line in ran.notes)
    assert (tensorrt.asked["timing_cache"], kept.read_bytes()) == (b"", SOUND_CACHE)


def test_a_timing_cache_that_cannot_be_kept_is_a_warning(
    tensorrt: Any, tiny_fused: Exported, tmp_path: Path, capfd: Capture
) -> None:
    (tmp_path / "file").touch()
    command = ("build", tiny_fused.path, "-o", tmp_path / "a.engine", "--runtime", "tensorrt")
    ran = cn2(capfd, *command, "--timing-cache", tmp_path / "file" / "my.cache")
    assert ran.code == 0
    assert any("the timing cache is not kept" in line for line in ran.notes)


@pytest.mark.parametrize(
    ("words", "flags", "level", "targets"),
    [
        (["--version-compatible"], ["VERSION_COMPATIBLE"], None, ("sm_89",)),
        (["--hardware-compatible", "ampere"], [], "AMPERE_PLUS", ("sm_80+",)),
        (["--hardware-compatible", "same"], [], "SAME_COMPUTE_CAPABILITY", ("sm_89",)),
    ],
)
def test_compatible_engines(
    words: list[str],
    flags: list[str],
    level: str | None,
    targets: tuple[str, ...],
    tensorrt: Any,
    tiny_fused: Exported,
    tmp_path: Path,
    capfd: Capture,
) -> None:
    path = tmp_path / "a.engine"
    assert (
        cn2(capfd, "build", tiny_fused.path, "-o", path, "--runtime", "tensorrt", *words).code == 0
    )
    asked = tensorrt.asked
    assert asked["set_flags"] == flags
    chosen = asked.get("hardware_compatibility_level")
    assert (None if chosen is None else chosen.name) == level
    assert read_engine(path).targets == targets


def test_tf32_is_left_on_where_asked_for(
    tensorrt: Any, tiny_fused: Exported, tmp_path: Path, capfd: Capture
) -> None:
    command = ("build", tiny_fused.path, "-o", tmp_path / "a.engine", "--runtime", "tensorrt")
    assert cn2(capfd, *command, "--tf32").code == 0
    assert tensorrt.asked["cleared_flags"] == []


def test_without_a_gpu_it_stops(
    tensorrt: Any,
    tiny_fused: Exported,
    tmp_path: Path,
    capfd: Capture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    put_gpu(monkeypatch, count=0, status=100)
    ran = cn2(capfd, "build", tiny_fused.path, "-o", tmp_path / "a.engine", "--runtime", "tensorrt")
    assert (ran.code, len(ran.errors)) == (2, 1)
    assert "tensorrt builds on the GPU that is to run the engine" in ran.errors[0]
    assert "cudaErrorNoDevice" in ran.errors[0]


@pytest.mark.parametrize("version", ["9.3.0", "12.0.0", "1.7.1", "dev"])
def test_other_versions_are_refused(version: str) -> None:
    with pytest.raises(BackendUnavailableError, match=r"expected version 10\.x or 11\.x, got "):
        check_version("tensorrt", version)
    check_version("tensorrt-rtx", "1.7.1.116")


def test_tensorrt_that_is_not_installed(
    tiny_fused: Exported, tmp_path: Path, capfd: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    rtx_with_plugins()
    monkeypatch.setitem(sys.modules, "tensorrt", None)
    ran = cn2(capfd, "build", tiny_fused.path, "-o", tmp_path / "a.engine", "--runtime", "tensorrt")
    assert (ran.code, len(ran.errors)) == (2, 1)
    assert "tensorrt cannot be imported" in ran.errors[0]
    assert "pip install 'cn2[tensorrt]'" in ran.errors[0]


@pytest.mark.parametrize(
    ("installed", "chosen"),
    [({"tensorrt", "tensorrt_rtx"}, "tensorrt"), ({"tensorrt_rtx"}, "tensorrt-rtx")],
)
def test_the_runtime_that_is_installed(
    installed: set[str], chosen: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: name in installed or None)
    assert installed_runtime() == chosen


def test_no_runtime_is_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(BackendUnavailableError, match=r"pip install 'cn2\[tensorrt-rtx\]'"):
        installed_runtime()


def test_the_gpu_as_cuda_tells_it(monkeypatch: pytest.MonkeyPatch) -> None:
    put_gpu(monkeypatch)
    assert (current_gpu().name, current_gpu().target) == (GPU, "sm_89")
    monkeypatch.setattr(gpu_module, "has_cuda_driver", lambda: False)
    with pytest.raises(BackendUnavailableError, match="no NVIDIA driver"):
        current_gpu()
