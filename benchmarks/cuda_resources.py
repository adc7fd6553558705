"""Registers, memory and spills of every CUDA kernel on every architecture, as nvcc reports them.

No GPU is needed. A block's own memory is asked for at the launch, so nvcc does not know it:
docs/kernels.md has it. Result: benchmarks/results/cuda_resources.json.

    python benchmarks/cuda_resources.py
"""

from __future__ import annotations

import argparse
import re
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from cn2.runtime.reports import write_json

ROOT = Path(__file__).resolve().parent.parent
RESULT = ROOT / "benchmarks" / "results" / "cuda_resources.json"
KERNELS = ROOT / "plugins" / "src" / "kernels"
BUILD = ROOT / "plugins" / "cmake" / "cuda.cmake"  # which sources, for which architectures
OPTIONS = ("-std=c++17", "-O3", "-Xcompiler=-Wall,-Wextra", "-Werror=all-warnings")

ENTRY = re.compile(r"Compiling entry function '(\S+)' for '(sm_\d+\w*)'")
STACK = re.compile(r"(\d+) bytes stack frame, (\d+) bytes spill stores, (\d+) bytes spill loads")
USED = re.compile(r"Used (\d+) registers(?:.*?, (\d+) bytes smem)?")
KERNEL = re.compile(r"(\w+_kernel)(<.*?>)?\(")
Usage = dict[str, int]


def main(arguments: Sequence[str] | None = None) -> None:
    """Compile, read, write."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--out", type=Path, default=RESULT)
    options = parser.parse_args(arguments)
    nvcc = shutil.which("nvcc")
    if nvcc is None:
        sys.exit("nvcc: expected it on the PATH, found none; install the CUDA toolkit")
    document = {
        "benchmark": "cuda_resources",
        "command": "python benchmarks/cuda_resources.py",
        "nvcc": nvcc_version(nvcc),
        "options": list(OPTIONS),
        "kernels": measure(nvcc),
    }
    write_json(str(options.out), document)
    print(f"{options.out}: {len(document['kernels'])} kernels")


def nvcc_version(nvcc: str) -> str:
    """For example 13.0.88."""
    answer = run([nvcc, "--version"]).stdout
    found = re.search(r"\bV(\d+\.\d+\.\d+)", answer)
    if found is None:
        sys.exit(f"{nvcc} --version: expected a version such as V13.0.88, got {answer!r}")
    return found[1]


def measure(nvcc: str) -> list[dict[str, Any]]:
    """One row a kernel: its source, and its usage on each architecture."""
    sources, architectures = read_build(BUILD.read_text())
    rows: dict[tuple[str, str], dict[str, Usage]] = {}
    for source in sources:
        for mangled, usages in read_usage(compile_source(nvcc, source, architectures)).items():
            rows[source, kernel_name(mangled)] = usages
    return [
        {"kernel": name, "source": source, "architectures": usages}
        for (source, name), usages in sorted(rows.items())
    ]


def read_build(text: str) -> tuple[list[str], list[str]]:
    """The sources and architectures (75, 80, ...) that plugins/cmake/cuda.cmake names."""
    sources = re.search(r"set\(CN2_CUDA_SOURCES\s+([^)]*)\)", text)
    architectures = re.search(r"set\(CMAKE_CUDA_ARCHITECTURES\s+([^)]*)\)", text)
    assert sources is not None
    assert architectures is not None
    return sources[1].split(), [one.split("-")[0] for one in architectures[1].split()]


def compile_source(nvcc: str, source: str, architectures: Sequence[str]) -> str:
    """What the assembler says of a source's kernels; a warning is an error, and ends the script."""
    targets = [f"-gencode=arch=compute_{a},code=sm_{a}" for a in architectures]
    path = str(KERNELS / source)
    done = run([nvcc, *OPTIONS, *targets, "-Xptxas=-v", "-fatbin", path, "-o", "/dev/null"])
    if done.returncode != 0:
        sys.exit(f"{source}: expected it to compile without warnings, got:\n{done.stderr}")
    return done.stderr


def read_usage(report: str) -> dict[str, dict[str, Usage]]:
    """Of the assembler's report: usage by kernel (mangled) and architecture."""
    found: dict[str, dict[str, Usage]] = {}
    usage: Usage = {}
    for line in report.splitlines():
        if entry := ENTRY.search(line):
            usage = found.setdefault(entry[1], {}).setdefault(entry[2], {})
        elif stack := STACK.search(line):
            names = ("stack_bytes", "spill_store_bytes", "spill_load_bytes")
            usage.update(zip(names, map(int, stack.groups()), strict=True))
        elif used := USED.search(line):
            usage.update(registers=int(used[1]), static_shared_bytes=int(used[2] or 0))
    return found


def kernel_name(mangled: str) -> str:
    """For example deform_conv_kernel<__half, 128>."""
    demangled = run(["c++filt", mangled]).stdout
    found = KERNEL.search(demangled)
    return "".join(part or "" for part in found.groups()) if found else mangled


def run(command: Sequence[str]) -> subprocess.CompletedProcess[str]:
    """With its output as text."""
    return subprocess.run(command, capture_output=True, text=True, check=False)


if __name__ == "__main__":
    main()
