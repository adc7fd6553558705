"""plugins/fetch_tensorrt.py: TensorRT 10's headers from a wheel, and those that stand for 11's."""

from __future__ import annotations

import hashlib
import io
import re
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest

from native_libraries import missing

ROOT = Path(__file__).resolve().parent.parent.parent
# Where methods lie in the tables of classes, as the Python bindings call them:
# tensorrt-cu13-bindings 10.14.1.48 and 11.4.0.106; those of tensorrt-rtx 1.5.0 and 1.7.1 are the
# second (setDeviceMemoryV2: of 11 seen in RTX 1.7.1 alone). (RTX 1.4.0 is like neither: its
# VCudaEngine lacks two methods of the first.)
SLOTS = {
    ("VRuntime", "deserializeCudaEngineV2"): (23, 22),
    ("VRuntime", "setDLACore"): (5, 4),
    ("VCudaEngine", "createExecutionContext"): (5, 5),
    ("VCudaEngine", "isRefittable"): (8, 6),
    ("VCudaEngine", "getNbOptimizationProfiles"): (10, 8),
    ("VCudaEngine", "getEngineCapability"): (12, 9),
    ("VCudaEngine", "getNbIOTensors"): (30, 26),
    ("VCudaEngine", "getDeviceMemorySizeV2"): (52, 44),
    ("VCudaEngine", "getEngineStat"): (57, 49),
    ("VExecutionContext", "setInputShape"): (21, 20),
    ("VExecutionContext", "enqueueV3"): (37, 36),
    ("VExecutionContext", "setAuxStreams"): (42, 41),
    ("VExecutionContext", "setDeviceMemoryV2"): (49, 48),
}


@pytest.fixture
def fetch(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[ModuleType]:
    """The script, with a folder of its own."""
    monkeypatch.syspath_prepend(str(ROOT / "plugins"))
    for name in ("TENSORRT_ROOT", "TENSORRT11_ROOT"):
        monkeypatch.delenv(name, raising=False)
    import fetch_tensorrt

    monkeypatch.setattr(fetch_tensorrt, "THIRD_PARTY", tmp_path)
    yield fetch_tensorrt
    del sys.modules["fetch_tensorrt"]


@pytest.fixture
def real(fetch: ModuleType) -> dict[str, bytes]:
    """The headers that are fetched here."""
    folder = ROOT / "plugins" / "third_party" / "tensorrt10"
    if not folder.is_dir():
        missing("TensorRT's headers: not fetched; python3 plugins/fetch_tensorrt.py")
    return {path.name: path.read_bytes() for path in folder.glob("*.h")}


def slots(header: bytes, class_name: str) -> dict[str, int]:
    """Each method's place in the table of its class, after two destructors."""
    body = re.search(rf"class {class_name} : .*?\n}};", header.decode(), re.S)
    assert body is not None
    names = re.findall(r"virtual [^;]*?(\w+)\([^;]*;", body[0])
    return {name: place for place, name in enumerate(names, 2)}


@pytest.mark.parametrize("method", SLOTS)
def test_methods_lie_where_both_libraries_have_them(
    fetch: ModuleType, real: dict[str, bytes], method: tuple[str, str]
) -> None:
    of_11 = fetch.without_dropped(real)
    found = [slots(h["NvInferImpl.h"], method[0])[method[1]] for h in (real, of_11)]
    assert tuple(found) == SLOTS[method]


def test_the_registry_has_lost_what_was_deprecated(
    fetch: ModuleType, real: dict[str, bytes]
) -> None:
    """A table of 15, with two destructors, in TensorRT 11.4 and TensorRT-RTX 1.7; 19 in 10.14."""
    made = fetch.without_dropped(real)
    for headers, count in ((real, 19 - 2), (made, 15 - 2)):
        text = re.sub(r"//[^\n]*", "", headers["NvInferRuntimeCommon.h"].decode())
        body = re.search(r"class IPluginRegistry\s*{.*?\n};", text, re.S)
        assert body is not None
        assert len(re.findall(r"virtual [^;~]*= 0;", body[0])) == count


def test_the_logger_is_a_versioned_interface(fetch: ModuleType, real: dict[str, bytes]) -> None:
    """TensorRT 11.4 and TensorRT-RTX 1.7 call the fifth method of its table."""
    made = fetch.without_dropped(real)
    assert b"class ILogger : public IVersionedInterface\n" in made["NvInferRuntime.h"]
    assert b"class ILogger\n" in real["NvInferRuntime.h"]


def test_version_and_wrappers(fetch: ModuleType, real: dict[str, bytes]) -> None:
    made = fetch.without_dropped(real)
    assert b"TRT_MAJOR_ENTERPRISE 11" in made["NvInferVersion.h"]
    assert b"allInputShapesSpecified()" in real["NvInferRuntime.h"]
    assert b"allInputShapesSpecified()" not in made["NvInferRuntime.h"]
    assert made["NvInferRuntimePlugin.h"] == real["NvInferRuntimePlugin.h"]


def test_headers_of_another_version_are_refused(fetch: ModuleType, real: dict[str, bytes]) -> None:
    with pytest.raises(ValueError, match=r"expected one .* in VRuntime of NvInferImpl.h, found 0"):
        fetch.without_dropped(fetch.without_dropped(real))


def wheel(files: dict[str, bytes]) -> bytes:
    package = io.BytesIO()
    with zipfile.ZipFile(package, "w") as archive:
        for name, data in files.items():
            archive.writestr(name, data)
    return package.getvalue()


def serve(fetch: ModuleType, package: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let pip find this package."""

    def run(command: list[str], **_: object) -> None:
        (Path(command[command.index("--dest") + 1]) / "one.whl").write_bytes(package)

    monkeypatch.setattr(fetch.subprocess, "run", run)


def test_the_headers_of_a_package(
    fetch: ModuleType, real: dict[str, bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    package = wheel({f"{fetch.FOLDER}/{name}": data for name, data in real.items()})
    serve(fetch, package, monkeypatch)
    monkeypatch.setattr(fetch, "SHA256", hashlib.sha256(package).hexdigest())
    assert fetch.main() == 0
    found = {path.name: path.read_bytes() for path in fetch.THIRD_PARTY.glob("tensorrt10/*.h")}
    assert found == real
    assert (fetch.THIRD_PARTY / "tensorrt11" / "NvInferRuntime.h").is_file()
    monkeypatch.setattr(fetch, "download", lambda: pytest.fail("they are there already"))
    assert fetch.main() == 0


@pytest.mark.parametrize(
    ("trusted", "said"),
    [(False, "expected a package with sha256 07cc"), (True, "NvInferRuntime.h in the package")],
)
def test_packages_that_are_refused(
    fetch: ModuleType,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    trusted: bool,
    said: str,
) -> None:
    package = wheel({"other.h": b""})
    serve(fetch, package, monkeypatch)
    if trusted:
        monkeypatch.setattr(fetch, "SHA256", hashlib.sha256(package).hexdigest())
    assert fetch.main() == 1
    message = capsys.readouterr().err
    assert said in message
    assert message.endswith("; set TENSORRT_ROOT\n")
    assert message.count("\n") == 1
    assert not list(fetch.THIRD_PARTY.iterdir())


def test_without_pip_it_says_what_to_do(
    fetch: ModuleType, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(command: list[str], **_: object) -> None:
        raise subprocess.CalledProcessError(1, command)

    monkeypatch.setattr(fetch.subprocess, "run", fail)
    assert fetch.main() == 1
    assert "fetch_tensorrt: error: " in capsys.readouterr().err
