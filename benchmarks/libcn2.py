"""libcn2 through its C interface against the Python backend: whole calls on nano, and the resizes.

Decoded pictures in, detections out, both sides in turns within one run and with the same threads.
`outside` is a call's whole time less what it spends in ONNX Runtime. The resizes are those of
cn2_resize, OpenCV (INTER_LINEAR) and Pillow (BILINEAR), one thread each.
Result: benchmarks/results/libcn2.json.

    python benchmarks/libcn2.py
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from ctypes import byref, c_size_t
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
from PIL import Image

from cn2.runtime.backends import libcn2
from cn2.runtime.backends.native import find_onnxruntime
from cn2.runtime.backends.native_images import host_image
from cn2.runtime.detector import Detector
from cn2.runtime.machine import cpu_cores, versions
from cn2.runtime.pictures import open_picture
from cn2.runtime.reports import write_json
from models import PICTURE_SIZE, RESULTS, find_pictures, machine, make_files

Pixels = npt.NDArray[np.uint8]
Row = dict[str, Any]
CAPACITY = 100
RESIZES = (  # picture height, width, target height, width
    (480, 640, 384, 512),  # nano's canvas
    (427, 640, 384, 576),
    (1080, 1920, 384, 683),
    (960, 1280, 480, 640),  # exactly half
    (480, 640, 512, 683),  # dla34-bifpn-p3's canvas
    (480, 640, 800, 1067),  # r50-fpn's
)


class NativeDetector:
    """nano through the C functions alone, a picture a call."""

    def __init__(self, path: Path, threads: int) -> None:
        self.library = libcn2.open_library()
        self.model, self.context = libcn2.Handle(), libcn2.Handle()
        runtime = str(find_onnxruntime()).encode()
        options = libcn2.ModelOptions(threads=threads, runtime_path=runtime)
        self.library.model_open(str(path).encode(), byref(options), byref(self.model))
        self.library.context_create(self.model, byref(self.context))
        self.found = (libcn2.Detection * CAPACITY)()
        self.count = (c_size_t * 1)()

    def __call__(self, picture: Pixels) -> int:
        """How many objects it finds."""
        given, _ = host_image(picture)
        arguments = (self.context, byref(given), 1, None, self.found, CAPACITY, self.count)
        self.library.detect(*arguments)
        return int(self.count[0])

    def stages(self) -> dict[str, float]:
        """Milliseconds of the last call."""
        timings = libcn2.Timings()
        self.library.context_get_timings(self.context, byref(timings))
        names = ("preprocess", "inference", "postprocess")
        return {name: float(getattr(timings, f"{name}_ms")) for name in names}


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, write."""
    options = parse(arguments)
    before = machine()
    with tempfile.TemporaryDirectory() as folder:
        path = options.model or make_files("nano", Path(folder)).onnx
        pictures = [open_picture(p) for p in find_pictures(None, options.pictures)]
        rows = [race(path, pictures, threads, options) for threads in (1, cpu_cores())]
    document = {
        "benchmark": "libcn2",
        "command": "python benchmarks/libcn2.py",
        "machine": before,
        "versions": versions("onnxruntime", "opencv-python-headless", "pillow"),
        "picture": list(PICTURE_SIZE[::-1]),
        "nano": rows,
        "resize": [time_resize(sizes, options.resizes) for sizes in RESIZES],
    }
    write_json(str(options.out), document)
    print(f"{options.out}: {len(rows)} and {len(RESIZES)} rows")


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--model", type=Path, help="nano, exported; default: export it")
    parser.add_argument("--pictures", type=int, default=20, help="COCO pictures, taken in turn")
    parser.add_argument("--runs", type=int, default=100)
    parser.add_argument("--warmup", type=int, default=20)
    parser.add_argument("--resizes", type=int, default=200, help="runs of each resize")
    parser.add_argument("--out", type=Path, default=RESULTS / "libcn2.json")
    return parser.parse_args(arguments)


