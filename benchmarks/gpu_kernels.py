"""The step that checks each CUDA kernel against the CPU's and times it against torchvision's."""

from __future__ import annotations

from collections.abc import Iterator

import cuda_kernels
from cuda_cases import CARDS
from gpu_export import LIBRARY
from gpu_job import Job, Row, skip
from gpu_steps import library_folder


def check_kernels(job: Job) -> Iterator[Row]:
    """The rows of cuda_kernels.py as they come, each with its floor on the card that is here."""
    words = ["--batches", *map(str, job.batches)]
    if job.dry_run:
        emulated = cuda_kernels.BUILD / "libcn2_kernels_cuda_emulated.so"
        if not emulated.is_file():
            yield skip("the kernels' check", f"{emulated.name} is not built; run make native")
            return
        words.append("--dry-run")
    elif not library_folder(job):  # what an earlier build has left says nothing of these sources
        yield skip("the kernels' check", f"{LIBRARY.name} is not compiled; see the step compile")
        return
    else:
        words += ["--library", str(LIBRARY)]
        words += ["--cpu-library", str(LIBRARY.with_name("libcn2_kernels.so"))]
    speed = None if job.dry_run else cuda_kernels.measure_bandwidth()
    name = None if job.dry_run else cuda_kernels.gpu_name()
    yield {"kind": "card", "gpu": name, "copy_gb_per_s": speed}
    rows = []
    for row in cuda_kernels.check_all(cuda_kernels.parse(words)):
        if "failed" in row:
            yield {"kind": "failure", "what": row["what"], "reason": row["failed"]}
            continue
        rows.append(row)
        yield {"kind": "kernel", **row, "floor_us": floor_us(row, speed)}
        if not row["right"]:
            reason = f"batch {row['batch']}: expected what the CPU gives, got other"
            yield {"kind": "failure", "what": f"{row['kernel']}, {row['shape']}", "reason": reason}
    if job.dry_run:
        yield skip("the kernels' times, and torchvision's", "a dry run: nothing is timed")
        return
    yield from ({"kind": "skip", **one} for one in cuda_kernels.find_skips(rows, False))


def floor_us(row: Row, copied_gb_per_s: float | None) -> float:
    """The least that a kernel can take: bytes at the bandwidth that a copy has here, operations.

    Without a measured bandwidth, and for operations always, the H100's data sheet counts.
    """
    card = CARDS["H100"]
    teraflops = card.fp16_tflops if "fp16" in row["shape"] else card.fp32_tflops
    moving = row["megabytes"] / (copied_gb_per_s or card.gb_per_s)
    return round(1e3 * max(moving, row["gigaflops"] / teraflops), 3)
