"""Run an exported model with libcn2, whose C code also resizes the pictures and scales boxes back.

libcn2 is reached through ctypes and plugins/include/cn2.h alone, as any program would.
"""

from __future__ import annotations

import ctypes
import importlib.util
import logging
import os
import threading
import weakref
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from ctypes import byref
from pathlib import Path
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from ..arrays import DevicePicture
from ..detections import Detections
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

logger = logging.getLogger(__name__)

RUNTIME_VARIABLE = "CN2_ONNXRUNTIME"  # libcn2 reads it itself
DETECTION = np.dtype([("box", "f4", 4), ("score", "f4"), ("class_id", "i4")])  # cn2_detection


class NativeBackend:
    """A model of libcn2; `open` makes it. It has a context for each call that is under way."""

    name = "native"

    def __init__(self, library: libcn2.Libcn2, model: ctypes.c_void_p, device: str, path: Path):
        """Take an opened model, which this object then closes."""
        self._library = library
        self._contexts = _Contexts(library, model)
        self._free = weakref.finalize(self, self._contexts.close)
        self._path = path
        self.device = device
        manifest: bytes = library.model_manifest(model)
        self.manifest = Manifest.from_json(manifest.decode("utf-8"), str(path))
        self.runtime: str = library.model_runtime(model).decode("utf-8")

    @classmethod
    def open(
        cls,
        path: Path,
        *,
        device: str = "auto",
        threads: int | None = None,
        standard_ops: bool = False,
    ) -> Self:
        """Open a file of `cn2 export`.

        Args:
            device: "cpu", "cuda", "cuda:<number>", or "auto": CUDA where it works, else the CPU.
            threads: CPU threads of one call; None: one per core.
            standard_ops: do without libcn2's own operators (docs/operators.md).
        Raises:
            ModelFormatError: torn, not ours, newer, or its graph is not what the manifest says.
            BackendUnavailableError: libcn2 was not built, there is no ONNX Runtime, or the device
                that was asked for does not work.
            PluginError: libcn2 is of another version, or cannot be loaded.
        """
        check_options(device, threads)
        library = libcn2.open_library()
        if device == "auto" and has_cuda_driver():
            try:
                return cls._open(library, path, "cuda:0", threads, standard_ops)
            except BackendUnavailableError as error:
                logger.info("%s: not on CUDA (%s)", path, error)
        where = {"auto": "cpu", "cuda": "cuda:0"}.get(device, device)
        return cls._open(library, path, where, threads, standard_ops)

    @classmethod
    def _open(
        cls,
        library: libcn2.Libcn2,
        path: Path,
        device: str,
        threads: int | None,
        standard_ops: bool,
    ) -> Self:
        if device != "cpu":
            _load_cuda_libraries()
        runtime = None if os.environ.get(RUNTIME_VARIABLE) else find_onnxruntime()
        options = libcn2.ModelOptions(
            threads=threads or 0,
            device=device.encode(),
            runtime_path=None if runtime is None else os.fsencode(runtime),
            standard_ops=standard_ops,
        )
        model = libcn2.Handle()
        library.model_open(os.fsencode(path), byref(options), byref(model))
        backend = cls(library, model, device, path)
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
        pairs = [self._image_of(picture) for picture in pictures]  # the pixels live until the end
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
            self._detections(row[:count], picture.shape)
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

    def _image_of(self, picture: Pixels | DevicePicture) -> tuple[libcn2.Image, object]:
        """A cn2_image, and what keeps its pixels alive."""
        if not isinstance(picture, DevicePicture):
            return host_image(picture)
        there = picture.device
        if there is not None and self.device not in ("cpu", f"cuda:{there}"):
            raise ValueError(
                f"picture: expected host memory or {self.device}, where the model is, got "
                f"cuda:{there}; copy it, or open the model with device='cuda:{there}'"
            )
        height, width, _ = picture.shape
        image = libcn2.Image(
            memory=libcn2.CUDA,
            width=width,
            height=height,
            data=picture.pointer,
            pitch=picture.pitch,
        )
        return image, picture

    def _detections(self, rows: npt.NDArray[Any], shape: tuple[int, ...]) -> Detections:
        return Detections(
            boxes=rows["box"].copy(),
            scores=rows["score"].copy(),
            class_ids=rows["class_id"].astype(np.int64),
            image_size=shape[:2],
            class_names=self.manifest.class_names,
            dataset_ids=self.manifest.category_ids,
        )


class _Contexts:
    """The contexts of a model, each used by one thread at a time; they end with the model."""

    def __init__(self, library: libcn2.Libcn2, model: ctypes.c_void_p) -> None:
        self._library = library
        self._model: ctypes.c_void_p | None = model
        self._idle: list[ctypes.c_void_p] = []
        self._lock = threading.Lock()

    def check_open(self) -> None:
        """Raise ValueError once it is closed."""
        if self._model is None:
            raise ValueError("this detector is closed; open the model again")

    @contextmanager
    def borrow(self) -> Iterator[ctypes.c_void_p]:
        """A context for one call: one that is idle, or a new one."""
        with self._lock:
            context = self._idle.pop() if self._idle else self._create()
        try:
            yield context
        finally:
            with self._lock:
                if self._model is None:
                    self._library.context_destroy(context)
                else:
                    self._idle.append(context)

    def _create(self) -> ctypes.c_void_p:
        self.check_open()
        context = libcn2.Handle()
        self._library.context_create(self._model, byref(context))
        return context

    def close(self) -> None:
        """Close the model; contexts that are borrowed end when they come back."""
        with self._lock:
            model, self._model = self._model, None
            while self._idle:
                self._library.context_destroy(self._idle.pop())
            self._library.model_close(model)


def host_image(picture: Pixels) -> tuple[libcn2.Image, Pixels]:
    """A cn2_image of an array's own memory, or of a copy where its pixels lie in another way.

    Rows may be any distance apart; `bgr[..., ::-1]` of an OpenCV picture is not copied either.
    """
    height, width, _ = picture.shape
    pitch, pixel, channel = picture.strides
    pitch = pitch if height > 1 else 3 * width
    if channel not in (1, -1) or (width > 1 and pixel != 3) or pitch < 3 * width:
        picture = np.ascontiguousarray(picture)
        pitch, channel = 3 * width, 1
    image = libcn2.Image(
        format=libcn2.RGB8 if channel == 1 else libcn2.BGR8,
        width=width,
        height=height,
        data=picture.ctypes.data - (0 if channel == 1 else 2),
        pitch=pitch,
    )
    return image, picture


def find_onnxruntime() -> Path | None:
    """The library in Python's package onnxruntime, which is not imported; None without one."""
    found = importlib.util.find_spec("onnxruntime")
    if found is None or not found.submodule_search_locations:
        return None
    folder = Path(found.submodule_search_locations[0]) / "capi"
    libraries = sorted(folder.glob("libonnxruntime.so*")) or [None]
    return libraries[0]


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
