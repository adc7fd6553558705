"""The CUDA kernels on a GPU: right, against the CPU's, and how fast, against torchvision's.

Needs nvcc, CMake and a GPU; torch with CUDA for the comparison. Kernels are timed inside a CUDA
graph of ten launches, with events; the results that are checked come out of that graph, too.
Result: benchmarks/results/cuda_kernels.json.

    python benchmarks/cuda_kernels.py
    python benchmarks/cuda_kernels.py --dry-run       # no GPU: emulated, small, not timed
"""

from __future__ import annotations

import argparse
import shutil
import subprocess
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np

import cuda_inputs as inputs
from cn2.runtime.machine import cpu_cores, versions
from cn2.runtime.reports import write_json
from cuda_cases import (
    CONVOLUTIONS,
    DETECTING,
    MODELS,
    PROPOSING,
    Case,
    Convolved,
    Model,
    deform_conv_case,
    detection_nms_case,
    preprocess_case,
    proposal_nms_case,
    roi_align_case,
)
from cuda_inputs import CudaKernels, Kernels
from cuda_opponents import find_opponent, gpu_name, measure_bandwidth
from models import RESULTS, ROOT, machine

BUILD = ROOT / "build" / "native"
TINY = Model("tiny", (64, 96), (8, 16), 30, 8, 5, classes=4, detections=10)
TINY_CLASSED = TINY._replace(
    name="tiny, classes", proposals=20, proposal_iou=0.6, per_cell=3, groups=4, own_boxes=True
)
TINY_CONVOLUTION = Convolved("tiny", 8, 20, 5, 6)
HALF_STEP = 2.0**-11  # relative error of rounding to half precision
TOLERANCE = 1e-5  # relative to the largest value: sums in another order
SLOW_REPEATS = 10  # graphs of DeformConv, whose largest launch takes milliseconds
Row = dict[str, Any]


def main(arguments: Sequence[str] | None = None) -> None:
    """Build, check, time, write."""
    options = parse(arguments)
    document: Row = {
        "benchmark": "cuda_kernels",
        "command": "python benchmarks/cuda_kernels.py",
        "machine": machine(),
        "gpu": None if options.dry_run else gpu_name(),
        "versions": versions("numpy", "torch", "torchvision"),
        "dry_run": options.dry_run,
        "copy_gb_per_s": None if options.dry_run else measure_bandwidth(),
        "rows": [],
        "failures": [],
        "skipped": [],
    }
    for row in check_all(options):
        if "failed" in row:
            document["failures"].append(row)
            print(f"{row['what']}: {row['failed']}", flush=True)
            continue
        print(describe(row), flush=True)
        document["rows"].append(row)
    document["skipped"] = find_skips(document["rows"], options.dry_run)
    write_json(str(options.out), document)
    failed = find_failures(document["rows"]) + [row["what"] for row in document["failures"]]
    if failed:
        raise SystemExit(f"{len(failed)} kernels: expected what the CPU gives, got other: {failed}")


def find_failures(rows: Sequence[Row]) -> list[str]:
    """What gave other results than the CPU."""
    return [row["shape"] for row in rows if not row["right"]]


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--batches", nargs="+", type=int, default=[1, 16])
    parser.add_argument("--repeats", type=int, default=100, help="timed graphs of ten launches")
    parser.add_argument("--library", type=Path, help="default: build it, for this GPU")
    parser.add_argument("--cpu-library", type=Path, default=BUILD / "libcn2_kernels.so")
    parser.add_argument("--out", type=Path, default=RESULTS / "cuda_kernels.json")
    parser.add_argument("--dry-run", action="store_true", help="emulated, small, not timed")
    return parser.parse_args(arguments)


def find_library(emulated: bool) -> Path:
    """The kernels' library for tests: the emulated one as `make native` left it, or a new one."""
    if emulated:
        return BUILD / "libcn2_kernels_cuda_emulated.so"
    if shutil.which("nvcc") is None:
        raise SystemExit("nvcc: expected it on the PATH, found none; install the CUDA toolkit")
    folder = ROOT / "build" / "cuda"
    source = ["-S", str(ROOT / "plugins"), "-B", str(folder)]
    subprocess.run(["cmake", *source, "-DCMAKE_CUDA_ARCHITECTURES=native"], check=True)
    target = ["--target", "cn2_kernels_cuda_tests", "--parallel", str(cpu_cores())]
    subprocess.run(["cmake", "--build", str(folder), *target], check=True)
    return folder / "libcn2_kernels_cuda_tests.so"


