"""Steps on the CPU: a preset's files, the CPU's detections, and the kernels' library."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cn2.export.describe import open_checkpoint
from cn2.export.onnx_file import export_onnx
from cn2.runtime.backends.onnx_header import read_metadata
from cn2.runtime.detector import Detector
from cn2.runtime.machine import cpu_cores
from cn2.runtime.manifest import Manifest, manifest_from_metadata
from gpu_job import Job, Row, skip
from gpu_measure import CHECKED, Pictures, in_pictures, read_pictures, stacked, write_reference
from gpu_steps import BUILD, DRY_ARCHITECTURE, STAMP
from models import ROOT, is_trained, make_checkpoint

FORMS: dict[str, dict[str, Any]] = {
    "standard": {"ops": "standard"},
    "fused": {"ops": "fused"},
    "fp16": {"ops": "fused", "precision": "fp16"},
}
LIBRARY = BUILD / "libcn2_kernels_cuda_tests.so"
LOG_LINES = 40  # the last ones of a build that failed


@dataclass(frozen=True)
class Exported:
    """A file of a preset, and what the steps need to know of it."""

    path: Path
    manifest: Manifest
    pictures: Pictures
    facts: Row


def export(job: Job) -> Iterator[Row]:
    """One form of a preset; with the standard one what ONNX Runtime finds on the CPU."""
    job.file("").mkdir(parents=True, exist_ok=True)
    model, config, origin = open_checkpoint(make_checkpoint(job.preset, job.file(job.form)))
    path = job.file(f"{job.form}.onnx")
    export_onnx(model, config, path, origin=origin, **FORMS[job.form])
    if job.form == "standard":
        write_cpu_detections(job)
    yield {"kind": "file", "preset": job.preset, "form": job.form, "bytes": path.stat().st_size}


def write_cpu_detections(job: Job) -> None:
    """All; to be compared above the model's threshold, or, of random weights, above the lowest."""
    exported = open_exported(job, "standard")
    manifest, placed = exported.manifest, exported.pictures.placed[:CHECKED]
    lowest = manifest.lowest_score_threshold
    with Detector.open(exported.path, "onnxruntime", "cpu") as detector:
        found = [
            in_pictures(detector.backend.infer(*stacked([one]), lowest), [one], manifest)[0]
            for one in placed
        ]
    write_reference(job, found, manifest.score_threshold if is_trained(job.preset) else lowest)


def open_exported(job: Job, form: str) -> Exported:
    """A file that `export` has written.

    Raises:
        ModelFormatError: it has not.
    """
    path = job.file(f"{form}.onnx")
    manifest = manifest_from_metadata(read_metadata(path), str(path))
    pictures = read_pictures(job.images, manifest.canvas)
    height, width, _ = pictures.placed[0].canvas.shape
    facts = {
        "ops": manifest.ops,
        "canvas": f"{height}x{width}",
        "weights": "trained" if is_trained(job.preset) else "random",
    }
    return Exported(path, manifest, pictures, facts)


def compile_kernels(job: Job) -> Iterator[Row]:
    """nvcc, for the GPU that is here alone; a stamp says that all was built, and for what."""
    STAMP.unlink(missing_ok=True)
    for tool in ("nvcc", "cmake"):
        if shutil.which(tool) is None:
            yield skip("the CUDA kernels", f"{tool} is not on the PATH; install the CUDA toolkit")
            return
    architecture = DRY_ARCHITECTURE if job.dry_run else "native"
    configure = ["cmake", "-S", str(ROOT / "plugins"), "-B", str(BUILD)]
    configure += [f"-DCMAKE_CUDA_ARCHITECTURES={architecture}", "-DCMAKE_INSTALL_LIBDIR=lib"]
    build = ["cmake", "--build", str(BUILD), "--parallel", str(cpu_cores())]
    for command in (configure, build):
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            log = f"{done.stdout}\n{done.stderr}".strip().splitlines()
            reason = f"{' '.join(command[:2])} failed: {first_error(log)}"
            yield {**skip("the CUDA kernels", reason), "log": log[-LOG_LINES:]}
            return
    STAMP.write_text(json.dumps({"architecture": architecture}))
    libraries = sorted(path.name for path in BUILD.glob("lib*.so"))
    yield {"kind": "file", "preset": "", "form": f"sm_{architecture}", "libraries": libraries}


def first_error(log: Sequence[str]) -> str:
    """The first line that speaks of an error, else the last one."""
    errors = (line.strip() for line in log if re.search(r"\berror\b", line, re.IGNORECASE))
    return next(errors, log[-1].strip() if log else "it said nothing")
