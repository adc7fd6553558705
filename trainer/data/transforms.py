"""Picture files to uint8 RGB arrays, resized by the detectors' rule, with their boxes.

The size rule is that of `cn2.runtime.canvas`, written again because training does not import
the runtime; a test holds the two together.
"""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

from cn2.runtime.errors import PictureError

from ..config import Interpolation, Rounding

Pixels = NDArray[np.uint8]  # (H, W, 3) RGB
Boxes = NDArray[np.float32]  # (N, 4) xyxy, pixels
Size = tuple[int, int]  # height, width, pixels


def read_picture(path: Path, reduce_to: Size | None = None) -> Pixels:
    """Decode a picture as RGB, upright (EXIF), of 16 bits the upper 8, transparency dropped.

    Args:
        path: any file that Pillow reads.
        reduce_to: (height, width) that will do: a JPEG is then decoded at 1/2, 1/4 or 1/8 of its
            size, never below this. Faster, and slightly different pixels: for training only.
    Returns:
        (H, W, 3); without `reduce_to` the same pixels as `cn2.runtime.pictures` (a test compares).
    Raises:
        PictureError: missing, truncated or not a picture.
    """
    try:
        with Image.open(path) as image:
            if reduce_to is not None:
                image.draft("RGB", (reduce_to[1], reduce_to[0]))
            ImageOps.exif_transpose(image, in_place=True)
            return _to_rgb(image)
    except Exception as error:  # decoders raise anything on torn data
        reason = " ".join(str(error).split()) or type(error).__name__
        raise PictureError(f"{path}: cannot be read as a picture ({reason})") from error


def _to_rgb(image: Image.Image) -> Pixels:
    if image.mode == "I" or image.mode.startswith("I;16"):
        grey = (np.asarray(image).astype(np.int64) >> 8).astype(np.uint8)
        return np.repeat(grey[:, :, None], 3, axis=2)
    if image.mode == "F":
        raise ValueError("expected 8 or 16 bits a channel, got floating point")
    if image.mode in ("P", "PA"):  # Pillow blends a palette's transparency on the way to RGB
        image = image.convert("RGBA")
    return np.asarray(image if image.mode == "RGB" else image.convert("RGB"))


def resized_size(
    height: int, width: int, short_edge: int, long_edge: int, rounding: Rounding = "nearest"
) -> Size:
    """Put the short side at `short_edge`, unless the long one would pass `long_edge`.

    Returns:
        (height, width), rounded as int(v + 0.5) or int(v), at least 1.
    Source: the official code's test resizes, each in its order of operations.
    """
    if rounding == "down":
        scale = min(short_edge / min(height, width), long_edge / max(height, width))
        return max(int(height * scale), 1), max(int(width * scale), 1)
    scale = short_edge / min(height, width)
    if height < width:
        new_height, new_width = float(short_edge), scale * width
    else:
        new_height, new_width = scale * height, float(short_edge)
    longest = max(new_height, new_width)
    if longest > long_edge:
        new_height, new_width = (
            new_height * (long_edge / longest),
            new_width * (long_edge / longest),
        )
    return max(int(new_height + 0.5), 1), max(int(new_width + 0.5), 1)


def canvas_size(sizes: list[Size], divisor: int) -> Size:
    """The smallest (height, width), multiples of `divisor`, that holds pictures of these sizes."""
    height = max(h for h, _ in sizes)
    width = max(w for _, w in sizes)
    return -(-height // divisor) * divisor, -(-width // divisor) * divisor


def resize(pixels: Pixels, size: Size, interpolation: Interpolation) -> Pixels:
    """Resize to (height, width): Pillow's bilinear for "antialias", OpenCV's for "linear"."""
    height, width = size
    if pixels.shape[:2] == size:
        return pixels
    if interpolation == "antialias":
        return np.asarray(
            Image.fromarray(pixels).resize((width, height), Image.Resampling.BILINEAR)
        )
    return np.asarray(cv2.resize(pixels, (width, height), interpolation=cv2.INTER_LINEAR), np.uint8)


def resize_part(
    pixels: Pixels, scaled: Size, offset: Size, size: Size, interpolation: Interpolation
) -> Pixels:
    """A part of the picture resized to `scaled`, as if cut out of the whole.

    Pillow makes the part alone, in a third of the time; OpenCV could only by a warp, which takes
    longer than the whole (measured: 4.0 against 2.3 ms of 640x480 enlarged twice).

    Args:
        pixels: the picture.
        scaled: height and width of the whole, resized.
        offset: y, x of the part's top left corner in the resized picture.
        size: of the part, inside the resized picture.
        interpolation: as of `resize`.
    """
    top, left, bottom, right = *offset, offset[0] + size[0], offset[1] + size[1]
    if size == scaled or interpolation == "linear":
        return resize(pixels, scaled, interpolation)[top:bottom, left:right]
    height, width = pixels.shape[:2]
    y, x = height / scaled[0], width / scaled[1]
    box = (left * x, top * y, min(right * x, width), min(bottom * y, height))
    image = Image.fromarray(pixels)
    return np.asarray(image.resize((size[1], size[0]), Image.Resampling.BILINEAR, box=box))


def scale_boxes(boxes: Boxes, before: Size, after: Size) -> Boxes:
    """Boxes of a picture of size `before` (height, width), in the pixels of size `after`."""
    y, x = after[0] / before[0], after[1] / before[1]
    return boxes * np.array([x, y, x, y], np.float32)


def move_boxes(boxes: Boxes, before: Size, scaled: Size, offset: Size, size: Size) -> Boxes:
    """Boxes of a picture of size `before` on a part of it, clipped; outside they have no area."""
    y, x = offset
    corner = np.array([x, y, x, y], np.float32)
    return clip_boxes(scale_boxes(boxes, before, scaled) - corner, *size)


def flip_horizontally(pixels: Pixels, boxes: Boxes) -> tuple[Pixels, Boxes]:
    """Mirror a picture and its boxes."""
    width = np.float32(pixels.shape[1])
    mirrored = np.stack(
        [width - boxes[:, 2], boxes[:, 1], width - boxes[:, 0], boxes[:, 3]], axis=1
    )
    return pixels[:, ::-1], mirrored


def flip_vertically(pixels: Pixels, boxes: Boxes) -> tuple[Pixels, Boxes]:
    """Turn a picture and its boxes upside down, without turning left to right."""
    height = np.float32(pixels.shape[0])
    upended = np.stack(
        [boxes[:, 0], height - boxes[:, 3], boxes[:, 2], height - boxes[:, 1]], axis=1
    )
    return pixels[::-1], upended


def clip_boxes(boxes: Boxes, height: int, width: int) -> Boxes:
    """(N, 4) xyxy boxes cut at the borders of a picture, pixels."""
    limits = np.array([width, height, width, height], np.float32)
    return np.clip(boxes, np.float32(0), limits)
