"""Run an exported model with libcn2, whose C code also resizes the pictures and scales boxes back.

libcn2 is reached through ctypes and plugins/include/cn2.h alone, as any program would.
"""

from __future__ import annotations

import ctypes
import importlib.util
import logging
import os
import weakref
from collections.abc import Sequence
from ctypes import byref
from pathlib import Path
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from ..arrays import LEGACY_STREAM, DevicePicture
from ..detections import Detections
from ..engine_file import read_sidecar
from ..errors import BackendUnavailableError
from ..machine import has_cuda_driver
from ..manifest import Manifest
from ..pictures import Pixels
from . import libcn2
from .base import (
    RawDetections,
    StageTimes,
    check_inputs,
    check_options,
    check_outputs,
    check_score_threshold,
)
from .native_contexts import Contexts
from .native_images import image_of
from .ort_operators import CPU_ALONE, check_fused

logger = logging.getLogger(__name__)

ENGINE = ".engine"
# Of ONNX files and of engines; libcn2 reads them itself.
RUNTIME_VARIABLE, TENSORRT_VARIABLE = "CN2_ONNXRUNTIME", "CN2_TENSORRT"
# Of each runtime: the Python package that holds its library, and the library's names.
TENSORRT_PACKAGES = {
    "tensorrt": ("tensorrt_libs", "libnvinfer.so.1[0-9]"),
    "tensorrt-rtx": ("tensorrt_rtx_libs", "libtensorrt_rtx.so.[0-9]"),
}
DETECTION = np.dtype([("box", "f4", 4), ("score", "f4"), ("class_id", "i4")])  # cn2_detection


class NativeBackend:
    """A model of libcn2; `open` makes it. It has a context for each call that is under way."""

    name = "native"

    def __init__(
        self, library: libcn2.Libcn2, model: ctypes.c_void_p, device: str, path: Path
    ) -> None:
        """Take an opened model, which this object then closes."""
        self._library = library
        self._contexts = Contexts(library, model)
        self._free = weakref.finalize(self, self._contexts.close)
        self._path = path
        self.device = device
        manifest: bytes = library.model_manifest(model)
        self.manifest = Manifest.from_json(manifest.decode("utf-8"), str(path))
        self.version: str = library.version().decode("utf-8")
        self.runtime: str = library.model_runtime(model).decode("utf-8")

    @classmethod
    def open(
        cls,
        path: Path,
        *,
        device: str = "auto",
        threads: int | None = None,
        fused: bool | None = None,
    ) -> Self:
        """Open a file of `cn2 export`, or an engine of `cn2 build`.

        Args:
            device: "cpu", "cuda", "cuda:<number>", or "auto": CUDA where it works, else the CPU;
                of engines the first GPU.
            threads: CPU threads of one call; None: one per core.
            fused: run fused operators (docs/operators.md) by libcn2's kernels; False: by their
                bodies; None: by the kernels where the file has some and the device is the CPU;
                True: it must have some, and "auto" is the CPU.
        Raises:
            ModelFormatError: torn, not ours, newer, or its graph is not what the manifest says;
                `fused` was asked for, and it has no such operators.
            BackendUnavailableError: libcn2 was not built, there is no ONNX Runtime or, for an
                engine, TensorRT of its version; the device that was asked for does not work.
            PluginError: libcn2 is of another version, or cannot be loaded.
        """
        check_options(device, threads)
        library = libcn2.open_library()
        if _is_engine(path):
            where = "cuda:0" if device in ("auto", "cuda") else device
            return cls._open(library, path, where, threads, fused)
        if device == "auto" and not fused and has_cuda_driver():
            try:
                return cls._open(library, path, "cuda:0", threads, fused)
            except BackendUnavailableError as error:
                logger.info("%s: not on CUDA (%s)", path, error)
        where = {"auto": "cpu", "cuda": "cuda:0"}.get(device, device)
        return cls._open(library, path, where, threads, fused)

    @classmethod
    def _open(
        cls,
        library: libcn2.Libcn2,
        path: Path,
        device: str,
        threads: int | None,
        fused: bool | None,
    ) -> Self:
        runtime = _find_engine_runtime(path) if _is_engine(path) else _find_onnx_runtime(device)
        options = libcn2.ModelOptions(
            threads=threads or 0,
            device=device.encode(),
            runtime_path=None if runtime is None else os.fsencode(runtime),
            standard_ops=fused is False,
        )
        model = libcn2.Handle()
        library.model_open(os.fsencode(path), byref(options), byref(model))
        backend = cls(library, model, device, path)
        if fused:
            check_fused(backend.manifest, path)
            if device != "cpu" and "fused operators" not in backend.runtime:
                raise BackendUnavailableError(f"{path}: {CPU_ALONE}")
        logger.info("%s: native, %s", path, backend.runtime)
        return backend

    def infer(
        self,
        images: npt.NDArray[np.uint8],
        image_sizes: npt.NDArray[np.int32],
        score_threshold: float | None = None,
    ) -> RawDetections:
        """Run the graph; see `Backend.infer`.

        Raises:
            InferenceError: ONNX Runtime failed.
            MemoryError: there is not enough.
            ModelFormatError: what came out is not what the manifest says.
        """
        self._contexts.check_open()
        check_inputs(self.manifest, images, image_sizes)
        options = self._options(score_threshold)
        images, image_sizes = np.ascontiguousarray(images), np.ascontiguousarray(image_sizes)
        raw = libcn2.RawDetections()
        with self._contexts.borrow() as context:
            self._library.infer(
                context,
                images.ctypes.data,
                *images.shape[:3],
                image_sizes.ctypes.data,
                byref(options),
                byref(raw),
            )
            found = _copy_raw(raw, len(images))
        check_outputs(self.manifest, found, len(images), str(self._path))
        return found

    def detect(
        self,
        pictures: Sequence[Pixels | DevicePicture],
        score_threshold: float | None = None,
    ) -> tuple[list[Detections], StageTimes]:
        """Find the objects in whole pictures; see `PictureBackend.detect`."""
        self._contexts.check_open()
        options = self._options(score_threshold)
        if self.device != "cpu" and any(isinstance(one, DevicePicture) for one in pictures):
            options.cuda_stream = LEGACY_STREAM  # which those who wrote them are in step with
        pairs = [image_of(picture, self.device) for picture in pictures]  # they hold the pixels
        images = (libcn2.Image * len(pairs))(*(image for image, _ in pairs))
        capacity = self.manifest.detections
        rows = np.empty((len(pairs), capacity), DETECTION)
        counts = np.zeros(len(pairs), np.uintp)
        times = libcn2.Timings()
        with self._contexts.borrow() as context:
            self._library.detect(
                *(context, images, len(pairs), byref(options)),
                *(rows.ctypes.data, capacity, counts.ctypes.data),
            )
            self._library.context_get_timings(context, byref(times))
        found = [
            self._detections(row[:count], picture.shape[0], picture.shape[1])
            for row, count, picture in zip(rows, counts.tolist(), pictures, strict=True)
        ]
        return found, StageTimes(times.preprocess_ms, times.inference_ms, times.postprocess_ms)

    def close(self) -> None:
        """Give the model's memory back, once the calls under way are done."""
        self._free()

    def _options(self, score_threshold: float | None) -> libcn2.DetectOptions:
        check_score_threshold(self.manifest, score_threshold)
        own = score_threshold is None
        return libcn2.DetectOptions(score_threshold=-1.0 if own else score_threshold)

    def _detections(self, rows: npt.NDArray[Any], height: int, width: int) -> Detections:
        return Detections(
            boxes=rows["box"].copy(),
            scores=rows["score"].copy(),
            class_ids=rows["class_id"].astype(np.int64),
            image_size=(height, width),
            class_names=self.manifest.class_names,
            dataset_ids=self.manifest.category_ids,
        )


