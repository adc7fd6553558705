"""One step of the GPU suite in a process of its own; benchmarks/gpu.py starts it."""

from __future__ import annotations

import contextlib
import importlib
import sys
from collections.abc import Sequence

from gpu_job import attempt, read_job, write_row

STEPS = {  # where each is; imported only when it is done
    "compile": ("gpu_export", "compile_kernels"),
    "kernels": ("gpu_kernels", "check_kernels"),
    "export": ("gpu_export", "export"),
    "torch": ("gpu_torch", "run_torch"),
    "onnxruntime": ("gpu_onnxruntime", "run_onnxruntime"),
    "libcn2": ("gpu_libcn2", "run_libcn2"),
    "tensorrt": ("gpu_tensorrt", "run_tensorrt"),
    "tensorrt-rtx": ("gpu_tensorrt", "run_tensorrt"),
}


def main(arguments: Sequence[str] | None = None) -> None:
    """Do what the words say; rows go to stdout, all else to stderr."""
    job = read_job(sys.argv[1:] if arguments is None else arguments)
    module, name = STEPS[job.step]
    step = getattr(importlib.import_module(module), name)
    rows = attempt(job.name, lambda: step(job))
    while True:
        with contextlib.redirect_stdout(sys.stderr):
            row = next(rows, None)
        if row is None:
            return
        write_row(row)


if __name__ == "__main__":
    main()
