"""The step that checks each CUDA kernel against the CPU's and times it against torchvision's."""

from __future__ import annotations

import json
from collections.abc import Iterator

import cuda_kernels
from cuda_cases import CARDS
from gpu_export import LIBRARY
from gpu_job import Job, Row, skip


def check_kernels(job: Job) -> Iterator[Row]:
    """The rows of cuda_kernels.py, each with its floor on the card that it is nearest to."""
    out = job.folder / "cuda_kernels.json"
    words = ["--out", str(out), "--batches", *map(str, job.batches)]
    if job.dry_run:
        emulated = cuda_kernels.BUILD / "libcn2_kernels_cuda_emulated.so"
        if not emulated.is_file():
            yield skip("the kernels' check", f"{emulated.name} is not built; run make native")
            return
        words.append("--dry-run")
    else:
        words += ["--library", str(LIBRARY)]
        words += ["--cpu-library", str(LIBRARY.with_name("libcn2_kernels.so"))]
    failed: str | None = None
    try:
        cuda_kernels.main(words)
    except SystemExit as error:  # wrong results; the file is written all the same
        failed = str(error)
    document = json.loads(out.read_text())
    yield {"kind": "card", "gpu": document["gpu"], "copy_gb_per_s": document["copy_gb_per_s"]}
    for row in document["rows"]:
        yield {"kind": "kernel", **row, "floor_us": floor_us(row, document["copy_gb_per_s"])}
    if job.dry_run:
        yield skip("the kernels' times, and torchvision's", "a dry run: nothing is timed")
    else:
        yield from ({"kind": "skip", **one} for one in document["skipped"])
    if failed is not None:
        yield {"kind": "failure", "what": "kernels", "reason": failed}


def floor_us(row: Row, copied_gb_per_s: float | None) -> float:
    """The least that a kernel can take: bytes at the bandwidth that a copy has here, operations.

    Without a measured bandwidth, and for operations always, the H100's data sheet counts.
    """
    card = CARDS["H100"]
    teraflops = card.fp16_tflops if "fp16" in row["shape"] else card.fp32_tflops
    moving = row["megabytes"] / (copied_gb_per_s or card.gb_per_s)
    return round(1e3 * max(moving, row["gigaflops"] / teraflops), 3)
