"""The built libraries as files: what they show, what they need, that they can be moved."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from native_libraries import INCLUDE, ROOT, built_library, needs_library

pytestmark = needs_library("cn2")
MODULES = ("cn2_tensorrt10", "cn2_tensorrt11", "cn2_cuda")
NAMES = ("cn2", "cn2_ort_ops", "cn2_trt_plugins", *MODULES)
SYSTEM = {"libc.so.6", "libm.so.6", "libdl.so.2", "libpthread.so.0"}
SYSTEM |= {"librt.so.1", "ld-linux-x86-64.so.2"}


def tool(*command: str | Path) -> str:
    if shutil.which(str(command[0])) is None:
        pytest.skip(f"no {command[0]}")
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


def shown_symbols(path: Path) -> set[str]:
    lines = tool("nm", "--dynamic", "--defined-only", path).splitlines()
    return {line.split()[-1].partition("@")[0] for line in lines}


def test_libcn2_shows_the_headers_functions_alone() -> None:
    header = re.sub(r"/\*.*?\*/", "", (INCLUDE / "cn2.h").read_text(), flags=re.DOTALL)
    declared = set(re.findall(r"^CN2_API [^;(]*?(cn2_\w+)\(", header, re.MULTILINE))
    assert len(declared) == 18
    assert shown_symbols(built_library("cn2")) == declared


def test_the_operators_library_shows_its_entries_alone() -> None:
    shown = {"RegisterCustomOps", "cn2_operators_version", "cn2_operators_run_on_cuda"}
    assert shown_symbols(built_library("cn2_ort_ops")) == shown


def test_the_plugin_library_shows_its_entries_alone() -> None:
    shown = {"getCreators", "setLoggerFinder", "cn2_operators_version"}
    assert shown_symbols(built_library("cn2_trt_plugins")) == shown


@pytest.mark.parametrize("name", MODULES)
def test_libcn2s_modules_show_one_function(name: str) -> None:
    shown = "cn2_cuda_module_get" if name == "cn2_cuda" else "cn2_tensorrt_module_get"
    assert shown_symbols(built_library(name)) == {shown}


@pytest.mark.parametrize("name", NAMES)
def test_libraries_need_the_system_alone(name: str) -> None:
    """Neither ONNX Runtime nor a compiler's own libraries, which may be older elsewhere."""
    section = tool("readelf", "--dynamic", "--wide", built_library(name))
    needed = set(re.findall(r"\(NEEDED\).*\[(.+)\]", section))
    assert "libc.so.6" in needed
    assert needed <= SYSTEM


@pytest.mark.parametrize("name", NAMES)
def test_libraries_can_be_moved(name: str) -> None:
    path = built_library(name)
    section = tool("readelf", "--dynamic", "--wide", path)
    assert set(re.findall(r"\((?:RUNPATH|RPATH)\).*\[(.*)\]", section)) <= {"$ORIGIN"}
    assert re.findall(r"\(SONAME\).*\[(.*)\]", section) == [path.name]
    assert str(ROOT).encode() not in path.read_bytes()
