"""Samples and the batches they make: pictures on one canvas, targets, what could not be read."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from cn2.runtime.errors import PictureError

from ..structures import Target
from .coco import Picture
from .transforms import Boxes, Pixels, Size


class Sample(NamedTuple):
    """What one picture gives: pixels, and the ground truth in these pixels."""

    pixels: Pixels
    boxes: Boxes
    classes: NDArray[np.int64]  # (N,) 0-based
    picture: Picture


class BrokenPicture(NamedTuple):
    """A picture that could not be read."""

    path: Path
    reason: str  # one line


def broken_picture(picture: Picture, error: PictureError) -> BrokenPicture:
    """What an error says of a picture, without saying the path twice."""
    reason = " ".join(str(error).removeprefix(f"{picture.path}: ").split())
    return BrokenPicture(picture.path, reason)


@dataclass(frozen=True, kw_only=True)
class Batch:
    """Pictures on one canvas."""

    images: Tensor  # (B, H, W, 3) uint8 RGB, each picture at the top left, zeros elsewhere
    image_sizes: Tensor  # (B, 2) int64 height, width of the picture on the canvas
    targets: list[Target]
    pictures: list[Picture]
    numbers: list[int] = field(default_factory=list)  # of the samples; in validation, indices
    broken: list[BrokenPicture] = field(default_factory=list)  # met meanwhile; some perhaps twice

    def pin_memory(self) -> Batch:
        """The same batch, its pictures in memory that a GPU copies from while it computes."""
        return replace(self, images=self.images.pin_memory())

    def __reduce__(self) -> tuple[Any, ...]:
        """Only the pictures travel between processes by a shared file, which costs a descriptor."""
        labels = [(t.boxes.numpy(), t.classes.numpy(), t.image_id) for t in self.targets]
        sizes = self.image_sizes.numpy()
        return _unpack, (self.images, sizes, labels, self.pictures, self.numbers, self.broken)


Labels = tuple[Boxes, NDArray[np.int64], int]


def _unpack(
    images: Tensor,
    sizes: NDArray[np.int64],
    labels: list[Labels],
    pictures: list[Picture],
    numbers: list[int],
    broken: list[BrokenPicture],
) -> Batch:
    return Batch(
        images=images,
        image_sizes=torch.from_numpy(sizes),
        targets=[_target(*of) for of in labels],
        pictures=pictures,
        numbers=numbers,
        broken=broken,
    )


def _target(boxes: Boxes, classes: NDArray[np.int64], image_id: int) -> Target:
    return Target(
        boxes=torch.from_numpy(boxes), classes=torch.from_numpy(classes), image_id=image_id
    )


def collate(
    samples: Sequence[Sample],
    canvas: Size,
    numbers: Sequence[int],
    broken: Sequence[BrokenPicture] = (),
) -> Batch:
    """Lay samples on a canvas that holds each of them, at the top left; no sample, no picture."""
    images = np.zeros((len(samples), *canvas, 3), np.uint8)
    sizes = np.zeros((len(samples), 2), np.int64)
    for image, size, sample in zip(images, sizes, samples, strict=True):
        size[:] = height, width = sample.pixels.shape[:2]
        image[:height, :width] = sample.pixels
    labels = [(s.boxes, s.classes, s.picture.image_id) for s in samples]
    pictures = [sample.picture for sample in samples]
    return _unpack(torch.from_numpy(images), sizes, labels, pictures, list(numbers), list(broken))