def find_onnxruntime() -> Path | None:
    """The library in Python's package onnxruntime, which is not imported; None without one."""
    found = importlib.util.find_spec("onnxruntime")
    if found is None or not found.submodule_search_locations:
        return None
    folder = Path(found.submodule_search_locations[0]) / "capi"
    return next(iter(sorted(folder.glob("libonnxruntime.so*"))), None)


def _is_engine(path: Path) -> bool:
    return path.suffix.lower() == ENGINE


def _find_onnx_runtime(device: str) -> Path | None:
    """The library to load; None leaves that to libcn2."""
    if device != "cpu":
        _load_cuda_libraries()
    return None if os.environ.get(RUNTIME_VARIABLE) else find_onnxruntime()


def _find_engine_runtime(path: Path) -> Path | None:
    return None if os.environ.get(TENSORRT_VARIABLE) else find_tensorrt(read_sidecar(path).runtime)


def find_tensorrt(runtime: str) -> Path | None:
    """The library in the Python package of a runtime, which is not imported; None without one."""
    package, names = TENSORRT_PACKAGES[runtime]
    found = importlib.util.find_spec(package)
    if found is None or not found.submodule_search_locations:
        return None
    folder = Path(found.submodule_search_locations[0])
    return next(iter(sorted(folder.glob(names), reverse=True)), None)


def _load_cuda_libraries() -> None:
    """Load CUDA and cuDNN out of pip's nvidia packages, where onnxruntime knows how."""
    if importlib.util.find_spec("onnxruntime") is not None:
        from .onnxruntime import import_onnxruntime, load_cuda_libraries

        load_cuda_libraries(import_onnxruntime())


def _copy_raw(raw: libcn2.RawDetections, batch: int) -> RawDetections:
    rows = raw.rows
    shapes = ((batch,), (batch, rows, 4), (batch, rows), (batch, rows))
    pointers = (raw.num_detections, raw.boxes, raw.scores, raw.classes)
    return RawDetections(
        *(
            np.ctypeslib.as_array(pointer, shape).copy()
            for pointer, shape in zip(pointers, shapes, strict=True)
        )
    )
