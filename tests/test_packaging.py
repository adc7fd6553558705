"""What a user installs: the wheel's contents, and a runtime without torch that stays small."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import sysconfig
import tarfile
import zipfile
from pathlib import Path

import pytest

from cn2 import __version__
from native_libraries import FAKE, compile_c

ROOT = Path(__file__).resolve().parent.parent
FOLDERS = {"trainer", "export", "runtime", "plugins"}
NOT_COPIED = shutil.ignore_patterns("__pycache__", "lib", "third_party")
FILES = ("pyproject.toml", "setup.py", "MANIFEST.in", "README.md", "LICENSE", "NOTICE")


def copy_source(target: Path) -> Path:
    """This checkout without what was built, so that no build folder is left in it."""
    for folder in FOLDERS:
        shutil.copytree(ROOT / folder, target / folder, ignore=NOT_COPIED)
    for name in FILES:
        shutil.copy(ROOT / name, target)
    return target


def build(source: Path, kind: str = "wheel", **environment: str) -> Path:
    """What pip asks of the build backend, "wheel" or "sdist"; the file it made.

    Raises:
        CalledProcessError: with `stderr`.
    """
    code = f"from setuptools import build_meta; print(build_meta.build_{kind}('out'))"
    run = subprocess.run(
        [sys.executable, "-c", code],
        cwd=source,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        check=True,
    )
    (source / "out" / "log").write_text(run.stdout + run.stderr)
    return source / "out" / run.stdout.splitlines()[-1]


def names_in(wheel: Path) -> list[str]:
    return zipfile.ZipFile(wheel).namelist()


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel of this checkout, as without a compiler."""
    return build(copy_source(tmp_path_factory.mktemp("source")), CN2_NATIVE="0")


def test_the_wheel_holds_the_packages_and_the_bundle(wheel: Path) -> None:
    names = names_in(wheel)
    packages = {name.split("/")[1] for name in names if name.startswith("cn2/") and "/" in name[4:]}
    assert packages >= FOLDERS
    for needed in (
        "cn2/__init__.py",
        "cn2/py.typed",
        "cn2/plugins/__init__.py",
        "cn2/trainer/backbones/nano.py",
        "cn2/trainer/class_lists/lvis-v1.json",
        "cn2/runtime/bundled/nano.safetensors",
        "cn2/runtime/bundled/probe.onnx",
        "cn2/runtime/bundled/pictures/annotations.json",
    ):
        assert needed in names
    assert any(name.endswith("licenses/LICENSE") for name in names)
    assert any(name.endswith("licenses/NOTICE") for name in names)


def test_the_wheel_holds_nothing_else(wheel: Path) -> None:
    names = names_in(wheel)
    top = {name.split("/")[0] for name in names}
    assert {name for name in top if not name.endswith(".dist-info")} == {"cn2"}
    assert not any("test" in name for name in names)
    plugins = {name for name in names if name.startswith("cn2/plugins/")}
    assert plugins == {"cn2/plugins/__init__.py", "cn2/plugins/py.typed"}
    assert wheel.name.endswith("-py3-none-any.whl")


STUB = """
cmake_minimum_required(VERSION 3.20)
project(stub LANGUAGES C)
include_directories(include)
add_library(cn2 SHARED {source})
if(NOT DEFINED ENV{{STUB_LEAVES_OUT}})
  install(TARGETS cn2 LIBRARY DESTINATION lib)
  install(FILES include/cn2.h DESTINATION include)
endif()
"""


@pytest.fixture
def thin_source(tmp_path: Path) -> Path:
    """The packaging with next to no package in it, and a CMake project of one small library."""
    if shutil.which("cmake") is None or shutil.which("cc") is None:
        pytest.skip("no CMake or no C compiler")
    for folder in ("trainer", "export", "runtime/bundled"):
        (tmp_path / folder).mkdir(parents=True)
    for folder in ("trainer", "export", "runtime"):
        (tmp_path / folder / "__init__.py").touch()
    shutil.copytree(ROOT / "runtime" / "front", tmp_path / "runtime" / "front", ignore=NOT_COPIED)
    shutil.copytree(ROOT / "plugins", tmp_path / "plugins", ignore=NOT_COPIED)
    (tmp_path / "plugins" / "CMakeLists.txt").write_text(STUB.format(source=FAKE))
    for name in FILES:
        shutil.copy(ROOT / name, tmp_path)
    return tmp_path


def test_a_wheel_with_the_libraries_is_of_this_platform(thin_source: Path) -> None:
    (thin_source / "plugins" / "lib").mkdir()
    (thin_source / "plugins" / "lib" / "libold.so").touch()  # of an earlier make native
    wheel = build(thin_source, CN2_NATIVE="1")
    platform = sysconfig.get_platform().replace("-", "_").replace(".", "_")
    assert wheel.name.endswith(f"-py3-none-{platform}.whl")
    names = {name for name in names_in(wheel) if name.startswith("cn2/plugins/")}
    files = ("__init__.py", "py.typed", "lib/libcn2.so", "include/cn2.h")
    assert names == {f"cn2/plugins/{name}" for name in files}
    (record,) = (name for name in names_in(wheel) if name.endswith(".dist-info/WHEEL"))
    assert "Root-Is-Purelib: false" in zipfile.ZipFile(wheel).read(record).decode()


