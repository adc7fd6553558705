"""Random tensors for the CUDA kernels at a model's shapes, and the calls that run them."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from cn2.export.operators.pooling import level_borders
from cuda_cases import Convolved, Model

sys.path.append(str(Path(__file__).resolve().parent.parent / "tests"))
from native_cuda import Convolution, CudaKernels, Picture, deform_conv, preprocess
from native_kernels import Found, Kernels, Proposals
from plugin_inputs import spread_boxes

Floats = NDArray[np.float32]
Ints = NDArray[np.int32]
PIXEL_FORMATS = {"RGB": 0, "BGR": 1, "RGBA": 2, "NV12": 5}  # numbers of the launcher


def make_pyramid(rng: np.random.Generator, model: Model, batch: int) -> list[Floats]:
    """Features of each level."""
    return [
        rng.standard_normal((batch, model.channels, *cells), dtype=np.float32)
        for cells in model.cells()
    ]


def pool(
    kernels: Kernels, model: Model, rois: Floats, features: list[Floats], half: bool = False
) -> NDArray[Any]:
    """PyramidRoIAlign as the model has it."""
    borders = level_borders(model.strides, 4)
    options: dict[str, Any] = {
        "sampling_ratio": model.sampling_ratio,
        "canonical_size": model.canonical_size,
    }
    if not half:
        return kernels.pyramid_roi_align(rois, features, model.strides, borders, **options)
    assert isinstance(kernels, CudaKernels)
    halfs = [feature.astype(np.float16) for feature in features]
    return kernels.pyramid_roi_align_fp16(rois, halfs, model.strides, borders, **options)


def make_candidates(
    rng: np.random.Generator, model: Model, batch: int
) -> tuple[Floats, Floats, Ints | None]:
    """Boxes and scores of the first stage, many near each other, as a detector's are.

    And the class of each box where the model's suppression keeps classes apart.
    """
    count = model.candidates()
    objects = spread_boxes(rng, (batch, max(1, count // 8)))
    chosen = rng.integers(0, objects.shape[1], (batch, count))
    boxes = np.take_along_axis(objects, chosen[..., None], axis=1)
    boxes += rng.normal(0, 2, boxes.shape).astype(np.float32)
    scores = rng.random((batch, count), dtype=np.float32)
    if not model.groups:
        return boxes, scores, None
    return boxes, scores, rng.integers(0, model.groups, (batch, count), dtype=np.int32)


def suppress_proposals(
    kernels: Kernels, model: Model, boxes: Floats, scores: Floats, classes: Ints | None
) -> Proposals:
    """ProposalNMS as the model has it."""
    return kernels.proposal_nms(boxes, scores, model.proposals, model.proposal_iou, classes=classes)


def make_scores(rng: np.random.Generator, model: Model, batch: int) -> tuple[Floats, Floats]:
    """Boxes and scores of the second stage: a few classes of each box are above the threshold."""
    boxes = spread_boxes(rng, (batch, model.proposals, model.classes if model.own_boxes else 1))
    scores = rng.random((batch, model.proposals, model.classes), dtype=np.float32) ** 12
    return boxes, scores


def suppress_detections(kernels: Kernels, model: Model, boxes: Floats, scores: Floats) -> Found:
    """DetectionNMS as the model has it."""
    return kernels.detection_nms(
        boxes, scores, model.score_threshold, model.detections, model.detection_iou
    )


def make_convolution(
    rng: np.random.Generator, one: Convolved, batch: int
) -> tuple[Convolution, list[Floats]]:
    """x, weight, offset, bias, mask; offsets of a cell or two."""
    sizes = Convolution(batch, one.channels, one.height, one.width, one.outputs, groups=one.groups)
    plane = (one.height, one.width)
    shapes = (
        (batch, one.channels, *plane),
        (one.outputs, one.channels // one.groups, 3, 3),
        (batch, 18, *plane),
        (one.outputs,),
        (batch, 9, *plane),
    )
    return sizes, [rng.standard_normal(shape, dtype=np.float32) for shape in shapes]


def convolve(
    cuda: CudaKernels, sizes: Convolution, tensors: list[Floats], half: bool = False
) -> NDArray[Any]:
    """DeformConv."""
    kind = np.float16 if half else np.float32
    return deform_conv(cuda, sizes, [tensor.astype(kind) for tensor in tensors])


def make_picture(
    rng: np.random.Generator, size: tuple[int, int], canvas: tuple[int, int], pixel_format: str
) -> tuple[Picture, list[NDArray[np.uint8]], NDArray[np.uint8]]:
    """A picture that fits the canvas, its planes, which must stay, and the same as RGB."""
    height, width = size
    scale = min(canvas[0] / height, canvas[1] / width)
    resized = (int(width * scale), int(height * scale))
    if pixel_format == "NV12":
        shapes = ((height, width), (height // 2, width))
        planes = [rng.integers(0, 256, shape, dtype=np.uint8) for shape in shapes]
        rgb = cv2.cvtColor(np.concatenate(planes), cv2.COLOR_YUV2RGB_NV12)
    else:
        pixels = rng.integers(0, 256, (height, width, len(pixel_format)), dtype=np.uint8)
        planes = [pixels.reshape(height, -1)]
        rgb = pixels[..., [pixel_format.index(channel) for channel in "RGB"]]
    pointers = [plane.ctypes.data for plane in planes] + [None]
    pitches = [plane.shape[1] for plane in planes] + [0]
    number = PIXEL_FORMATS[pixel_format]
    picture = Picture(*pointers[:2], *pitches[:2], number, width, height, *resized)
    return picture, planes, np.ascontiguousarray(rgb)


def place(
    cuda: CudaKernels, picture: Picture, batch: int, interpolation: int, canvas: tuple[int, int]
) -> NDArray[np.uint8]:
    """The same picture `batch` times on canvases."""
    return preprocess(cuda, [picture] * batch, interpolation, canvas)[0]
