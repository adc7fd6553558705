"""The native libraries in tests: the built ones, and a fake libcn2 compiled on the spot."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from cn2.plugins import library_path

ROOT = Path(__file__).resolve().parent.parent
INCLUDE = ROOT / "plugins" / "include"
FAKE = ROOT / "tests" / "plugins" / "fake_libcn2.c"


def needs_library(name: str) -> pytest.MarkDecorator:
    """Skip where a library was not built; with CI or REQUIRE_NATIVE=1 the test runs, and fails."""
    required = bool(os.environ.get("CI")) or os.environ.get("REQUIRE_NATIVE") == "1"
    missing = library_path(name) is None and not required
    return pytest.mark.skipif(missing, reason=f"lib{name}: not built; make native")


def built_library(name: str) -> Path:
    """The library that `make native` built."""
    path = library_path(name)
    assert path is not None, f"lib{name}: not built; make native"
    return path


def compile_c(source: Path, target: Path, *flags: str) -> Path:
    """Compile a C file against cn2.h, warnings as errors; skips where there is no compiler."""
    compiler = shutil.which("cc")
    if compiler is None:
        pytest.skip("no C compiler")
    warnings = ("-Wall", "-Wextra", "-Werror", "-pedantic")
    command = [compiler, "-std=c11", *warnings, str(source), "-o", str(target)]
    subprocess.run([*command, *flags, f"-I{INCLUDE}"], check=True)
    return target


def fake_library(folder: Path, *flags: str) -> Path:
    """Compile the fake libcn2 into a folder, for $CN2_LIBRARY_DIR."""
    folder.mkdir(parents=True, exist_ok=True)
    return compile_c(FAKE, folder / "libcn2.so", "-shared", "-fPIC", *flags)