def race(path: Path, pictures: Sequence[Pixels], threads: int, options: argparse.Namespace) -> Row:
    """Whole calls of both sides in turns, and their stages."""
    native = NativeDetector(path, threads)
    detector = Detector.open(path, "onnxruntime", "cpu", threads=threads)
    times: dict[str, list[dict[str, float]]] = {"libcn2": [], "python": []}
    for run in range(-options.warmup, options.runs):
        picture = pictures[run % len(pictures)]
        whole, found = clock(native, picture)
        one = {"whole": whole, **native.stages()}
        whole, (detections, stages) = clock(detector.detect_timed, [picture])
        other = {
            "whole": whole,
            **{name: getattr(stages, f"{name}_ms") for name in one if name != "whole"},
        }
        if found != len(detections[0]):
            raise RuntimeError(f"libcn2 finds {found} objects, Python {len(detections[0])}")
        if run >= 0:
            times["libcn2"].append({**one, "outside": one["whole"] - one["inference"]})
            times["python"].append({**other, "outside": other["whole"] - other["inference"]})
    rows = {name: summarise(values) for name, values in times.items()}
    ratio = np.median([n["whole"] / p["whole"] for n, p in zip(*times.values(), strict=True)])
    row = {"threads": threads, "runs": options.runs, **rows, "whole_ratio": round(float(ratio), 4)}
    outside = {name: stages["outside"]["median"] for name, stages in rows.items()}
    print(f"{threads} threads: whole {row['whole_ratio']} of Python's; outside, ms: {outside}")
    return row


def clock(call: Callable[..., Any], *arguments: Any) -> tuple[float, Any]:
    """Milliseconds, and what the call returned."""
    start = time.perf_counter()
    result = call(*arguments)
    return (time.perf_counter() - start) * 1e3, result


def summarise(rows: Sequence[dict[str, float]]) -> dict[str, dict[str, float]]:
    """Median, 90th and 99th percentile of each stage, ms."""
    return {name: spread([row[name] for row in rows]) for name in rows[0]}


def spread(values: Sequence[float]) -> dict[str, float]:
    median, p90, p99 = np.percentile(values, [50, 90, 99])
    return {
        "median": round(float(median), 4),
        "p90": round(float(p90), 4),
        "p99": round(float(p99), 4),
    }


def time_resize(sizes: tuple[int, int, int, int], runs: int) -> Row:
    """One pair of sizes: cn2_resize and its reference in turns, for both interpolations."""
    height, width, *target = sizes
    picture = np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)
    row: Row = {"from": [height, width], "to": target, "runs": runs}
    cv2.setNumThreads(1)
    for name, kind, reference in (
        ("linear", libcn2.LINEAR, resize_opencv),
        ("antialias", libcn2.ANTIALIAS, resize_pillow),
    ):
        ours, theirs = np.zeros((*target, 3), np.uint8), np.zeros((*target, 3), np.uint8)
        times: list[tuple[float, float]] = []
        for run in range(-5, runs):
            first, _ = clock(resize_native, picture, kind, ours)
            second, _ = clock(reference, picture, theirs)
            if run >= 0:
                times.append((first, second))
        medians = np.median(times, axis=0)
        row[name] = {
            "libcn2_ms": round(float(medians[0]), 4),
            "reference_ms": round(float(medians[1]), 4),
            "ratio": round(float(medians[0] / medians[1]), 4),
            "largest_difference": int(np.abs(ours.astype(int) - theirs).max()),
        }
    cv2.setNumThreads(-1)
    print(row)
    return row


def resize_native(picture: Pixels, kind: int, target: Pixels) -> None:
    given, _ = host_image(picture)
    height, width = target.shape[:2]
    libcn2.open_library().resize(byref(given), kind, target.ctypes.data, width, height, 0)


def resize_opencv(picture: Pixels, target: Pixels) -> None:
    cv2.resize(picture, target.shape[1::-1], dst=target, interpolation=cv2.INTER_LINEAR)


def resize_pillow(picture: Pixels, target: Pixels) -> None:
    image = Image.fromarray(picture).resize(target.shape[1::-1], Image.Resampling.BILINEAR)
    target[:] = np.asarray(image)


if __name__ == "__main__":
    sys.exit(main())
