"""libcn2 uses no header of NVIDIA's driver: what it says of the driver is compared with one."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from native_libraries import INCLUDE, ROOT, missing

SOURCES = ROOT / "plugins" / "src"


@pytest.fixture(scope="module")
def cuda_include() -> Path:
    """The toolkit's headers, beside nvcc."""
    places = [Path("/usr/local/cuda/include")]
    if nvcc := shutil.which("nvcc"):
        places.insert(0, Path(nvcc).resolve().parent.parent / "include")
    for place in places:
        if (place / "cuda.h").is_file():
            return place
    missing("cuda.h: no CUDA toolkit here")


def test_numbers_and_structs(cuda_include: Path) -> None:
    compiler = shutil.which("c++")
    if compiler is None:
        missing("c++: not installed")
    source = ROOT / "tests" / "plugins" / "native" / "driver_types.cpp"
    folders = [f"-I{INCLUDE}", f"-I{SOURCES}", "-isystem", str(cuda_include)]
    subprocess.run([compiler, "-std=c++20", "-fsyntax-only", *folders, str(source)], check=True)


def test_functions(cuda_include: Path) -> None:
    """Each that is looked for exists, and is the one that the header's name stands for.

    But for cuEventElapsedTime, whose second version is of CUDA 12.8; drivers keep the first.
    """
    header = (cuda_include / "cuda.h").read_text(encoding="utf-8", errors="replace")
    newest = dict(re.findall(r"#define (cu\w+) +(?:__CUDA_API_PT(?:DS|SZ)\()?(cu\w+)\)?", header))
    declared = set(re.findall(r"CUDAAPI (cu\w+)\(", header))
    names = re.findall(r'find\(library, "(cu\w+)"', (SOURCES / "cuda_driver.cpp").read_text())
    assert len(names) == 32
    for name in names:
        plain = name in declared and newest.get(name, name) == name
        assert plain or name in newest.values() or name == "cuEventElapsedTime"
