"""Open a picture: a path or an array in, (H, W, 3) uint8 RGB out.

The header is read first, so that a small file of enormous sides is refused before it is decoded.
What becomes RGB, and how: EXIF rotation is applied; of several frames the first is taken; grey is
repeated; of 16 bits the upper 8 are kept; transparency is dropped, not blended, as in the official
code; palettes and CMYK are converted by Pillow. JPEGs are decoded and turned by OpenCV, which is up
to twice as fast and gives the same pixels as Pillow (both are libjpeg-turbo; a test compares).

A JPEG whose data end early or are damaged, but whose end marker is there, is decoded as far as it
goes, by OpenCV as by Pillow. Neither library hands on that libjpeg noticed; its own line on stderr
("Corrupt JPEG data: …") is left there, as it is all that tells. Catching it would mean to redirect
stderr of the whole process, other threads included.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, TypeAlias

import numpy as np
import numpy.typing as npt

from .arrays import AnyArray, DevicePicture, as_array
from .errors import PictureError

if TYPE_CHECKING:
    from PIL.Image import Image

Pixels: TypeAlias = npt.NDArray[np.uint8]  # (H, W, 3) RGB
Picture: TypeAlias = str | os.PathLike[str] | AnyArray

MAX_PIXELS = 100_000_000  # default limit of width times height; 300 MB decoded
FORMATS = ("JPEG", "PNG", "BMP", "GIF", "JPEG2000", "PPM", "TIFF", "WEBP")  # Pillow's names
PICTURE_SUFFIXES = frozenset(
    {".bmp", ".gif", ".jp2", ".jpeg", ".jpg", ".mpo", ".pbm", ".pgm", ".png", ".ppm"}
    | {".tif", ".tiff", ".webp"}
)
EXIF_ORIENTATION = 0x0112  # tag; 1: upright
EXIF_TRANSPOSED = (5, 6, 7, 8)  # orientations whose rows are stored as columns, then
EXIF_FLIPS = {2: 1, 3: -1, 4: 0, 6: 1, 7: -1, 8: 0}  # flipped; OpenCV's codes
_pillow_limit = threading.Lock()


def open_picture(picture: Picture, *, max_pixels: int = MAX_PIXELS) -> Pixels:
    """Read a picture into host memory.

    Args:
        picture: a file's path, or an (H, W, 3) uint8 RGB array, which is returned as it is, or as
            numpy's view of its memory where it is another library's.
        max_pixels: refuse a file of more pixels, before decoding it.
    Returns:
        (H, W, 3) RGB.
    Raises:
        PictureError: no such file, not a picture, torn, or too large; the message names the file.
        ValueError: an array of another shape or type, without pixels, or in CUDA memory.
        TypeError: neither path nor array.
    """
    found = open_anywhere(picture, max_pixels=max_pixels)
    if isinstance(found, DevicePicture):
        raise ValueError(
            "picture: expected a path or an array in host memory, got one in CUDA memory; copy it "
            "(torch: .cpu(), CuPy and PyCUDA: .get()), or open the model with backend='native'"
        )
    return found


def open_anywhere(picture: Picture, *, max_pixels: int = MAX_PIXELS) -> Pixels | DevicePicture:
    """As `open_picture`, but an array in CUDA memory stays there."""
    array = as_array(picture)
    if array is not None:
        return array if isinstance(array, DevicePicture) else _check_array(array)
    if not isinstance(picture, (str, os.PathLike)):
        raise TypeError(
            f"picture: expected a path or an (H, W, 3) uint8 array, got {type(picture).__name__}"
        )
    path = Path(picture)
    try:
        with path.open("rb") as stream:
            return _read(stream, path, max_pixels)
    except OSError as error:
        raise PictureError(f"{path}: cannot be read ({error.strerror or error})") from error


def _check_array(array: npt.NDArray[Any]) -> Pixels:
    if array.dtype != np.uint8 or array.ndim != 3 or array.shape[2] != 3 or not array.size:
        raise ValueError(
            f"picture: expected an RGB array, uint8 (H, W, 3) with H, W >= 1, "
            f"got {array.dtype} {array.shape}"
        )
    return array


def _read(stream: BinaryIO, path: Path, max_pixels: int) -> Pixels:
    from PIL import Image

    try:
        with no_pillow_limit():
            image = Image.open(stream, formats=FORMATS)
    except Exception as error:  # plugins raise anything on a torn header
        empty = stream.seek(0, os.SEEK_END) == 0
        found = "an empty file (0 bytes)" if empty else "something else"
        raise PictureError(f"{path}: expected a picture (JPEG, PNG, …), got {found}") from error
    width, height = image.size
    if width * height > max_pixels:
        raise PictureError(
            f"{path}: expected at most {max_pixels / 1e6:g} megapixels, got {width}x{height} "
            f"= {width * height / 1e6:g}; raise max_pixels (cn2 detect: --max-pixels) if the file "
            f"is to be trusted"
        )
    try:
        pixels = _decode(image, stream)
    except Exception as error:  # decoders raise anything on torn data
        reason = " ".join(str(error).split()) or type(error).__name__
        raise PictureError(f"{path}: cannot be decoded ({reason})") from error
    return pixels


@contextmanager
def no_pillow_limit() -> Iterator[None]:
    """Switch off Pillow's size limit while a header is read: it is global, ours is an argument."""
    from PIL import Image

    with _pillow_limit:
        before = Image.MAX_IMAGE_PIXELS
        Image.MAX_IMAGE_PIXELS = None
        try:
            yield
        finally:
            Image.MAX_IMAGE_PIXELS = before


