"""Our CUDA kernels behind the detector's own torch operators, torch.ops.cn2: no copy, no wait.

What they launch goes into torch's current stream, so a detector whose operators they are can be
captured into a CUDA graph. The library is that of the tests (tests/plugins/native): for a GPU
build/cuda/libcn2_kernels_cuda_tests.so; emulated, its "device" is the CPU.
"""

from __future__ import annotations

import ctypes
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from cn2.export.operators.pooling import level_borders
from cn2.export.operators.suppression import largest_float32
from cn2.trainer import ops
from cuda_inputs import PIXEL_FORMATS, Picture

INTERPOLATIONS = {"antialias": 0, "linear": 1}  # numbers of the launcher


class Level(ctypes.Structure):
    """cn2_kernels_level."""

    _fields_ = (
        ("data", ctypes.c_void_p),
        ("height", ctypes.c_int64),
        ("width", ctypes.c_int64),
        ("stride", ctypes.c_int64),
    )


class Launchers:
    """The entries of device_entries.h on torch tensors, which are all on one device."""

    def __init__(self, path: Path) -> None:
        self.library = ctypes.CDLL(str(path))
        self.calls = 0

    def pyramid_roi_align(
        self,
        rois: Tensor,
        features: Sequence[Tensor],
        strides: Sequence[int],
        canonical_level: int,
        canonical_size: float,
        output_size: int,
        sampling_ratio: int,
    ) -> Tensor:
        """As torch.ops.cn2.pyramid_roi_align; features of fp32 or fp16."""
        rois, kept = rois.float().contiguous(), [level.contiguous() for level in features]
        (batch, count, _), channels = rois.shape, kept[0].shape[1]
        pooled = kept[0].new_empty(batch, count, channels, output_size, output_size)
        levels = (Level * len(kept))(
            *(Level(f.data_ptr(), *f.shape[2:], s) for f, s in zip(kept, strides, strict=True))
        )
        size = ctypes.c_float(canonical_size)
        sizes = _sizes(batch, count, channels, output_size, sampling_ratio)
        self._launch(
            "pyramid_roi_align",
            (
                *(_address(rois), levels, ctypes.c_int64(len(kept))),
                *(_borders(*strides, canonical_level), sizes, size),
                *(_is_half(kept[0]), _address(pooled)),
            ),
            (sizes, size),
            pooled,
        )
        return pooled

    def proposal_nms(
        self, boxes: Tensor, scores: Tensor, k: int, iou_threshold: float
    ) -> tuple[Tensor, Tensor]:
        """As torch.ops.cn2.proposal_nms."""
        kept_boxes, kept_scores, _ = self._suppress(boxes, scores, None, k, iou_threshold)
        return kept_boxes, kept_scores

    def class_nms(
        self,
        boxes: Tensor,
        scores: Tensor,
        classes: Tensor,
        class_count: int,
        detections: int,
        iou_threshold: float,
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """As torch.ops.cn2.class_nms."""
        found = self._suppress(boxes, scores, classes.int(), detections, iou_threshold)
        number = (found[1] > 0).sum(dim=1, dtype=torch.int32)
        return number, found[0], found[1], found[2]

    def _suppress(
        self, boxes: Tensor, scores: Tensor, classes: Tensor | None, k: int, iou_threshold: float
    ) -> tuple[Tensor, Tensor, Tensor]:
        boxes, scores = boxes.contiguous(), scores.contiguous()
        labels = None if classes is None else classes.contiguous()
        batch, count = scores.shape
        kept_boxes, kept_scores = boxes.new_empty(batch, k, 4), scores.new_empty(batch, k)
        kept_labels = scores.new_empty(batch, k, dtype=torch.int32)
        threshold = ctypes.c_float(largest_float32(iou_threshold))
        sizes = _sizes(batch, count, k)
        results = (kept_boxes, kept_scores, None if labels is None else kept_labels)
        self._launch(
            "proposal_nms",
            (*map(_address, (boxes, scores, labels)), sizes, threshold, *map(_address, results)),
            (sizes, threshold),
            boxes,
        )
        return kept_boxes, kept_scores, kept_labels

    def detection_nms(
        self,
        boxes: Tensor,
        scores: Tensor,
        score_threshold: Tensor,
        detections: int,
        iou_threshold: float,
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """As torch.ops.cn2.detection_nms; the threshold is on the device, too."""
        boxes, scores = boxes.contiguous(), scores.contiguous()
        score_threshold = score_threshold.to(boxes.device, torch.float32)
        (batch, rows, classes), shared = scores.shape, boxes.ndim == 3
        number = boxes.new_empty(batch, dtype=torch.int32)
        found_boxes = boxes.new_empty(batch, detections, 4)
        found_scores = boxes.new_empty(batch, detections)
        found_classes = boxes.new_empty(batch, detections, dtype=torch.int32)
        threshold = ctypes.c_float(largest_float32(iou_threshold))
        sizes = _sizes(batch, rows, classes, shared, detections)
        inputs = map(_address, (boxes, scores, score_threshold))
        results = map(_address, (number, found_boxes, found_scores, found_classes))
        self._launch(
            "detection_nms", (*inputs, sizes, threshold, *results), (sizes, threshold), boxes
        )
        return number, found_boxes, found_scores, found_classes

    def deform_conv(
        self,
        x: Tensor,
        weight: Tensor,
        offset: Tensor,
        mask: Tensor | None,
        bias: Tensor | None,
        *,
        stride: tuple[int, int] = (1, 1),
        padding: tuple[int, int] = (1, 1),
        dilation: tuple[int, int] = (1, 1),
        groups: int = 1,
        offset_groups: int = 1,
    ) -> Tensor:
        """As torchvision.ops.deform_conv2d; all of fp32 or all of fp16."""
        tensors = [None if t is None else t.contiguous() for t in (x, weight, offset, bias, mask)]
        kernel = tuple(weight.shape[2:])
        numbers = (*x.shape, weight.shape[0], *kernel, *stride, *dilation, *padding, *padding)
        sizes = _sizes(*numbers, groups, offset_groups)
        y = x.new_empty(x.shape[0], weight.shape[0], *offset.shape[2:])
        self._launch(
            "deform_conv",
            (*map(_address, tensors), sizes, _is_half(x), _address(y)),
            (sizes,),
            y,
        )
        return y

    def preprocess(
        self,
        pictures: Sequence[Tensor],
        resized: Sequence[tuple[int, int]],
        interpolation: str,
        canvas: tuple[int, int],
    ) -> tuple[Tensor, Tensor]:
        """Pictures onto canvases of one size.

        Args:
            pictures: uint8 (H, W, 3) RGB; in a CUDA graph their places are fixed.
            resized: (height, width) of each on the canvas, pixels.
            interpolation: "antialias", "linear".
            canvas: (height, width), pixels.
        Returns:
            Canvases (B, height, width, 3) uint8 and sizes (B, 2) int32.
        """
        kept = [picture.contiguous() for picture in pictures]
        listed = (Picture * len(kept))(
            *(
                Picture(p.data_ptr(), None, 3 * p.shape[1], 0, PIXEL_FORMATS["RGB"], w, h, rw, rh)
                for p, (rh, rw) in zip(kept, resized, strict=True)
                for h, w in [p.shape[:2]]
            )
        )
        count, sizes = ctypes.c_int64(len(kept)), _sizes(INTERPOLATIONS[interpolation], *canvas)
        canvases = kept[0].new_empty(len(kept), *canvas, 3)
        image_sizes = kept[0].new_empty(len(kept), 2, dtype=torch.int32)
        shape = (listed, count, sizes)
        self._launch(
            "preprocess", (*shape, *map(_address, (canvases, image_sizes))), shape, kept[0]
        )
        return canvases, image_sizes

    def _launch(
        self, name: str, arguments: tuple[Any, ...], shape: tuple[Any, ...], like: Tensor
    ) -> None:
        """Give a launcher its workspace and stream.

        Raises:
            ValueError: CUDA says no; emulated or not.
        """
        measure = getattr(self.library, f"cn2_cuda_workspace_{name}")
        measure.restype = ctypes.c_int64
        size = int(measure(*shape))
        workspace = like.new_empty(max(size, 1), dtype=torch.uint8)
        on_gpu = like.device.type == "cuda"
        stream = torch.cuda.current_stream(like.device).cuda_stream if on_gpu else None
        more = (_address(workspace), ctypes.c_int64(size), ctypes.c_void_p(stream))
        status = getattr(self.library, f"cn2_cuda_launch_{name}")(*arguments, *more)
        self.calls += 1
        if status:
            raise ValueError(f"{name}: expected what the kernel takes, got CUDA error {status}")


OPERATORS = ("pyramid_roi_align", "proposal_nms", "class_nms", "detection_nms")


@contextmanager
def our_kernels(launchers: Launchers, device: str = "cuda") -> Iterator[None]:
    """Let torch.ops.cn2 run our kernels on a type of device ("cpu": emulated)."""
    with ExitStack() as stack:
        for name in OPERATORS:
            operator = getattr(ops, name)
            operator.register_kernel(device, getattr(launchers, name))
            stack.callback(operator.register_kernel, device, operator._init_fn)  # what it was
        yield


def _address(tensor: Tensor | None) -> ctypes.c_void_p:
    return ctypes.c_void_p(None if tensor is None else tensor.data_ptr())


def _sizes(*numbers: int) -> Any:
    return (ctypes.c_int64 * len(numbers))(*numbers)


def _is_half(tensor: Tensor) -> ctypes.c_int32:
    return ctypes.c_int32(tensor.dtype == torch.float16)


@cache
def _borders(*strides_and_level: int) -> Any:
    borders = level_borders(strides_and_level[:-1], strides_and_level[-1])
    return (ctypes.c_float * len(borders))(*borders)
