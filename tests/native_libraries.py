"""The native libraries in tests: the built ones, and a fake libcn2 compiled on the spot."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path
from typing import NoReturn

import pytest

from cn2.plugins import library_path

ROOT = Path(__file__).resolve().parent.parent
INCLUDE = ROOT / "plugins" / "include"
FAKE = ROOT / "tests" / "plugins" / "fake_libcn2.c"


def is_required() -> bool:
    """Whether what is native and not here fails a test, not skips it: CI, or REQUIRE_NATIVE=1."""
    return bool(os.environ.get("CI")) or os.environ.get("REQUIRE_NATIVE") == "1"


def missing(what: str) -> NoReturn:
    """Skip, naming what is not here; where it is required, fail."""
    if is_required():
        pytest.fail(what)
    pytest.skip(what)


def needs_library(name: str) -> pytest.MarkDecorator:
    """Skip where a library was not built; where it is required the test runs, and fails."""
    absent = library_path(name) is None and not is_required()
    return pytest.mark.skipif(absent, reason=f"lib{name}: not built; make native")


def built_library(name: str) -> Path:
    """The library that `make native` built; without it see `missing`."""
    return library_path(name) or missing(f"lib{name}: not built; make native")


def compile_c(source: Path, target: Path, *flags: str) -> Path:
    """Compile a C file against cn2.h, warnings as errors; without a compiler see `missing`."""
    compiler = shutil.which("cc")
    if compiler is None:
        missing("no C compiler")
    warnings = ("-Wall", "-Wextra", "-Werror", "-pedantic")
    command = [compiler, "-std=c11", *warnings, str(source), "-o", str(target)]
    subprocess.run([*command, *flags, f"-I{INCLUDE}"], check=True)
    return target


def fake_library(folder: Path, *flags: str) -> Path:
    """Compile the fake libcn2 into a folder, for $CN2_LIBRARY_DIR."""
    folder.mkdir(parents=True, exist_ok=True)
    return compile_c(FAKE, folder / "libcn2.so", "-shared", "-fPIC", *flags)
