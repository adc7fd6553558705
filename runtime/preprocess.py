"""Pictures onto canvases: resized by the model's rule, placed at the top left."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from .canvas import CanvasRule, Interpolation
from .pictures import Pixels


@dataclass(frozen=True, kw_only=True, eq=False)
class PlacedPicture:
    """One picture on its canvas. Sizes are (height, width), pixels."""

    canvas: Pixels  # (H, W, 3), zero outside the picture
    resized: tuple[int, int]  # of the picture on the canvas
    original: tuple[int, int]  # of the picture as it was opened


def place_picture(picture: Pixels, rule: CanvasRule) -> PlacedPicture:
    """Resize a picture (H, W, 3) by the rule and place it at the top left of a new canvas."""
    height, width = picture.shape[:2]
    resized = rule.resized_size(height, width)
    canvas = np.zeros((*rule.canvas_size(resized), 3), dtype=np.uint8)
    resize_into(canvas[: resized[0], : resized[1]], picture, rule.interpolation)
    return PlacedPicture(canvas=canvas, resized=resized, original=(height, width))


def resize_into(target: Pixels, picture: Pixels, interpolation: Interpolation) -> None:
    """Resize a picture to the shape of `target` and write it there.

    `antialias` is Pillow's BILINEAR, which widens its filter when shrinking, bit for bit; `linear`
    is OpenCV's INTER_LINEAR: no widening, some seven times as fast.
    """
    height, width = target.shape[:2]
    if picture.shape == target.shape:  # both leave every pixel as it is
        target[:] = picture
    elif interpolation == "linear":
        import cv2

        cv2.resize(picture, (width, height), dst=target, interpolation=cv2.INTER_LINEAR)
    else:
        from PIL import Image

        image = Image.fromarray(picture).resize((width, height), Image.Resampling.BILINEAR)
        target[:] = np.asarray(image)


def stack_pictures(
    pictures: Sequence[PlacedPicture], batch: int | None
) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.int32]]:
    """Make one batch of pictures whose canvases are equally large.

    Args:
        pictures: at least one, at most `batch`.
        batch: the batch that the model is fixed to; filled up with blank pictures of one pixel.
            None: as many as there are.
    Returns:
        Images (B, H, W, 3) and image sizes (B, 2).
    """
    blanks = 0 if batch is None else batch - len(pictures)
    sizes = np.array([p.resized for p in pictures] + [(1, 1)] * blanks, dtype=np.int32)
    first = pictures[0].canvas
    if len(sizes) == 1:
        return first[None], sizes
    return np.stack([p.canvas for p in pictures] + [np.zeros_like(first)] * blanks), sizes
