"""What the native libraries cost, with and without CUDA: processor time to build them, sizes.

Processor time of all compilers together, which other work on the machine does not change much;
two free cores take about half as long. Result: benchmarks/results/native_build.json.

    python benchmarks/native_build.py
"""

from __future__ import annotations

import argparse
import os
import re
import resource
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from cn2.runtime.machine import cpu_cores, cpu_name
from cn2.runtime.reports import write_json

ROOT = Path(__file__).resolve().parent.parent
RESULT = ROOT / "benchmarks" / "results" / "native_build.json"
KINDS = {"without CUDA": "-DCN2_CUDA=OFF", "with CUDA": "-DCN2_CUDA=ON"}


def main(arguments: Sequence[str] | None = None) -> None:
    """Build, measure, write."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--out", type=Path, default=RESULT)
    options = parser.parse_args(arguments)
    if shutil.which("nvcc") is None:
        sys.exit("nvcc: expected it on the PATH, found none; install the CUDA toolkit")
    document = {
        "benchmark": "native_build",
        "command": "python benchmarks/native_build.py",
        "machine": {"cpu": cpu_name(), "cores": cpu_cores(), "load": round(os.getloadavg()[0], 2)},
        "rows": [measure(name, option) for name, option in KINDS.items()],
    }
    write_json(str(options.out), document)


def measure(name: str, option: str) -> dict[str, Any]:
    """Build one kind from nothing, without what only tests load."""
    with tempfile.TemporaryDirectory() as folder:
        build, prefix = Path(folder) / "build", Path(folder) / "installed"
        before = processor_seconds()
        configure = ["cmake", "-S", str(ROOT / "plugins"), "-B", str(build)]
        said = run([*configure, "-DCMAKE_INSTALL_LIBDIR=lib", "-DCN2_TESTS=OFF", option])
        run(["cmake", "--build", str(build), "--parallel", str(cpu_cores())])
        spent = processor_seconds() - before
        run(["cmake", "--install", str(build), "--prefix", str(prefix)])
        sizes = {path.stem: path.stat().st_size for path in sorted(prefix.glob("lib/*.so"))}
    architectures = re.search(r"CUDA kernels for ([\d;a-z-]+)", said)
    return {
        "kind": name,
        "processor_s": round(spent),
        "architectures": architectures[1].split(";") if architectures else [],
        "bytes": sizes,
    }


def processor_seconds() -> float:
    """Of all processes that this one has waited for."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def run(command: list[str]) -> str:
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


if __name__ == "__main__":
    main()
