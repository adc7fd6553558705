"""Run an engine of `cn2 build` through TensorRT's own Python bindings and cuda-python.

For those without a compiler: libcn2, the backend `native`, also resizes pictures on the GPU.
"""

from __future__ import annotations

import logging
import time
import weakref
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Self

import numpy as np
import numpy.typing as npt

from ..arrays import DevicePicture
from ..detections import Detections
from ..engine_file import EngineFile, read_plan
from ..errors import BackendUnavailableError, InferenceError
from ..pictures import Pixels
from .base import (
    RawDetections,
    StageTimes,
    check_inputs,
    check_options,
    check_outputs,
    check_score_threshold,
)
from .cuda_runtime import Cuda
from .tensorrt_engine import LoadedEngine, load_engine
from .tensorrt_library import open_tensorrt
from .tensorrt_pictures import ALIGNMENT, Group, group_pictures, place_group
from .tensorrt_slots import Slot, Slots, create_slot

logger = logging.getLogger(__name__)


class TensorRTBackend:
    """An engine and a slot (context, stream, memory) for each call under way; `open` makes it."""

    name = "tensorrt"

    def __init__(
        self, engine: LoadedEngine, about: EngineFile, cuda: Cuda, path: Path, stream: int | None
    ) -> None:
        """Take what `open` made."""
        self.about = about
        self.manifest = about.manifest
        self.device = f"cuda:{cuda.number}"
        self.runtime = f"{about.runtime} {engine.library.version}"
        self._engine, self._cuda, self._path = engine, cuda, path
        self._slots = Slots(partial(create_slot, engine.create_context, cuda, stream))
        self._free = weakref.finalize(self, self._slots.close)

    @classmethod
    def open(
        cls,
        path: Path,
        *,
        device: str = "auto",
        threads: int | None = None,
        stream: int | None = None,
    ) -> Self:
        """Open an engine of `cn2 build`.

        Args:
            device: "auto", "cuda" (both: the first), "cuda:<number>".
            threads: means nothing here.
            stream: the CUDA stream that all calls use, as a number; None: one of each call's own.
                It must live as long as this object.
        Raises:
            ModelFormatError: torn, mixed up, or its tensors are not what the manifest says.
            BackendUnavailableError: the bindings or cuda-python are not installed, the bindings are
                of another version, there is no driver or no such device, or the CPU was asked for.
            PluginError: the plugin library is here, and TensorRT does not load it.
            MemoryError: the GPU has not enough.
        """
        check_options(device, threads)
        if device == "cpu":
            raise BackendUnavailableError(
                f"{path}: device 'cpu': an engine runs on an NVIDIA GPU; open the .onnx file"
            )
        about, plan = read_plan(path)
        library = open_tensorrt(about.runtime)
        cuda = Cuda(int(device.partition(":")[2] or 0))
        cuda.select()
        engine = load_engine(library, about, plan, path)
        logger.info("%s: tensorrt on cuda:%d, %s", path, cuda.number, library.version)
        return cls(engine, about, cuda, path, stream)

    def infer(
        self,
        images: npt.NDArray[np.uint8],
        image_sizes: npt.NDArray[np.int32],
        score_threshold: float | None = None,
    ) -> RawDetections:
        """Run the graph; see `Backend.infer`.

        A batch larger than the engine's is cut; a smaller one is filled, and the rest dropped.

        Raises:
            ValueError: also where no profile of the engine takes the canvas.
            InferenceError: TensorRT or CUDA failed.
            MemoryError: the GPU has not enough.
            ModelFormatError: what came out is not what the manifest says.
        """
        self._slots.check_open()
        check_inputs(self.manifest, images, image_sizes)
        check_score_threshold(self.manifest, score_threshold)
        most = self._largest_batch(images.shape[1:3])
        self._cuda.select()
        found = []
        for start in range(0, len(images), most):
            part, sizes = images[start : start + most], image_sizes[start : start + most]
            count = len(part)
            batch = self._batch_for(count, part.shape[1:3])
            blanks = np.ones((batch - count, 2), image_sizes.dtype)  # pictures of one pixel
            with self._slots.borrow() as slot:
                slot.reserve((batch, *part.shape[1:]), self.manifest.detections)
                slot.inputs["images"].host[:count] = part
                slot.inputs["images"].host[count:] = 0
                slot.inputs["images"].upload(slot.stream)
                raw = self._run(slot, np.concatenate([sizes, blanks]), score_threshold)
            found.append([values[:count] for values in raw])
        return RawDetections(*map(np.concatenate, zip(*found, strict=True)))

    def infer_at(
        self,
        address: int,
        shape: tuple[int, int, int, int],
        image_sizes: npt.NDArray[np.int32],
        score_threshold: float | None = None,
    ) -> RawDetections:
        """As `infer`, on images that are in CUDA memory: the engine reads them there.

        Args:
            address: of the canvases, a multiple of 256; what writes them is on CUDA's default
                stream, or done.
            shape: (B, H, W, 3) uint8 RGB; not cut: one profile takes B.
            image_sizes: (B, 2), in host memory.
        """
        self._slots.check_open()
        check_score_threshold(self.manifest, score_threshold)
        if (
            address % ALIGNMENT
            or not address
            or shape[3] != 3
            or image_sizes.shape != (shape[0], 2)
        ):
            raise ValueError(
                f"images: expected an address in multiples of {ALIGNMENT} of (B, H, W, 3) and "
                f"image_sizes (B, 2), got {address}, {shape}, {image_sizes.shape}"
            )
        self._cuda.select()
        with self._slots.borrow() as slot:
            slot.reserve(shape, self.manifest.detections)
            self._cuda.wait_for_default_stream(slot.stream)
            return self._run(slot, image_sizes, score_threshold, address)

    def detect(
        self,
        pictures: Sequence[Pixels | DevicePicture],
        score_threshold: float | None = None,
    ) -> tuple[list[Detections], StageTimes]:
        """Find the objects in whole pictures; see `PictureBackend.detect`.

        A picture in CUDA memory that needs no resizing never leaves it, and is not even copied
        there where it is as large as its canvas and runs alone. Others are resized on the host.
        """
        self._slots.check_open()
        check_score_threshold(self.manifest, score_threshold)
        self._cuda.select()
        found: list[Detections | None] = [None] * len(pictures)
        times = np.zeros(3)
        for group in group_pictures(pictures, self.manifest, self.device, self._largest_batch):
            results, spent = self._detect_group(group, score_threshold)
            times += spent
            for index, result in zip(group.indices, results, strict=True):
                found[index] = result
        return [one for one in found if one is not None], StageTimes(*times.tolist())

    def _detect_group(
        self, group: Group, score_threshold: float | None
    ) -> tuple[list[Detections], npt.NDArray[np.float64]]:
        from ..postprocess import to_detections

        clock = [time.perf_counter()]
        with self._slots.borrow() as slot:
            batch = self.manifest.batch or self._batch_for(len(group.pictures), group.canvas)
            slot.reserve((batch, *group.canvas, 3), self.manifest.detections)
            address = place_group(group, slot, self._cuda, self.manifest.canvas)
            clock.append(time.perf_counter())
            raw = self._run(slot, group.sizes(batch), score_threshold, address)
        clock.append(time.perf_counter())
        results = [
            to_detections(raw, row, placed, self.manifest, score_threshold)
            for row, placed in enumerate(group.placed())
        ]
        clock.append(time.perf_counter())
        return results, 1e3 * np.diff(clock)

    def close(self) -> None:
        """Give the memory back, once the calls under way are done."""
        self._free()

    def _largest_batch(self, canvas: tuple[int, ...]) -> int:
        """The most pictures of a canvas that the engine takes at a time.

        Raises:
            ValueError: it does not take the canvas.
        """
        height, width = canvas
        profiles = self.about.profiles
        fit = [one.batch[2] for one in profiles if one.takes(one.batch[0], height, width)]
        if not fit:
            sizes = " or ".join(
                f"{one.height[0]}x{one.width[0]} to {one.height[2]}x{one.width[2]}"
                for one in profiles
            )
            raise ValueError(
                f"{self._path}: expected a canvas of {sizes}, which it was built for, got "
                f"{height}x{width}; build an engine whose profiles have it"
            )
        return max(fit)

    def _batch_for(self, count: int, canvas: tuple[int, ...]) -> int:
        """The smallest batch of a canvas, of so many pictures or more, that the engine takes."""
        height, width = canvas
        batches = [
            max(count, one.batch[0])
            for one in self.about.profiles
            if count <= one.batch[2] and one.takes(one.batch[0], height, width)
        ]
        return min(batches, default=count)

    def _profile_for(self, shape: tuple[int, ...]) -> int:
        profile = self.about.profile_for(*shape[:3])
        if profile is None:
            batches = " or ".join(f"{p.batch[0]} to {p.batch[2]}" for p in self.about.profiles)
            raise ValueError(
                f"{self._path}: expected {batches} pictures of {shape[1]}x{shape[2]} at a time, "
                f"which it was built for, got {shape[0]}; build an engine whose profiles have it"
            )
        return profile

    def _run(
        self,
        slot: Slot,
        sizes: npt.NDArray[np.int32],
        score_threshold: float | None,
        images: int | None = None,
    ) -> RawDetections:
        """Run the engine on the images of a slot, or on those at an address."""
        shape = slot.inputs["images"].host.shape
        profile = self._profile_for(shape)
        threshold = self.manifest.score_threshold if score_threshold is None else score_threshold
        slot.inputs["image_sizes"].host[:] = sizes
        slot.inputs["score_threshold"].host[...] = threshold
        slot.inputs["image_sizes"].upload(slot.stream)
        slot.inputs["score_threshold"].upload(slot.stream)
        addresses = {name: tensor.device for name, tensor in (slot.inputs | slot.outputs).items()}
        if images is not None:
            addresses["images"] = images
        try:
            self._engine.execute(slot, profile, shape, addresses)
            for tensor in slot.outputs.values():
                tensor.download(slot.stream)
            self._cuda.synchronize(slot.stream)
        except InferenceError as error:
            raise InferenceError(
                f"{self._path}: TensorRT failed on images of {shape} on {self.device} ({error})"
            ) from error
        raw = RawDetections(*(slot.outputs[name].host.copy() for name in RawDetections._fields))
        check_outputs(self.manifest, raw, shape[0], str(self._path))
        return raw