def _decode(image: Image, stream: BinaryIO) -> Pixels:
    orientation = image.getexif().get(EXIF_ORIENTATION, 1)
    if image.format in ("JPEG", "MPO") and image.mode in ("RGB", "L"):
        stream.seek(0)
        pixels = _decode_jpeg(stream.read())
        if pixels is not None and pixels.shape[:2] == image.size[::-1]:
            return _turn(pixels, orientation)
        stream.seek(0)
    if orientation != 1:
        from PIL import ImageOps

        image = ImageOps.exif_transpose(image)
    return _to_rgb(image)


def _decode_jpeg(data: bytes) -> Pixels | None:
    """Decode a whole JPEG; None leaves the file, and the error that it deserves, to Pillow."""
    import cv2

    if not data.endswith(b"\xff\xd9"):  # torn, or something follows the picture
        return None
    flags = cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION
    pixels = cv2.imdecode(np.frombuffer(data, np.uint8), flags)
    if pixels is None:
        return None
    return np.asarray(cv2.cvtColor(pixels, cv2.COLOR_BGR2RGB), dtype=np.uint8)


def _turn(pixels: Pixels, orientation: int) -> Pixels:
    """Turn pixels upright that are stored in an EXIF orientation; unknown ones stay as they are."""
    import cv2

    if orientation in EXIF_TRANSPOSED:
        pixels = np.asarray(cv2.transpose(pixels), dtype=np.uint8)
    if orientation in EXIF_FLIPS:
        pixels = np.asarray(cv2.flip(pixels, EXIF_FLIPS[orientation]), dtype=np.uint8)
    return pixels


def _to_rgb(image: Image) -> Pixels:
    if image.mode == "I" or image.mode.startswith("I;16"):
        values = np.asarray(image).astype(np.int64)
        if values.min() < 0 or values.max() > 0xFFFF:
            raise ValueError(f"expected at most 16 bits a channel, got {values.max()}")
        grey = (values >> 8).astype(np.uint8)  # the upper byte, as Pillow reads 16-bit RGB
        return np.repeat(grey[:, :, None], 3, axis=2)
    if image.mode == "F":
        raise ValueError("expected 8 or 16 bits a channel, got floating point")
    if image.mode in ("P", "PA"):
        image = image.convert("RGBA")
    return np.array(image.convert("RGB"), dtype=np.uint8)