def check_all(options: argparse.Namespace) -> Iterator[Row]:
    """A row for each kernel, shape and batch as soon as it is there; for one that raises, why."""
    cuda = CudaKernels(options.library or find_library(options.dry_run))
    cpu = Kernels(options.cpu_library)
    for batch in options.batches:
        for what, repeats, run in find_runs(cuda, cpu, batch, options):
            cuda.set_repeats(0 if options.dry_run else repeats)
            try:
                yield from run()
            except Exception as error:  # of ours, torch and the driver, which share no base
                text = " ".join(str(error).split()) or type(error).__name__
                yield {"what": f"{what}, batch {batch}", "failed": text[:500]}


def find_runs(
    cuda: CudaKernels, cpu: Kernels, batch: int, options: argparse.Namespace
) -> Iterator[tuple[str, int, Callable[[], Iterator[Row]]]]:
    """What each is, how many graphs of it are timed, and the case itself."""
    often, small = options.repeats, options.dry_run
    models = (TINY,) if small else MODELS
    for one in models:
        yield f"PyramidRoIAlign, {one.name}", often, partial(run_roi_align, cuda, cpu, one, batch)
    for one in (TINY, TINY_CLASSED) if small else PROPOSING:
        yield f"ProposalNMS, {one.name}", often, partial(run_proposal_nms, cuda, cpu, one, batch)
    for one in (TINY, TINY_CLASSED) if small else DETECTING:
        yield f"DetectionNMS, {one.name}", often, partial(run_detection_nms, cuda, cpu, one, batch)
    for one in models:
        yield f"preprocess, {one.name}", often, partial(run_preprocess, cuda, one, batch, small)
    seldom = min(often, SLOW_REPEATS)
    for layer in (TINY_CONVOLUTION,) if small else CONVOLUTIONS:
        yield f"DeformConv, {layer.name}", seldom, partial(run_deform_conv, cuda, layer, batch)


def row_of(cuda: CudaKernels, case: Case, batch: int, error: float, bound: float) -> Row:
    """What the last call of a kernel took, and whether it was right."""
    times = cuda.take_times()
    median = float(np.median(times)) if times else None
    return {
        "kernel": case.kernel,
        "shape": case.shape,
        "batch": batch,
        "right": bool(error <= bound),
        "error": float(error) if np.isfinite(error) else None,  # JSON has no word for others
        "bound": float(bound),
        "us": None if median is None else round(median, 2),
        "us_p90": None if median is None else round(float(np.quantile(times, 0.9)), 2),
        "megabytes": case.megabytes,
        "gigaflops": case.gigaflops,
        "torchvision_us": None,
    }


def run_roi_align(cuda: CudaKernels, cpu: Kernels, model: Model, batch: int) -> Iterator[Row]:
    rng = np.random.default_rng(0)
    features = inputs.make_pyramid(rng, model, batch)
    rois = inputs.spread_boxes(rng, (batch, model.proposals))
    expected = inputs.pool(cpu, model, rois, features)
    largest = float(np.abs(expected).max())
    for half, element in ((False, 4), (True, 2)):
        pooled = inputs.pool(cuda, model, rois, features, half)
        error = np.abs(pooled.astype(np.float32) - expected).max()
        # half: the features are rounded, and the result
        bound = largest * (2 * HALF_STEP if half else TOLERANCE) + (HALF_STEP * 6 if half else 0)
        row = row_of(cuda, roi_align_case(model, element, batch), batch, error, bound)
        opponent = find_opponent("roi_align", cuda, model, rois, features, half)
        yield {**row, "torchvision_us": opponent}


def run_proposal_nms(cuda: CudaKernels, cpu: Kernels, model: Model, batch: int) -> Iterator[Row]:
    candidates = inputs.make_candidates(np.random.default_rng(1), model, batch)
    ours = inputs.suppress_proposals(cuda, model, *candidates)
    theirs = inputs.suppress_proposals(cpu, model, *candidates)
    given = 2 if candidates[2] is None else 3  # without classes none are kept
    error = max(np.abs(a - b).max() for a, b in zip(ours[:given], theirs[:given], strict=True))
    row = row_of(cuda, proposal_nms_case(model, batch), batch, error, 0)
    opponent = find_opponent("proposal_nms", cuda, model, *candidates)
    yield {**row, "torchvision_us": opponent}


