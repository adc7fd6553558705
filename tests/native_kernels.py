"""The kernels of libcn2_kernels on numpy arrays, through ctypes (cn2_kernels.h)."""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

OK, INVALID_ARGUMENT = 0, 1
UNWRITTEN = -7  # every number of a result before the call
Floats = NDArray[np.float32]
Ints = NDArray[np.int32]


class Level(ctypes.Structure):
    """cn2_kernels_level."""

    _fields_ = (
        ("data", ctypes.c_void_p),
        ("height", ctypes.c_int64),
        ("width", ctypes.c_int64),
        ("stride", ctypes.c_int64),
    )


class Proposals(NamedTuple):
    """What ProposalNMS gives; classes only where they were given."""

    boxes: Floats  # (B, K, 4)
    scores: Floats  # (B, K)
    classes: Ints | None  # (B, K)


class Found(NamedTuple):
    """What DetectionNMS gives."""

    counts: Ints  # (B,)
    boxes: Floats  # (B, D, 4)
    scores: Floats  # (B, D)
    classes: Ints  # (B, D)


class Kernels:
    """The library; what a kernel leaves unwritten stays -7 in a result."""

    def __init__(self, path: Path) -> None:
        self.library = ctypes.CDLL(str(path))

    def pyramid_roi_align(
        self,
        rois: Floats,
        features: Sequence[Floats],
        strides: Sequence[int],
        borders: Sequence[float],
        *,
        output_size: int = 7,
        sampling_ratio: int = 0,
        canonical_size: float = 224.0,
        threads: int = 0,
    ) -> Floats:
        """(B, K, C, P, P) of rois (B, K, 4)."""
        entry = self.library.cn2_kernels_pyramid_roi_align
        kept = [np.ascontiguousarray(feature, dtype=np.float32) for feature in features]
        rule = (output_size, sampling_ratio, canonical_size)
        return pool(entry, rois, kept, strides, borders, rule, ctypes.c_int32(threads))

    def proposal_nms(
        self,
        boxes: Floats,
        scores: Floats,
        k: int,
        iou_threshold: float,
        *,
        classes: Ints | None = None,
        threads: int = 0,
    ) -> Proposals:
        """Of boxes (B, N, 4), scores (B, N) and, optionally, classes (B, N)."""
        boxes, scores = contiguous(boxes, scores)
        batch, count = scores.shape
        labels = None if classes is None else np.ascontiguousarray(classes, dtype=np.int32)
        kept = unwritten(batch, k, 4), unwritten(batch, k)
        kept_labels = None if labels is None else unwritten(batch, k).astype(np.int32)
        check(
            self.library.cn2_kernels_proposal_nms(
                address(boxes),
                address(scores),
                address(labels),
                *sizes(batch, count, k),
                ctypes.c_float(iou_threshold),
                ctypes.c_int32(threads),
                *map(address, (*kept, kept_labels)),
            )
        )
        return Proposals(*kept, kept_labels)

    def detection_nms(
        self,
        boxes: Floats,
        scores: Floats,
        score_threshold: float,
        detections: int,
        iou_threshold: float,
        *,
        threads: int = 0,
    ) -> Found:
        """Of boxes (B, K, 1 or C, 4) and scores (B, K, C)."""
        boxes, scores = contiguous(boxes, scores)
        batch, rows, classes = scores.shape
        counts = unwritten(batch).astype(np.int32)
        found = unwritten(batch, detections, 4), unwritten(batch, detections)
        labels = unwritten(batch, detections).astype(np.int32)
        check(
            self.library.cn2_kernels_detection_nms(
                address(boxes),
                address(scores),
                *sizes(batch, rows, classes),
                ctypes.c_int32(boxes.shape[2] == 1),
                *sizes(detections),
                ctypes.c_float(iou_threshold),
                ctypes.c_float(score_threshold),
                ctypes.c_int32(threads),
                *map(address, (counts, *found, labels)),
            )
        )
        return Found(counts, *found, labels)


def pool(
    entry: Callable[..., int],
    rois: Floats,
    features: Sequence[NDArray[Any]],
    strides: Sequence[int],
    borders: Sequence[float],
    rule: tuple[int, int, float],
    *more: Any,
) -> NDArray[Any]:
    """Call an entry of PyramidRoIAlign; `rule` is output size, sampling ratio, canonical size.

    Features are contiguous; the result has their type.
    """
    rois = np.ascontiguousarray(rois, dtype=np.float32)
    (batch, count, _), channels = rois.shape, features[0].shape[1]
    levels = (Level * len(features))(
        *(Level(f.ctypes.data, *f.shape[2:], s) for f, s in zip(features, strides, strict=True))
    )
    limits = np.asarray(borders, dtype=np.float32)
    output_size, sampling_ratio, canonical_size = rule
    shape = (batch, count, channels, output_size, output_size)
    pooled = np.full(shape, UNWRITTEN, dtype=features[0].dtype)
    check(
        entry(
            address(rois),
            levels,
            *sizes(len(features)),
            address(limits),
            *sizes(batch, count, channels, output_size, sampling_ratio),
            ctypes.c_float(canonical_size),
            *more,
            address(pooled),
        )
    )
    return pooled


def check(status: int) -> None:
    """Raise ValueError for what the kernel calls an invalid argument."""
    if status == INVALID_ARGUMENT:
        raise ValueError("invalid argument")
    assert status == OK


def address(array: NDArray[Any] | None) -> ctypes.c_void_p:
    """Where an array's numbers are; null for none."""
    return ctypes.c_void_p(None if array is None else array.ctypes.data)


def sizes(*numbers: int) -> tuple[ctypes.c_int64, ...]:
    """Sizes as the library takes them."""
    return tuple(ctypes.c_int64(number) for number in numbers)


def contiguous(*arrays: Floats) -> list[Floats]:
    """As the library reads them."""
    return [np.ascontiguousarray(array, dtype=np.float32) for array in arrays]


def unwritten(*shape: int) -> Floats:
    """A result before the call."""
    return np.full(shape, UNWRITTEN, dtype=np.float32)
