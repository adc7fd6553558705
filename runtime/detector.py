"""Find objects in pictures: open, resize, run the model, scale back."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeVar, overload

import numpy as np

from .backends.base import Backend, PictureBackend, check_score_threshold
from .backends.opening import open_backend
from .detections import Detections
from .manifest import Manifest
from .pictures import MAX_PIXELS, Picture, open_anywhere, open_picture
from .postprocess import to_detections
from .preprocess import PlacedPicture, place_picture, stack_pictures

AnyPicture = TypeVar("AnyPicture", bound=Picture)  # so that a list[str] is as good as list[Picture]

MAX_BATCH = 8  # pictures a run where the model takes any number


@dataclass(kw_only=True)
class Timings:
    """Where the time of a call went, milliseconds, all its pictures together."""

    decode_ms: float = 0.0  # files to RGB; 0 for arrays
    preprocess_ms: float = 0.0  # resize, place, stack
    inference_ms: float = 0.0  # inside the backend
    postprocess_ms: float = 0.0  # boxes to the pictures' own pixels

    @property
    def total_ms(self) -> float:
        """All stages."""
        return self.decode_ms + self.preprocess_ms + self.inference_ms + self.postprocess_ms

    @contextmanager
    def measure(self, stage: str) -> Iterator[None]:
        """Add the time spent inside to the stage ("decode", "preprocess", …)."""
        start = time.perf_counter()
        try:
            yield
        finally:
            elapsed_ms = (time.perf_counter() - start) * 1e3
            setattr(self, f"{stage}_ms", getattr(self, f"{stage}_ms") + elapsed_ms)


class Detector:
    """A model ready to run. Calls from several threads are safe.

    `detector(picture)` takes a path or an (H, W, 3) uint8 RGB array and returns `Detections`; a
    list gives a list, in order. A picture's result does not depend on the others of its list.

    An array is numpy's or any other library's that offers DLPack or the array interface; host
    memory is not copied. Arrays in CUDA memory (torch, CuPy, PyCUDA, …) go to the backends `native`
    and `tensorrt` on the same device; other backends refuse them.
    """

    def __init__(
        self, backend: Backend, *, max_pixels: int = MAX_PIXELS, max_batch: int = MAX_BATCH
    ) -> None:
        """Take an opened backend; `Detector.open` is the usual way.

        Args:
            max_pixels: refuse picture files of more pixels.
            max_batch: most pictures a run, where the model takes any number.
        """
        if max_batch < 1:
            raise ValueError(f"max_batch: expected at least 1, got {max_batch}")
        self.backend = backend
        self.max_pixels = max_pixels
        self.max_batch = backend.manifest.batch or max_batch
        self._takes_whole = backend if isinstance(backend, PictureBackend) else None

    @classmethod
    def open(
        cls,
        path: str | Path,
        backend: str = "auto",
        device: str = "auto",
        *,
        max_pixels: int = MAX_PIXELS,
        max_batch: int = MAX_BATCH,
        **options: Any,
    ) -> Self:
        """Open a model file.

        Args:
            path: `.onnx`, `.engine` (of `cn2 build`), or `.safetensors` where torch is installed.
            backend: "onnxruntime", "native" (libcn2), "tensorrt", "torch", or "auto": by
                the file's suffix, onnxruntime for `.onnx`; for `.engine` native, or tensorrt where
                libcn2 is not built for engines.
            device: "cpu", "cuda", "cuda:1", or "auto": CUDA where it works, else the CPU; an
                engine runs on CUDA alone.
            options: the backend's own, for example `threads=2`.
        Raises:
            ModelFormatError: no such file, torn, not ours, or newer than this package.
            BackendUnavailableError: the backend's library or the device is not here.
            PluginError: libcn2 cannot be loaded, or is of another version.
        """
        opened = open_backend(Path(path), backend, device, **options)
        return cls(opened, max_pixels=max_pixels, max_batch=max_batch)

    @property
    def manifest(self) -> Manifest:
        """What the model file says of itself."""
        return self.backend.manifest

    @overload
    def __call__(self, pictures: Picture, score_threshold: float | None = None) -> Detections: ...

    @overload
    def __call__(
        self, pictures: list[AnyPicture], score_threshold: float | None = None
    ) -> list[Detections]: ...

    def __call__(
        self, pictures: Picture | list[AnyPicture], score_threshold: float | None = None
    ) -> Detections | list[Detections]:
        """Find the objects in a picture, or in each of a list.

        Args:
            score_threshold: keep detections above it; default: the model's own.
        Raises:
            PictureError: a file cannot be read.
            ValueError: an array is not (H, W, 3) uint8, or lies where the backend cannot read it;
                the threshold is below the model's lowest or above 1.
            TypeError: neither picture nor list of pictures; a threshold that is no number.
            InferenceError: the backend's library failed, for want of memory for one.
        """
        if isinstance(pictures, (list, tuple)):
            return self.detect_timed(pictures, score_threshold)[0]
        return self.detect_timed([pictures], score_threshold)[0][0]

    def detect_timed(
        self, pictures: Sequence[Picture], score_threshold: float | None = None
    ) -> tuple[list[Detections], Timings]:
        """As `detector(pictures)`, and where the time went."""
        check_score_threshold(self.manifest, score_threshold)
        timings = Timings()
        if self._takes_whole is not None:
            return self._detect_whole(self._takes_whole, pictures, score_threshold, timings)
        found: list[Detections | None] = [None] * len(pictures)
        waiting: dict[tuple[int, ...], list[tuple[int, PlacedPicture]]] = {}

        def run(group: list[tuple[int, PlacedPicture]]) -> None:
            results = self._infer([placed for _, placed in group], score_threshold, timings)
            for (index, _), result in zip(group, results, strict=True):
                found[index] = result
            group.clear()

        for index, picture in enumerate(pictures):
            with timings.measure("decode"):
                pixels = open_picture(picture, max_pixels=self.max_pixels)
            with timings.measure("preprocess"):
                placed = place_picture(pixels, self.manifest.canvas)
            group = waiting.setdefault(placed.canvas.shape, [])
            group.append((index, placed))
            if len(group) == self.max_batch:
                run(group)
        for group in filter(None, waiting.values()):
            run(group)
        return [result for result in found if result is not None], timings

    def _detect_whole(
        self,
        backend: PictureBackend,
        pictures: Sequence[Picture],
        score_threshold: float | None,
        timings: Timings,
    ) -> tuple[list[Detections], Timings]:
        found: list[Detections] = []
        for start in range(0, len(pictures), self.max_batch):
            with timings.measure("decode"):
                opened = [
                    open_anywhere(picture, max_pixels=self.max_pixels)
                    for picture in pictures[start : start + self.max_batch]
                ]
            with timings.measure("postprocess"):  # and what no stage of the backend accounts for
                results, stages = backend.detect(opened, score_threshold)
            found += results
            timings.preprocess_ms += stages.preprocess_ms
            timings.inference_ms += stages.inference_ms
            timings.postprocess_ms -= stages.preprocess_ms + stages.inference_ms
        return found, timings

    def _infer(
        self, placed: list[PlacedPicture], score_threshold: float | None, timings: Timings
    ) -> list[Detections]:
        with timings.measure("preprocess"):
            images, image_sizes = stack_pictures(placed, self.manifest.batch)
        with timings.measure("inference"):
            raw = self.backend.infer(images, image_sizes, score_threshold)
        with timings.measure("postprocess"):
            return [
                to_detections(raw, row, picture, self.manifest, score_threshold)
                for row, picture in enumerate(placed)
            ]

    def warm_up(self, height: int = 480, width: int = 640, runs: int = 3) -> None:
        """Run on blank pictures of one size, so that the first real one is not the slow one."""
        blank = np.zeros((height, width, 3), dtype=np.uint8)
        for _ in range(runs):
            self.detect_timed([blank])

    def close(self) -> None:
        """Give the model's memory back."""
        self.backend.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<Detector: {self.manifest.preset}, {self.backend.name} on {self.backend.device}>"
