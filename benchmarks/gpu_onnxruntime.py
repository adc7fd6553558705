"""The step with ONNX Runtime on CUDA: the standard and the fused form, inputs on the device."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any

from cn2.runtime.backends.base import RawDetections
from cn2.runtime.backends.onnxruntime import INPUTS, OUTPUTS, OnnxRuntimeBackend
from cn2.runtime.detections import Detections
from cn2.runtime.doctor import run_probe
from cn2.runtime.preprocess import PlacedPicture
from gpu_export import Exported, open_exported
from gpu_job import CANVAS, HOST_CANVAS, Job, Row, attempt, skip
from gpu_measure import in_pictures, measure, row_of, stacked


class OnnxRuntimeRunner:
    """A session whose inputs lie on the device, and whose outputs it brings to the host."""

    def __init__(self, backend: OnnxRuntimeBackend | None, form: str, exported: Exported) -> None:
        kernels = backend is not None and backend.fused
        way = {"standard": "standard"}.get(form, "kernels" if kernels else "bodies")
        self.implementation = f"ONNX Runtime, {way}"
        self.precision = exported.manifest.precision
        self.manifest, self.backend = exported.manifest, backend
        self.device = "cpu" if backend is not None and backend.device == "cpu" else "cuda"
        self.starts_at = HOST_CANVAS if self.device == "cpu" else CANVAS
        self.pictures: Sequence[PlacedPicture] = []

    def load(self, pictures: Sequence[PlacedPicture], threshold: float) -> None:
        import onnxruntime as ort  # type: ignore[import-untyped]

        self.pictures, self.inputs, self.threshold = pictures, stacked(pictures), threshold
        self.binding = None
        if threshold != self.manifest.score_threshold:
            return  # ONNX Runtime does not bind an input that has a default
        self.binding = self._session().io_binding()
        for name, value in zip(INPUTS, self.inputs, strict=True):
            held = ort.OrtValue.ortvalue_from_numpy(value, self.device, 0)
            self.binding.bind_ortvalue_input(name, held)
        for name in OUTPUTS:
            self.binding.bind_output(name, "cpu")

    def run(self) -> RawDetections:
        if self.binding is None:
            assert self.backend is not None
            return self.backend.infer(*self.inputs, self.threshold)
        self._session().run_with_iobinding(self.binding)
        outputs = dict(zip(OUTPUTS, self.binding.copy_outputs_to_cpu(), strict=True))
        return RawDetections(**outputs)

    def found(self, answer: RawDetections) -> list[Detections]:
        return in_pictures(answer, self.pictures, self.manifest)

    def _session(self) -> Any:
        assert self.backend is not None
        return self.backend._session


def run_onnxruntime(job: Job) -> Iterator[Row]:
    """Rows of each form."""
    if not job.dry_run:
        answer = run_probe("onnxruntime", job.device)
        if not answer["works"]:
            yield skip(f"{job.preset}, ONNX Runtime", f"{answer['reason']}; {answer['fix']}")
            return
    for form in ("standard", "fused", "fp16"):
        yield from attempt(f"{job.preset}, ONNX Runtime, {form}", partial(form_rows, job, form))


def form_rows(job: Job, form: str) -> Iterator[Row]:
    """Rows of one form."""
    exported = open_exported(job, form)
    if job.dry_run:
        runner = OnnxRuntimeRunner(None, form, exported)
        for batch in job.batches:
            yield {**row_of(runner, job, batch, []), **exported.facts}
        return
    backend = OnnxRuntimeBackend.open(exported.path, device=job.device)
    runner = OnnxRuntimeRunner(backend, form, exported)
    yield from measure(runner, job, exported.pictures, exported.manifest, **exported.facts)
    backend.close()
