"""What `make native` makes: only the entry points are visible, nothing points to this machine."""

from __future__ import annotations

import hashlib
import io
import os
import re
import shutil
import subprocess
import sys
import tarfile
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).resolve().parent.parent.parent


def tool(name: str, *arguments: object) -> str:
    """What a command of binutils prints; skips where it is absent."""
    if shutil.which(name) is None:
        pytest.skip(f"expected the command {name}, found none")
    command = [name, *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


def test_only_the_entry_points_are_visible(ort_ops: Path) -> None:
    lines = tool("nm", "-D", "--defined-only", ort_ops).splitlines()
    names = {line.split()[-1] for line in lines}
    assert "RegisterCustomOps" in names
    assert names <= {
        "RegisterCustomOps",
        "cn2_operators_version",
        "cn2_operators_run_on_cuda",
    }


def test_the_library_needs_no_onnx_runtime_and_no_folder(ort_ops: Path) -> None:
    dynamic = tool("readelf", "-d", ort_ops)
    needed = re.findall(r"\(NEEDED\).*\[(.*)\]", dynamic)
    assert {name.split(".so")[0] for name in needed} <= {"libc", "libm", "ld-linux-x86-64"}
    paths = re.findall(r"\((?:RPATH|RUNPATH)\).*\[(.*)\]", dynamic)
    assert all(path == "$ORIGIN" for path in paths)
    assert str(ROOT).encode() not in ort_ops.read_bytes()


# --- fetch_headers.py


@pytest.fixture
def fetch(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[ModuleType]:
    """The script, with a folder of its own and no package to be had."""
    monkeypatch.syspath_prepend(str(ROOT / "plugins"))
    monkeypatch.delenv("ONNXRUNTIME_ROOT", raising=False)
    import fetch_headers

    monkeypatch.setattr(fetch_headers, "TARGET", tmp_path / "headers")
    monkeypatch.setattr(fetch_headers, "debian_mirrors", lambda: [])
    monkeypatch.setattr(fetch_headers.shutil, "which", lambda _: None)
    yield fetch_headers
    del sys.modules["fetch_headers"]


def deb(headers: dict[str, str]) -> bytes:
    """A Debian package with these headers."""
    files = io.BytesIO()
    with tarfile.open(fileobj=files, mode="w:xz") as tar:
        for name, text in headers.items():
            member = tarfile.TarInfo(f"./usr/include/onnxruntime/{name}")
            member.size = len(text)
            tar.addfile(member, io.BytesIO(text.encode()))
    package = b"!<arch>\n"
    for name, data in (("debian-binary", b"2.0\n!"), ("data.tar.xz", files.getvalue())):
        package += f"{name:<16}{0:<12}{0:<6}{0:<6}{100644:<8}{len(data):<10}`\n".encode() + data
        package += b"\n" * (len(data) % 2)
    return package


def serve(fetch: ModuleType, package: bytes, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the script find a package at a mirror, with its hash."""
    path = folder / "mirror" / fetch.DEBIAN_PATH
    path.parent.mkdir(parents=True)
    path.write_bytes(package)
    monkeypatch.setattr(fetch, "debian_mirrors", lambda: [(folder / "mirror").as_uri() + "/"])
    monkeypatch.setattr(fetch, "DEBIAN_SHA256", hashlib.sha256(package).hexdigest())


def test_headers_of_a_debian_package(
    fetch: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    headers = {"onnxruntime_c_api.h": "one", "other.h": "two", "notes.txt": "three"}
    serve(fetch, deb(headers), tmp_path, monkeypatch)
    assert fetch.main() == 0
    found = {path.name: path.read_text() for path in fetch.TARGET.glob("*.h")}
    assert found == {"onnxruntime_c_api.h": "one", "other.h": "two"}
    monkeypatch.setattr(fetch, "debian_mirrors", lambda: pytest.fail("they are there already"))
    assert fetch.main() == 0


@pytest.mark.parametrize(
    ("package", "sha256", "said"),
    [
        (deb({"other.h": "two"}), None, "onnxruntime_c_api.h in the package, found none"),
        (b"!<arch>\n", None, "expected data.tar in the package, found none"),
        (deb({}), "0" * 64, "expected a package with sha256 000"),
    ],
)
def test_packages_that_are_refused(
    fetch: ModuleType,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    package: bytes,
    sha256: str | None,
    said: str,
) -> None:
    serve(fetch, package, tmp_path, monkeypatch)
    if sha256 is not None:
        monkeypatch.setattr(fetch, "DEBIAN_SHA256", sha256)
    assert fetch.main() == 1
    message = capsys.readouterr().err
    assert said in message
    assert message.count("\n") == 1
    assert not fetch.TARGET.exists()


def test_without_any_source_it_says_what_to_do(
    fetch: ModuleType, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert fetch.main() == 1
    assert capsys.readouterr().err == (
        "fetch_headers: error: Debian: apt names no mirror; npm: expected the command npm, found "
        "none; set ONNXRUNTIME_ROOT\n"
    )
    monkeypatch.setenv("ONNXRUNTIME_ROOT", "/anywhere")
    assert fetch.main() == 0


# --- The configure step


def configure(folder: Path, *options: str) -> str:
    """What cmake says at the end of the configure step."""
    if shutil.which("cmake") is None or shutil.which("c++") is None:
        pytest.skip("expected cmake and a C++ compiler, found none")
    source = ["-S", str(ROOT / "plugins"), "-DCN2_CUDA=OFF"]  # nvcc takes long to try
    command = ["cmake", *source, "-B", str(folder), *options]
    environment = {k: v for k, v in os.environ.items() if k != "ONNXRUNTIME_ROOT"}
    return subprocess.run(
        command, capture_output=True, text=True, check=True, env=environment
    ).stdout


def test_the_configure_step_says_why_a_library_is_not_built(tmp_path: Path) -> None:
    said = configure(tmp_path / "build", f"-DONNXRUNTIME_ROOT={tmp_path}")
    assert (
        f"libcn2_ort_ops: not built: no onnxruntime_c_api.h below ONNXRUNTIME_ROOT={tmp_path}"
        in said
    )
    assert "libcn2_kernels: built" in said


def test_headers_that_are_too_old_are_refused(tmp_path: Path) -> None:
    header = tmp_path / "include" / "onnxruntime_c_api.h"
    header.parent.mkdir()
    header.write_text("#define ORT_API_VERSION 16\n")
    said = configure(tmp_path / "build", f"-DONNXRUNTIME_ROOT={tmp_path}")
    assert (
        "libcn2_ort_ops: not built: expected ONNX Runtime's header with ORT_API_VERSION 17" in said
    )
    header.write_text("#define ORT_API_VERSION 17\n")
    said = configure(tmp_path / "build", f"-DONNXRUNTIME_ROOT={tmp_path}")
    assert "libcn2_ort_ops: built" in said
