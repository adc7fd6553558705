"""The step with TensorRT or TensorRT-RTX: build an engine of the fp16 file, run it both ways."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from cn2.runtime.backends.tensorrt import TensorRTBackend
from cn2.runtime.detections import Detections
from cn2.runtime.engine_file import read_sidecar
from cn2.runtime.preprocess import PlacedPicture
from gpu_export import Exported, open_exported
from gpu_job import CANVAS, Job, Row, attempt, skip
from gpu_libcn2 import picture_rows
from gpu_measure import measure, row_of, stacked

FORMS = ("fp16",)  # a second one would cost the other presets their time
DRY_TARGET = "sm_86"
CALL = "import sys; from cn2.runtime.cli import run; sys.exit(run(sys.argv[1:]))"


class CanvasRunner:
    """The backend `tensorrt` on canvases in CUDA memory, of which one alone is not copied."""

    starts_at = CANVAS

    def __init__(self, backend: TensorRTBackend | None, exported: Exported, runtime: str) -> None:
        self.implementation = f"{runtime}, Python bindings"
        self.precision = exported.manifest.precision
        self.backend = backend

    def load(self, pictures: Sequence[PlacedPicture], threshold: float) -> None:
        import torch

        assert self.backend is not None
        canvases, sizes = stacked(pictures)
        self.placed, self.threshold = pictures, threshold
        self.canvases, self.sizes = torch.from_numpy(canvases).cuda(), sizes
        torch.cuda.synchronize()

    def run(self) -> Any:
        assert self.backend is not None
        return self.backend.infer_at(
            self.canvases.data_ptr(), tuple(self.canvases.shape), self.sizes, self.threshold
        )

    def found(self, answer: Any) -> list[Detections]:
        from gpu_measure import in_pictures

        assert self.backend is not None
        return in_pictures(answer, self.placed, self.backend.manifest)


def run_tensorrt(job: Job) -> Iterator[Row]:
    """Rows of the runtime that the step is named after."""
    for form in FORMS:
        what = f"{job.preset}, {job.step}, {form}"
        yield from attempt(what, partial(engine_rows, job, job.step, form))


def engine_rows(job: Job, runtime: str, form: str) -> Iterator[Row]:
    """Build, run by libcn2, which the targets are about, run by the bindings."""
    exported = open_exported(job, form)
    path = job.file(f"{form}.{runtime}.engine")
    start = time.perf_counter()
    failed = build(job, exported, runtime, path)
    if failed is not None:
        yield skip(f"{job.preset}, {runtime}, {form}: its engine", failed)
        return
    about = read_sidecar(path)
    facts = {**exported.facts, "version": about.version, "targets": list(about.targets)}
    exported = replace(exported, facts=facts)
    yield {"kind": "file", "preset": job.preset, "form": path.name} | {
        "bytes": path.stat().st_size,
        "build_s": round(time.perf_counter() - start, 2),
    }
    yield from attempt(
        f"{job.preset}, {runtime}, {form}, libcn2",
        partial(picture_rows, job, exported, about.manifest, path, "native", f"libcn2, {runtime}"),
    )
    yield from attempt(
        f"{job.preset}, {runtime}, {form}, bindings",
        partial(binding_rows, job, exported, runtime, path),
    )


def build(job: Job, exported: Exported, runtime: str, path: Path) -> str | None:
    """Build an engine by `cn2 build`; None, or why it was not.

    A GPU that TensorRT-RTX has no name for gets an engine for all newer ones.
    """
    height, width, _ = exported.pictures.placed[0].canvas.shape
    words = ["build", str(exported.path), "-o", str(path), "--runtime", runtime]
    words += ["--size", f"{height}x{width}", "--batch", f"1:1:{max(job.batches)}"]
    target = DRY_TARGET if job.dry_run else device_target()
    ways = [["--target", target], []] if runtime == "tensorrt-rtx" else [[]]
    failed = ""
    for more in ways:
        done = subprocess.run(
            [sys.executable, "-c", CALL, *words, *more], capture_output=True, text=True, check=False
        )
        if done.returncode == 0:
            return None
        lines = done.stderr.strip().splitlines() or ["no message"]
        failed = lines[-1].removeprefix("cn2: error: ")
    return failed


def device_target() -> str:
    """The GPU's compute capability, as "sm_90"."""
    import torch

    major, minor = torch.cuda.get_device_capability()
    return f"sm_{major}{minor}"


def binding_rows(job: Job, exported: Exported, runtime: str, path: Path) -> Iterator[Row]:
    """Rows of the backend tensorrt."""
    if job.dry_run:
        runner = CanvasRunner(None, exported, runtime)
        for batch in job.batches:
            yield {**row_of(runner, job, batch, []), **exported.facts}
        return
    backend = TensorRTBackend.open(path)
    runner = CanvasRunner(backend, exported, runtime)
    yield from measure(runner, job, exported.pictures, exported.manifest, **exported.facts)
    backend.close()