def run_detection_nms(cuda: CudaKernels, cpu: Kernels, model: Model, batch: int) -> Iterator[Row]:
    boxes, scores = inputs.make_scores(np.random.default_rng(2), model, batch)
    ours = inputs.suppress_detections(cuda, model, boxes, scores)
    theirs = inputs.suppress_detections(cpu, model, boxes, scores)
    error = max(np.abs(a - b).max() for a, b in zip(ours, theirs, strict=True))
    row = row_of(cuda, detection_nms_case(model, batch), batch, error, 0)
    opponent = find_opponent("detection_nms", cuda, model, boxes, scores)
    yield {**row, "torchvision_us": opponent}


def run_deform_conv(cuda: CudaKernels, one: Convolved, batch: int) -> Iterator[Row]:
    import torch
    import torchvision.ops  # type: ignore[import-untyped]

    sizes, tensors = inputs.make_convolution(np.random.default_rng(3), one, batch)
    x, weight, offset, bias, mask = map(torch.from_numpy, tensors)
    options = {"padding": (1, 1), "mask": mask}
    expected = torchvision.ops.deform_conv2d(x, offset, weight, bias, **options).numpy()
    largest = float(np.abs(expected).max())
    for half, element in ((False, 4), (True, 2)):
        y = inputs.convolve(cuda, sizes, tensors, half)
        error = np.abs(y.astype(np.float32) - expected).max()
        bound = largest * (8 * HALF_STEP if half else TOLERANCE)  # half: offsets are rounded, too
        row = row_of(cuda, deform_conv_case(one, element, batch), batch, error, bound)
        opponent = find_opponent("deform_conv", cuda, tensors, half)
        yield {**row, "torchvision_us": opponent}


def run_preprocess(cuda: CudaKernels, model: Model, batch: int, small: bool) -> Iterator[Row]:
    """Every picture of the batch, in each format, against Pillow and OpenCV."""
    from cn2.runtime.preprocess import resize_into

    rng = np.random.default_rng(4)
    size = (48, 64) if small else (480, 640)
    resizes = ((0, "antialias"), (1, "linear"))
    for pixel_format, (interpolation, name) in product(inputs.PIXEL_FORMATS, resizes):
        picture, planes, rgb = inputs.make_picture(rng, size, model.canvas, pixel_format)
        canvases = inputs.place(cuda, picture, batch, interpolation, model.canvas)
        expected = np.zeros((*model.canvas, 3), np.uint8)
        target = expected[: picture.resized_height, : picture.resized_width]
        resize_into(target, rgb, name)  # type: ignore[arg-type]
        error = np.abs(canvases.astype(int) - expected).max()
        shape = f"{size[1]}x{size[0]} {pixel_format} {name}"
        case = preprocess_case(model, shape, sum(plane.size for plane in planes), batch)
        yield row_of(cuda, case, batch, float(error), 1)


def find_skips(rows: Sequence[Row], dry_run: bool) -> list[Row]:
    """What was not measured, and why."""
    why = "a dry run: nothing is timed" if dry_run else "torch sees no GPU, or has no such operator"
    names = {"us": "time", "torchvision_us": "torchvision's time"}
    return [
        {"what": f"{what} of {row['kernel']}, {row['shape']}, batch {row['batch']}", "reason": why}
        for row in rows
        for key, what in names.items()
        if row[key] is None
    ]


def describe(row: Row) -> str:
    """A line of progress."""
    error = "NaN or infinity" if row["error"] is None else f"{row['error']:.3g}"
    verdict = "right" if row["right"] else f"WRONG by {error}"
    time = "not timed" if row["us"] is None else f"{row['us']:.1f} us"
    other = (
        "" if row["torchvision_us"] is None else f" (torchvision {row['torchvision_us']:.1f} us)"
    )
    return f"{row['kernel']}, {row['shape']}, batch {row['batch']}: {verdict}, {time}{other}"


if __name__ == "__main__":
    main()
