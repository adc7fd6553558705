"""The size of a picture file out of its header, without decoding it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import PictureError
from ..pictures import EXIF_ORIENTATION, EXIF_TRANSPOSED, FORMATS, no_pillow_limit

if TYPE_CHECKING:
    from PIL.Image import Image


def upright_size(path: Path) -> tuple[int, int]:
    """(height, width) of the picture as it is decoded: turned as its EXIF says.

    Raises:
        PictureError: no such file, or its header is not a picture's.
    """
    from PIL import Image as pillow

    try:
        with no_pillow_limit():
            image = pillow.open(path, formats=FORMATS)
        with image:
            width, height = image.size
            orientation = _orientation(image)
    except Exception as error:  # plugins raise anything on a torn header
        if isinstance(error, FileNotFoundError):
            raise PictureError(f"{path}: no such file") from error
        raise PictureError(f"{path}: expected a picture (JPEG, PNG, …), got none") from error
    return (width, height) if orientation in EXIF_TRANSPOSED else (height, width)


def _orientation(image: Image) -> int:
    """EXIF's, where it is still to be applied to the size."""
    if image.format == "TIFF":  # Pillow has turned its size already
        return 1
    if image.format == "PNG" and "exif" not in image.info:
        return 1  # asked for EXIF that does not come first, which nobody writes, it would decode
    return int(image.getexif().get(EXIF_ORIENTATION, 1))


def nominal_size(path: Path) -> tuple[int, int]:
    """`upright_size`, or a size that does no harm where the header is broken.

    Whoever decodes the picture says what is wrong with it, and how many such are too many; what
    reads annotations has only to keep the picture in the list.
    """
    try:
        return upright_size(path)
    except PictureError:
        return (1000, 1000)
