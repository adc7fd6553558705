"""Draw detections: boxes in a colour per class, labels that stay inside the picture."""

from __future__ import annotations

import colorsys
import unicodedata
from collections.abc import Sequence
from typing import TYPE_CHECKING, TypeAlias

import numpy as np
import numpy.typing as npt

from .pictures import Pixels

if TYPE_CHECKING:
    from PIL.ImageDraw import ImageDraw
    from PIL.ImageFont import FreeTypeFont, ImageFont

    from .detections import Detections

Color: TypeAlias = tuple[int, int, int]
Rectangle: TypeAlias = tuple[int, int, int, int]  # xyxy, pixels, the last ones outside

GOLDEN_RATIO = 0.618034  # steps of hue that never come close to an earlier one
TEXT_SHARE, LEAST_TEXT = 1 / 34, 10  # text height: share of the short side, and pixels
LINE_SHARE = 1 / 240  # line width, share of the short side
ROWS_AWAY = 3  # labels may lie so many rows away from their box, if they must


def draw_detections(picture: Pixels, found: Detections, *, scores: bool = True) -> Pixels:
    """A copy of a picture (H, W, 3) with boxes and labels; the best detections lie on top.

    Without `scores` the labels are names alone, as ground truth wants it.
    """
    texts = [
        (f"{label} {score:.2f}", label) if scores else (label,)
        for label, score in zip(found.labels, found.scores, strict=True)
    ]
    return draw_boxes(picture, found.boxes, found.class_ids.tolist(), texts)


def draw_boxes(
    picture: Pixels,
    boxes: npt.NDArray[np.float32],
    class_ids: Sequence[int],
    texts: Sequence[tuple[str, ...]],
) -> Pixels:
    """A copy of a picture with labelled boxes, the first ones on top.

    Args:
        picture: (H, W, 3).
        boxes: (n, 4) xyxy, pixels; what lies outside is cut off.
        class_ids: n, 0-based; they choose the colours.
        texts: n labels, each in several lengths, of which the first that fits is drawn.
    """
    from PIL import Image, ImageDraw, ImageFont

    image = Image.fromarray(picture)  # copies
    draw = ImageDraw.Draw(image)
    short_side = min(picture.shape[:2])
    font = ImageFont.load_default(max(LEAST_TEXT, round(short_side * TEXT_SHARE)))
    line = max(1, round(short_side * LINE_SHARE))
    places = [_to_pixels(box, image.size) for box in boxes.tolist()]
    colors = [class_color(index) for index in class_ids]
    for box, color in reversed(list(zip(places, colors, strict=True))):
        left, top, right, bottom = box
        draw.rectangle((left, top, right - 1, bottom - 1), outline=color, width=line)
    placed: list[tuple[Rectangle, str, Color]] = []
    for box, color, lengths in zip(places, colors, texts, strict=True):
        text = _fitting_text(draw, font, [_plain(length) for length in lengths], image.width)
        spot = _place_label(
            _text_size(draw, font, text), box, image.size, [spot for spot, _, _ in placed]
        )
        placed.append((spot, text, color))
    for spot, text, color in reversed(placed):
        _draw_label(draw, font, spot, text, color)
    return np.array(image, dtype=np.uint8)


def class_color(class_id: int) -> Color:
    """The colour of a class, RGB: strong, and far in hue from those of the classes before it."""
    hue = (0.02 + class_id * GOLDEN_RATIO) % 1
    value = (1.0, 0.8, 0.9)[class_id % 3]
    red, green, blue = colorsys.hsv_to_rgb(hue, 0.9, value)
    return round(red * 255), round(green * 255), round(blue * 255)


def _to_pixels(box: list[float], size: tuple[int, int]) -> Rectangle:
    """A box on the pixel grid, inside the picture (width, height), at least one pixel large."""
    width, height = size
    left = min(max(round(box[0]), 0), width - 1)
    top = min(max(round(box[1]), 0), height - 1)
    right = max(left + 1, min(round(box[2]), width))
    bottom = max(top + 1, min(round(box[3]), height))
    return left, top, right, bottom


def _text_size(draw: ImageDraw, font: FreeTypeFont | ImageFont, text: str) -> tuple[int, int]:
    """Width and height of a label; the height is the same for every text, letters may hang."""
    _, top, _, bottom = draw.textbbox((0, 0), "Ágj|", font=font)
    width = draw.textlength(text, font=font)
    padding = _padding(bottom - top)
    return round(width) + 2 * padding, round(bottom - top) + padding


def _padding(height: float) -> int:
    return max(1, round(height / 6))


def _plain(label: str) -> str:
    """The label in ASCII, as Pillow's own font has no more: accents dropped, other letters "?"."""
    letters = unicodedata.normalize("NFKD", label)
    kept = "".join(letter for letter in letters if not unicodedata.combining(letter))
    return kept.encode("ascii", "replace").decode()


def _fitting_text(
    draw: ImageDraw, font: FreeTypeFont | ImageFont, texts: list[str], width: int
) -> str:
    """The first text that fits into the width, or what fits of the last one's beginning."""
    shorter = [texts[-1][:length] for length in range(len(texts[-1]) - 1, 0, -1)]
    for text in [*texts, *shorter]:
        if _text_size(draw, font, text)[0] <= width:
            return text
    return ""


def _place_label(
    label: tuple[int, int], box: Rectangle, size: tuple[int, int], taken: list[Rectangle]
) -> Rectangle:
    """Where a label (width, height) goes: above the box, inside it or below it; in the picture.

    Where other labels fill these places, some rows further away.
    """
    (width, height), (left, top, right, bottom) = label, box
    columns = (left, right - width)
    rows = [top - height, top, bottom, bottom - height]
    for away in range(1, 1 + ROWS_AWAY):
        rows += [top - height * (1 + away), bottom + height * away]
    spots = [
        (max(0, min(x, size[0] - width)), y, max(0, min(x, size[0] - width)) + width, y + height)
        for y in rows
        for x in columns
        if 0 <= y <= size[1] - height
    ]
    spots = spots or [(0, 0, width, height)]
    free = [spot for spot in spots if not any(_overlap(spot, other) for other in taken)]
    return (free or spots)[0]


def _overlap(a: Rectangle, b: Rectangle) -> bool:
    return a[0] < b[2] and b[0] < a[2] and a[1] < b[3] and b[1] < a[3]


def _draw_label(
    draw: ImageDraw,
    font: FreeTypeFont | ImageFont,
    spot: Rectangle,
    text: str,
    color: Color,
) -> None:
    left, top, right, bottom = spot
    if not text:
        return
    draw.rectangle((left, top, right - 1, bottom - 1), fill=color)
    brightness = 0.299 * color[0] + 0.587 * color[1] + 0.114 * color[2]  # ITU-R BT.601
    ink = (0, 0, 0) if brightness > 120 else (255, 255, 255)
    _, ascent, _, _ = draw.textbbox((0, 0), "Ágj|", font=font)
    padding = _padding(bottom - top)
    draw.text((left + padding, top - ascent + padding // 2), text, fill=ink, font=font)