@pytest.mark.parametrize("fault", ["no CMake", "no library", "does not configure"])
def test_a_build_that_fails(fault: str, thin_source: Path) -> None:
    environment = {}
    if fault == "no CMake":
        environment["PATH"] = str(thin_source)
    elif fault == "no library":
        environment["STUB_LEAVES_OUT"] = "1"
    else:
        (thin_source / "plugins" / "CMakeLists.txt").write_text("message(FATAL_ERROR no)\n")
    wheel = build(thin_source, **environment)
    assert wheel.name.endswith("-py3-none-any.whl")
    assert not any(name.endswith(".so") for name in names_in(wheel))
    log = (thin_source / "out" / "log").read_text()
    assert log.count("no native libraries in this wheel: ") == 1
    with pytest.raises(subprocess.CalledProcessError) as caught:
        build(thin_source, CN2_NATIVE="1", **environment)
    assert "CN2_NATIVE=1, but no native libraries in this wheel: " in caught.value.stderr


def test_kernels_that_are_asked_for_and_left_out(thin_source: Path) -> None:
    with pytest.raises(subprocess.CalledProcessError) as caught:
        build(thin_source, CN2_NATIVE="cuda")
    said = (
        "CN2_NATIVE=cuda, but no native libraries in this wheel: CMake left libcn2_trt_plugins out"
    )
    assert said in caught.value.stderr


def test_a_wish_that_is_not_understood(thin_source: Path) -> None:
    with pytest.raises(subprocess.CalledProcessError) as caught:
        build(thin_source, CN2_NATIVE="yes")
    assert "CN2_NATIVE: expected 0, 1, cuda or nothing, got 'yes'" in caught.value.stderr


def test_the_sdist_holds_the_native_sources(thin_source: Path) -> None:
    for built in ("lib/libcn2.so", "third_party/onnxruntime/onnxruntime_c_api.h"):
        path = thin_source / "plugins" / built
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    with tarfile.open(build(thin_source, "sdist")) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
        archive.extractall(thin_source / "unpacked", filter="data")
    sources = {
        path.relative_to(ROOT).as_posix()
        for path in (ROOT / "plugins").rglob("*")
        if path.is_file() and not {"lib", "third_party", "__pycache__"} & set(path.parts)
    }
    assert sources <= names
    assert len(sources) > 10
    assert not any(name.endswith((".so", "onnxruntime_c_api.h")) for name in names)
    (again,) = (thin_source / "unpacked").iterdir()
    assert "cn2/plugins/lib/libcn2.so" in names_in(build(again, CN2_NATIVE="1"))


def headers() -> str:
    """ONNXRUNTIME_ROOT for a build of a copy of this checkout; skips where there is none."""
    found = os.environ.get("ONNXRUNTIME_ROOT") or str(ROOT / "plugins/third_party/onnxruntime")
    if not any(Path(found).rglob("onnxruntime_c_api.h")):
        pytest.skip("no header of ONNX Runtime; python3 plugins/fetch_headers.py")
    return found


VERSION_C = """
#include <cn2.h>
#include <stdio.h>
int main(void) { return puts(cn2_version()) < 0 || cn2_abi_version() != CN2_ABI_VERSION; }
"""


@pytest.mark.slow
def test_the_wheel_of_this_checkout_with_its_libraries(tmp_path: Path) -> None:
    wheel = build(copy_source(tmp_path / "source"), CN2_NATIVE="1", ONNXRUNTIME_ROOT=headers())
    target = tmp_path / "installed"
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-index"]
    subprocess.run([*pip, "--target", str(target), str(wheel)], check=True)
    plugins = target / "cn2" / "plugins"
    for name in ("lib/libcn2.so", "lib/libcn2_ort_ops.so", "include/cn2.h"):
        assert (plugins / name).is_file()
    shutil.rmtree(tmp_path / "source")  # the libraries need nothing of it
    probe = subprocess.run(
        [sys.executable, "-m", "cn2.runtime.probe", "native", "cpu"],
        env={**os.environ, "PYTHONPATH": str(target)},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=True,
    )
    assert json.loads(probe.stdout)["works"] is True
    (tmp_path / "version.c").write_text(VERSION_C)
    flags = (f"-I{plugins / 'include'}", f"-L{plugins / 'lib'}", "-lcn2")
    program = compile_c(tmp_path / "version.c", tmp_path / "version", *flags)
    said = subprocess.run(
        [program], env={"LD_LIBRARY_PATH": str(plugins / "lib")}, capture_output=True, check=True
    )
    assert said.stdout.decode().split() == [__version__]


@pytest.mark.slow
def test_a_runtime_install_is_small_and_has_no_torch(tmp_path: Path, nano_onnx: Path) -> None:
    sys.path.insert(0, str(ROOT / "benchmarks"))
    try:
        from install_size import LIMIT_MB, install, package_sizes_mb
    finally:
        sys.path.pop(0)
    python = install(tmp_path, "cpu")
    sizes = package_sizes_mb(python)
    assert "torch" not in sizes
    assert sum(sizes.values()) < LIMIT_MB
    picture = ROOT / "runtime" / "bundled" / "pictures" / "scene_1900000000.jpg"
    cn2 = python.parent / "cn2"
    subprocess.run([cn2, "--help"], check=True, cwd=tmp_path, capture_output=True)
    subprocess.run([cn2, "doctor"], check=True, cwd=tmp_path, capture_output=True)
    subprocess.run(
        [cn2, "detect", nano_onnx, picture, "--json", "found.json"], check=True, cwd=tmp_path
    )
    found = json.loads((tmp_path / "found.json").read_text())
    assert len(found["images"][0]["detections"]) >= 3
    # What needs torch says so in one line.
    refused = subprocess.run(
        [cn2, "export", "x.safetensors", "-o", "x.onnx"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
    )
    assert refused.returncode == 2
    assert "cn2[export]" in refused.stderr
    assert refused.stderr.count("\n") == 1
