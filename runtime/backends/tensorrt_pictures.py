"""Whole pictures, of the host or in CUDA memory, onto the canvases of a call."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from ..arrays import DevicePicture
from ..canvas import CanvasRule
from ..manifest import Manifest
from ..pictures import Pixels
from ..preprocess import PlacedPicture, resize_into
from .cuda_runtime import Cuda
from .native_images import check_device
from .tensorrt_slots import Slot

ALIGNMENT = 256  # bytes; of what TensorRT reads


@dataclass
class Group:
    """Pictures that share a canvas (height, width) and run together."""

    canvas: tuple[int, int]
    indices: list[int] = field(default_factory=list)  # of the pictures in the call
    pictures: list[Pixels | DevicePicture] = field(default_factory=list)
    resized: list[tuple[int, int]] = field(default_factory=list)  # height, width on the canvas

    def sizes(self, batch: int) -> npt.NDArray[np.int32]:
        """Image sizes (B, 2); a batch of more has pictures of one pixel at its end."""
        blanks = [(1, 1)] * (batch - len(self.resized))
        return np.array(self.resized + blanks, np.int32)

    def placed(self) -> Iterator[PlacedPicture]:
        """Each picture's sizes; without the pixels."""
        nothing = np.empty((0, 0, 3), np.uint8)
        for picture, resized in zip(self.pictures, self.resized, strict=True):
            height, width, _ = picture.shape
            yield PlacedPicture(canvas=nothing, resized=resized, original=(height, width))


def group_pictures(
    pictures: Sequence[Pixels | DevicePicture],
    manifest: Manifest,
    device: str,
    largest_batch: Callable[[tuple[int, ...]], int],
) -> list[Group]:
    """Pictures by canvas, as many together as the engine takes.

    Raises:
        ValueError: one lies on another device, or no profile of the engine has its canvas.
    """
    groups: list[Group] = []
    for index, picture in enumerate(pictures):
        if isinstance(picture, DevicePicture):
            check_device(picture, device)
        resized = manifest.canvas.resized_size(*picture.shape[:2])
        canvas = manifest.canvas.canvas_size(resized)
        most = min(largest_batch(canvas), manifest.batch or len(pictures))
        room = (one for one in groups if one.canvas == canvas and len(one.indices) < most)
        group = next(room, None)
        if group is None:
            group = Group(canvas)
            groups.append(group)
        group.indices.append(index)
        group.pictures.append(picture)
        group.resized.append(resized)
    return groups


def place_group(group: Group, slot: Slot, cuda: Cuda, rule: CanvasRule) -> int | None:
    """Queue the copies that bring pictures onto the canvases of a slot.

    Returns:
        Where the images are if not in the slot: the one picture that is its own canvas.
    """
    if any(isinstance(picture, DevicePicture) for picture in group.pictures):
        cuda.wait_for_default_stream(slot.stream)  # which those who wrote them are in step with
    images = slot.inputs["images"]
    if len(images.host) == 1:
        address = _own_canvas(group.pictures[0], group.canvas)
        if address is not None:
            return address
    for row, (picture, resized) in enumerate(zip(group.pictures, group.resized, strict=True)):
        canvas = images.host[row]
        target = images.device + row * canvas.nbytes
        if isinstance(picture, DevicePicture) and picture.shape[:2] == resized:
            size = (resized[0], 3 * resized[1])
            cuda.copy_rows(
                target, 3 * group.canvas[1], picture.pointer, picture.pitch, size, slot.stream
            )
            continue
        pixels = _on_host(picture, cuda, slot.stream)
        resize_into(canvas[: resized[0], : resized[1]], pixels, rule.interpolation)
        cuda.copy(target, canvas.ctypes.data, canvas[: resized[0]].nbytes, slot.stream)
    return None


def _own_canvas(picture: Pixels | DevicePicture, canvas: tuple[int, int]) -> int | None:
    if not isinstance(picture, DevicePicture) or picture.shape[:2] != canvas:
        return None
    is_plain = picture.pitch == 3 * canvas[1] and picture.pointer % ALIGNMENT == 0
    return picture.pointer if is_plain else None


def _on_host(picture: Pixels | DevicePicture, cuda: Cuda, stream: int) -> Pixels:
    if not isinstance(picture, DevicePicture):
        return picture
    height, width, _ = picture.shape
    pixels = np.empty(picture.shape, np.uint8)
    cuda.copy_rows(
        pixels.ctypes.data, 3 * width, picture.pointer, picture.pitch, (height, 3 * width), stream
    )
    cuda.synchronize(stream)
    return pixels
