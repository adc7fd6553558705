"""Hand pictures that are in CUDA memory to the detector: arrays of torch, CuPy and PyCUDA.

The detector reads them where they are; docs/backends.md says what it does with them. All must give
what the same picture in host memory gives.

    python examples/device_arrays.py MODEL.engine street.jpg
    python examples/device_arrays.py MODEL.onnx street.jpg --backend native
    python examples/device_arrays.py MODEL.engine street.jpg --dry-run       # touches no GPU
"""

from __future__ import annotations

import argparse
import importlib.util
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from cn2 import Detections, Detector
from cn2.runtime.pictures import Pixels, open_picture


def with_torch(picture: Pixels) -> Any:
    """A tensor; it speaks DLPack."""
    return importlib.import_module("torch").from_numpy(picture).to("cuda")


def with_cupy(picture: Pixels) -> Any:
    """A cupy.ndarray; it speaks DLPack."""
    return importlib.import_module("cupy").asarray(picture)


def with_pycuda(picture: Pixels) -> Any:
    """A GPUArray, in the context of the CUDA runtime; it offers __cuda_array_interface__."""
    importlib.import_module("pycuda.autoprimaryctx")
    return importlib.import_module("pycuda.gpuarray").to_gpu(picture)


# Resized by the GPU or by the host: a pixel may differ by 1 of 255, and boxes by a little.
TOLERANCE_PX = 0.5

MAKERS: dict[str, Callable[[Pixels], Any]] = {
    "torch": with_torch,
    "cupy": with_cupy,
    "pycuda": with_pycuda,
}


def main(arguments: Sequence[str] | None = None) -> None:
    """Find the objects in one picture, once from host memory and once from each library's array."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("model", type=Path)
    parser.add_argument("picture", type=Path)
    parser.add_argument("--backend", default="auto", help="auto, native, tensorrt")
    parser.add_argument("--dry-run", action="store_true", help="say what would be done")
    options = parser.parse_args(arguments)
    picture = open_picture(options.picture)
    here = [name for name in MAKERS if importlib.util.find_spec(name) is not None]
    for name in MAKERS:
        print(f"{name}: {'would be tried' if name in here else 'not installed, left out'}")
    if options.dry_run:
        return
    with Detector.open(options.model, options.backend, "cuda") as detector:
        expected = detector(picture)
        print(f"host memory: {len(expected)} objects by {detector}")
        for name in here:
            found = detector(MAKERS[name](picture))
            print(f"{name}: {len(found)} objects, {compare(expected, found)}")


def compare(expected: Detections, found: Detections) -> str:
    """Say that two results are the same, or end the script."""
    if len(expected) != len(found) or (expected.class_ids != found.class_ids).any():
        raise SystemExit(f"expected {expected.labels}, got {found.labels}")
    away = np.abs(expected.boxes - found.boxes).max(initial=0)
    if not away <= TOLERANCE_PX:
        raise SystemExit(f"boxes: expected at most {TOLERANCE_PX:g} px apart, got {away:.2g} px")
    return f"boxes at most {away:.2g} px from those of the picture in host memory"


if __name__ == "__main__":
    main()
