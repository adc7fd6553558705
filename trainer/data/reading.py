"""A picture's file to pixels, held against the size that the annotations say."""

from __future__ import annotations

from cn2.runtime.errors import PictureError

from .coco import Picture
from .transforms import Pixels, Size, read_picture


def read_reduced(picture: Picture, reduce_to: Size) -> Pixels:
    """Decode a picture; a JPEG perhaps at a fraction of its size, if that is not below this.

    Raises:
        PictureError: unreadable, or another size than the annotations say.
    """
    pixels = read_picture(picture.path, reduce_to)
    for by in (1, 2, 4, 8):
        if pixels.shape[:2] == (-(-picture.height // by), -(-picture.width // by)):
            return pixels
    raise _other_size(picture, pixels)


def read_whole(picture: Picture) -> Pixels:
    """Decode a picture; errors as `read_reduced`."""
    pixels = read_picture(picture.path)
    if pixels.shape[:2] != (picture.height, picture.width):
        raise _other_size(picture, pixels)
    return pixels


def _other_size(picture: Picture, pixels: Pixels) -> PictureError:
    height, width = pixels.shape[:2]
    return PictureError(
        f"{picture.path}: expected {picture.width}x{picture.height} pixels as the annotations "
        f"say, got {width}x{height}; was it rotated or replaced?"
    )
