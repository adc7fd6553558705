"""The contract of every backend, and the check of its inputs."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any, NamedTuple, Protocol, runtime_checkable

import numpy as np
import numpy.typing as npt

from ..arrays import DevicePicture
from ..detections import Detections
from ..errors import ModelFormatError
from ..manifest import Manifest
from ..pictures import Pixels


class RawDetections(NamedTuple):
    """What a graph returns; rows past `num_detections` are zero."""

    num_detections: npt.NDArray[np.int32]  # (B,)
    boxes: npt.NDArray[np.float32]  # (B, D, 4) xyxy, pixels of the resized picture, clipped to it
    scores: npt.NDArray[np.float32]  # (B, D) in [0, 1], descending
    classes: npt.NDArray[np.int32]  # (B, D) 0-based, no background


class Backend(Protocol):
    """One opened model. `infer` may be called from several threads at once."""

    @property
    def manifest(self) -> Manifest: ...

    @property
    def name(self) -> str:
        """The library: "onnxruntime", "native", "torch"."""

    @property
    def device(self) -> str:
        """Where it runs: "cpu", "cuda:0"."""

    def infer(
        self,
        images: npt.NDArray[np.uint8],
        image_sizes: npt.NDArray[np.int32],
        score_threshold: float | None = None,
    ) -> RawDetections:
        """Run the graph.

        Args:
            images: (B, H, W, 3) RGB, each picture at the top left of its canvas.
            image_sizes: (B, 2) height, width of the pictures on the canvas.
            score_threshold: keep detections above it; None: the model's own.
        Raises:
            ValueError: a shape or type is not what the manifest says.
        """

    def close(self) -> None:
        """Give memory back; the backend is of no use afterwards. May be called twice."""


class StageTimes(NamedTuple):
    """Where the time inside a backend went, milliseconds."""

    preprocess_ms: float  # resize, canvas
    inference_ms: float  # the graph
    postprocess_ms: float  # boxes to the pictures' own pixels


@runtime_checkable
class PictureBackend(Backend, Protocol):
    """A backend that resizes pictures itself; `Detector` then hands them to it whole."""

    def detect(
        self,
        pictures: Sequence[Pixels | DevicePicture],
        score_threshold: float | None = None,
    ) -> tuple[list[Detections], StageTimes]:
        """Find the objects in each of some pictures, of any sizes.

        Args:
            pictures: in host memory, rows of any pitch, or in that of the backend's device.
            score_threshold: keep detections above it; None: the model's own.
        Raises:
            ValueError: a picture lies on another CUDA device than the model.
            BackendUnavailableError: a picture is in CUDA memory, and the model is not on CUDA.
        """


def check_options(device: str, threads: int | None) -> None:
    """Raise ValueError unless a backend can be opened with these."""
    if threads is not None and threads < 1:
        raise ValueError(f"threads: expected at least 1, got {threads}")
    if not re.fullmatch(r"auto|cpu|cuda(:\d+)?", device):
        raise ValueError(f"device: expected auto, cpu, cuda or cuda:<number>, got {device!r}")


def check_inputs(
    manifest: Manifest, images: npt.NDArray[Any], image_sizes: npt.NDArray[Any]
) -> None:
    """Raise ValueError, naming expected and got, unless the arrays fit the model."""
    if images.dtype != np.uint8 or images.ndim != 4 or images.shape[3] != 3:
        raise ValueError(f"images: expected uint8 (B, H, W, 3), got {images.dtype} {images.shape}")
    batch, height, width = images.shape[:3]
    if batch < 1 or batch != (manifest.batch or batch):
        raise ValueError(
            f"images: expected a batch of {manifest.batch or '1 or more'}, got {batch}"
        )
    rule = manifest.canvas
    if rule.fixed is not None and (height, width) != rule.fixed:
        raise ValueError(f"images: expected a canvas of {rule.fixed}, got {(height, width)}")
    if height % rule.divisor or width % rule.divisor or not height or not width:
        raise ValueError(
            f"images: expected a canvas in multiples of {rule.divisor}, got {(height, width)}"
        )
    if image_sizes.dtype != np.int32 or image_sizes.shape != (batch, 2):
        raise ValueError(
            f"image_sizes: expected int32 {(batch, 2)}, got {image_sizes.dtype} {image_sizes.shape}"
        )
    if (image_sizes < 1).any() or (image_sizes > (height, width)).any():
        raise ValueError(
            f"image_sizes: expected sides from 1 to the canvas {(height, width)}, "
            f"got {image_sizes.tolist()}"
        )


def check_outputs(manifest: Manifest, raw: RawDetections, batch: int, source: str) -> None:
    """Raise ModelFormatError, naming `source`, unless the arrays are what a graph must return."""
    rows = raw.scores.shape[-1] if raw.scores.ndim else 0
    wanted = ((batch,), (batch, rows, 4), (batch, rows), (batch, rows))
    shapes = tuple(array.shape for array in raw)
    if shapes != wanted:
        raise ModelFormatError(
            f"{source}: expected {', '.join(raw._fields)} of shapes {wanted}, got {shapes}; "
            f"export the model again"
        )
    for name, array, limit in (
        ("num_detections", raw.num_detections, rows + 1),
        ("classes", raw.classes, len(manifest.class_names)),
    ):
        if array.size and not (array.min() >= 0 and array.max() < limit):
            raise ModelFormatError(
                f"{source}: expected {name} from 0 to {limit - 1}, got {array.min()} to "
                f"{array.max()}; export the model again"
            )


def check_score_threshold(manifest: Manifest, score_threshold: float | None) -> None:
    """Raise ValueError, or TypeError, unless the model can be run at this threshold.

    None is the model's own.
    """
    lowest = manifest.lowest_score_threshold
    numbers = (int, float, np.integer, np.floating)
    if score_threshold is not None and not isinstance(score_threshold, numbers):
        raise TypeError(
            f"score_threshold: expected a number or None, got {type(score_threshold).__name__} "
            f"{score_threshold!r:.80}"
        )
    if score_threshold is not None and not lowest <= score_threshold <= 1:
        raise ValueError(
            f"score_threshold: expected {lowest:g} (the lowest of this model) to 1, "
            f"got {score_threshold}"
        )
