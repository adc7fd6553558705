"""The step with torch: eager, and our kernels in a CUDA graph, fp32 and fp16.

Where our kernels are compiled all begin with the picture in device memory, as libcn2 does, which
our kernel resizes; eager torch has nothing else of ours.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor

from cn2.export.describe import open_checkpoint
from cn2.export.precision import fold_norms, lower
from cn2.runtime.backends.base import RawDetections
from cn2.runtime.detections import Detections
from cn2.runtime.preprocess import PlacedPicture
from cn2.trainer.detector import AnyDetector
from gpu_export import LIBRARY, Exported, open_exported
from gpu_job import CANVAS, HOST_CANVAS, PICTURE, Job, Row, attempt, skip
from gpu_measure import in_pictures, measure, row_of, stacked
from gpu_steps import library_folder
from models import make_checkpoint
from torch_operators import Launchers, our_kernels

CAPTURE_WARM_UPS = 3


class TorchRunner:
    """A detector in eager torch, its inputs on a device."""

    implementation = "torch eager"

    def __init__(
        self,
        model: AnyDetector,
        exported: Exported,
        precision: str,
        device: str,
        kernels: Launchers | None,
    ) -> None:
        """Take the parts; with kernels a call begins with pictures, else with canvases."""
        self.model = model.to(device).eval()
        self.known, self.manifest = exported.pictures, exported.manifest
        self.precision, self.device, self.kernels = precision, device, kernels
        canvas = HOST_CANVAS if device == "cpu" else CANVAS
        self.starts_at = canvas if kernels is None else PICTURE
        self.pictures: Sequence[PlacedPicture] = []
        self.inputs: list[Tensor] = []

    def load(self, pictures: Sequence[PlacedPicture], threshold: float) -> None:
        self.pictures = pictures
        from_pictures = self.kernels is not None
        arrays = self.known.pixels_of(pictures) if from_pictures else stacked(pictures)
        tensors = [*(torch.from_numpy(one.copy()) for one in arrays), torch.tensor(threshold)]
        self.inputs = [tensor.to(self.device) for tensor in tensors]

    def detect(self) -> tuple[Tensor, ...]:
        """What the detector returns for what was loaded."""
        *given, threshold = self.inputs
        if self.kernels is None:
            return tuple(self.model(*given, threshold))
        height, width, _ = self.pictures[0].canvas.shape
        resized = [one.resized for one in self.pictures]
        how = self.manifest.canvas.interpolation
        images, sizes = self.kernels.preprocess(given, resized, how, (height, width))
        return tuple(self.model(images, sizes, threshold))

    def run(self) -> RawDetections:
        with torch.inference_mode():
            found = self.detect()
        return RawDetections(*(value.cpu().numpy() for value in found))

    def found(self, answer: RawDetections) -> list[Detections]:
        return in_pictures(answer, self.pictures, self.manifest)


class GraphRunner(TorchRunner):
    """The same in a CUDA graph, which ends with pinned results."""

    implementation = "torch, our kernels, CUDA graph"

    def load(self, pictures: Sequence[PlacedPicture], threshold: float) -> None:
        before = [tensor.shape for tensor in self.inputs]
        held = self.inputs
        super().load(pictures, threshold)
        if [tensor.shape for tensor in self.inputs] != before:
            self.graph, self.results = self.capture()
        else:
            for target, source in zip(held, self.inputs, strict=True):
                target.copy_(source)
            self.inputs = held  # where the graph reads
        self.stream.wait_stream(torch.cuda.current_stream())  # which the inputs were written on

    def capture(self) -> tuple[torch.cuda.CUDAGraph, list[Tensor]]:
        self.stream = torch.cuda.Stream()
        self.stream.wait_stream(torch.cuda.current_stream())
        with torch.inference_mode(), torch.cuda.stream(self.stream):
            for _ in range(CAPTURE_WARM_UPS):
                found = self.detect()
            results = [torch.empty_like(value, device="cpu").pin_memory() for value in found]
        self.stream.synchronize()
        graph = torch.cuda.CUDAGraph()
        with torch.inference_mode(), torch.cuda.graph(graph, stream=self.stream):
            for target, value in zip(results, self.detect(), strict=True):
                target.copy_(value, non_blocking=True)
        return graph, results

    def run(self) -> RawDetections:
        with torch.cuda.stream(self.stream):
            self.graph.replay()
        self.stream.synchronize()
        return RawDetections(*(value.numpy() for value in self.results))


def run_torch(job: Job) -> Iterator[Row]:
    """Rows of each precision, eager first: what our kernels might break comes last."""
    exported = open_exported(job, "standard")
    model, _, _ = open_checkpoint(make_checkpoint(job.preset, job.file("standard")))
    halves = partial(lower, model)
    variants: list[tuple[Callable[[], AnyDetector], str, str]] = [
        (lambda: copy.deepcopy(model), "fp32", ""),
        (halves, "fp16", ""),
        (lambda: channels_last(halves()), "fp16", "NHWC"),
        (halves, "fp16", "NCHW"),
        (lambda: folded(model), "fp32", "NCHW"),
    ]
    if not job.dry_run:
        torch.backends.cudnn.benchmark = True  # the canvas stays
        torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = False
    for make, precision, layout in variants:
        what = f"{job.preset}, torch {'graph ' + layout if layout else 'eager'}, {precision}"
        if layout and job.device == "cpu":
            yield skip(what, "there are no CUDA graphs on the CPU")
            continue
        work = dry_rows if job.dry_run else variant_rows
        yield from attempt(what, partial(work, job, exported, make, precision, layout))


def variant_rows(
    job: Job, exported: Exported, make: Callable[[], AnyDetector], precision: str, layout: str
) -> Iterator[Row]:
    """Measured rows of one variant."""
    facts = {**exported.facts, "ops": "torch", "layout": layout or "NCHW", "tf32": False}
    kernels = Launchers(LIBRARY) if job.device == "cuda" and library_folder(job) else None
    if not layout:
        runner = TorchRunner(make(), exported, precision, job.device, kernels)
        yield from measure(runner, job, exported.pictures, exported.manifest, **facts)
        return
    if kernels is None:
        raise FileNotFoundError(f"{LIBRARY.name} is not compiled; see the step compile")
    with our_kernels(kernels):
        runner = GraphRunner(make(), exported, precision, "cuda", kernels)
        yield from measure(runner, job, exported.pictures, exported.manifest, **facts)


def dry_rows(
    job: Job, exported: Exported, make: Callable[[], AnyDetector], precision: str, layout: str
) -> Iterator[Row]:
    """Rows without figures; of a graph, that nothing in it would wait for the GPU or the host."""
    from gpu_capture import find_hazards

    kind = GraphRunner if layout else TorchRunner
    runner = kind(make(), exported, precision, "cpu", None)
    runner.starts_at = PICTURE  # on a GPU
    if layout:
        hazards = find_hazards(runner.model, exported.manifest.canvas.divisor)
        if hazards:
            yield skip(f"{job.preset}, CUDA graph", f"cannot be captured: {', '.join(hazards)}")
    for batch in job.batches:
        yield {**row_of(runner, job, batch, []), **exported.facts}


def folded(model: AnyDetector) -> AnyDetector:
    """A copy whose norms are part of its convolutions."""
    one = copy.deepcopy(model).eval()
    fold_norms(one)
    return one


def channels_last(model: AnyDetector) -> AnyDetector:
    """The layout in which tensor cores read fp16; our kernels get copies in NCHW."""
    arranged: Any = model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    return arranged
