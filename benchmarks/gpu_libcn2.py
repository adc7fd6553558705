"""The step with libcn2: pictures in CUDA memory, an ONNX file through ONNX Runtime, an engine."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from cn2.plugins import library_path
from cn2.runtime.arrays import as_array
from cn2.runtime.backends.base import PictureBackend
from cn2.runtime.backends.opening import open_backend
from cn2.runtime.detections import Detections
from cn2.runtime.manifest import Manifest
from cn2.runtime.preprocess import PlacedPicture
from gpu_export import Exported, open_exported
from gpu_job import HOST_PICTURE, PICTURE, Job, Row, attempt, skip
from gpu_measure import measure, row_of


class PictureRunner:
    """A backend that takes whole pictures, which torch has brought into CUDA memory."""

    def __init__(
        self, backend: PictureBackend | None, exported: Exported, manifest: Manifest, what: str
    ) -> None:
        self.implementation = what
        self.precision = manifest.precision
        self.backend = backend
        self.known = exported.pictures
        on_host = backend is not None and backend.device == "cpu"
        self.starts_at = HOST_PICTURE if on_host else PICTURE

    def load(self, pictures: Sequence[PlacedPicture], threshold: float) -> None:
        import torch

        assert self.backend is not None
        self.threshold = threshold
        where = self.backend.device
        pixels = self.known.pixels_of(pictures)
        tensors = [torch.from_numpy(one.copy()).to(where) for one in pixels]
        if where != "cpu":
            torch.cuda.synchronize()
        self.pictures: list[Any] = [as_array(tensor) for tensor in tensors]

    def run(self) -> list[Detections]:
        assert self.backend is not None
        return self.backend.detect(self.pictures, self.threshold)[0]

    def found(self, answer: list[Detections]) -> list[Detections]:
        return answer


def run_libcn2(job: Job) -> Iterator[Row]:
    """Rows of the fused ONNX files; those of engines are the step tensorrt's."""
    if library_path("cn2") is None:
        yield skip(f"{job.preset}, libcn2", "libcn2 is not built; run make native")
        return
    for form in ("fused", "fp16"):
        what = f"{job.preset}, libcn2, {form}.onnx"
        yield from attempt(what, partial(file_rows, job, form))


def file_rows(job: Job, form: str) -> Iterator[Row]:
    """Rows of one ONNX file."""
    exported = open_exported(job, form)
    what = "libcn2, ONNX Runtime"
    yield from picture_rows(job, exported, exported.manifest, exported.path, "native", what)


def picture_rows(
    job: Job, exported: Exported, manifest: Manifest, path: Path, backend: str, what: str
) -> Iterator[Row]:
    """Rows of a file that a backend of whole pictures runs."""
    if job.dry_run:
        runner = PictureRunner(None, exported, manifest, what)
        for batch in job.batches:
            yield {**row_of(runner, job, batch, []), **exported.facts}
        return
    opened = open_backend(path, backend, job.device)
    assert isinstance(opened, PictureBackend)
    runner = PictureRunner(opened, exported, manifest, what)
    yield from measure(runner, job, exported.pictures, manifest, **exported.facts)
    opened.close()
