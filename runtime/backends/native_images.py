"""Pictures as libcn2 takes them: where their pixels lie and how far apart their rows are."""

from __future__ import annotations

import numpy as np

from ..arrays import DevicePicture
from ..pictures import Pixels
from . import libcn2


def image_of(picture: Pixels | DevicePicture, device: str) -> tuple[libcn2.Image, object]:
    """A cn2_image for a model on a device, and what keeps its pixels alive.

    Raises:
        ValueError: the picture lies on another CUDA device than the model.
    """
    if not isinstance(picture, DevicePicture):
        return host_image(picture)
    check_device(picture, device)
    height, width, _ = picture.shape
    image = libcn2.Image(
        memory=libcn2.CUDA,
        width=width,
        height=height,
        data=picture.pointer,
        pitch=picture.pitch,
    )
    return image, picture


def check_device(picture: DevicePicture, device: str) -> None:
    """Raise ValueError where a picture lies on another CUDA device than the model."""
    there = picture.device
    if there is not None and device not in ("cpu", f"cuda:{there}"):  # of a CPU libcn2 complains
        raise ValueError(
            f"picture: expected host memory or {device}, where the model is, got cuda:{there}; "
            f"copy it, or open the model with device='cuda:{there}'"
        )


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
