"""A sheet of annotated samples: pictures with boxes and labels in a grid, a heading per set."""

from __future__ import annotations

import io
import random
from collections.abc import Sequence
from typing import TypeAlias

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from cn2.runtime.drawing import draw_boxes
from cn2.runtime.errors import PictureError

from ..data.transforms import Pixels, read_picture, resize, scale_boxes
from .scan import SetScan, annotated_size

Font: TypeAlias = ImageFont.FreeTypeFont | ImageFont.ImageFont

COLUMNS = 4
CELL = (320, 427)  # (height, width) of a picture's place, pixels; 3:4 as most cameras have it
GAP, CAPTION, HEADING = 8, 20, 36  # pixels
BOXES_DRAWN = 100  # of one picture; labels of more could not be read
BACKGROUND, INK, DULL = (24, 24, 24), (240, 240, 240), (160, 160, 160)
QUALITY = 90  # of the JPEG


def contact_sheet(scans: Sequence[SetScan], samples: int) -> bytes:
    """A JPEG of up to `samples` pictures of each set."""
    parts = [_section(scan, samples) for scan in scans]
    sheet = np.concatenate(parts or [np.full((HEADING, CELL[1], 3), BACKGROUND, np.uint8)])
    stream = io.BytesIO()
    Image.fromarray(sheet).save(stream, "JPEG", quality=QUALITY)
    return stream.getvalue()


def choose_samples(scan: SetScan, count: int) -> list[int]:
    """Indices of readable pictures: one for each class, the rarest first, then any; sorted."""
    draw = random.Random(0)
    readable = {index for index, file in enumerate(scan.files) if file.size is not None}
    chosen: list[int] = []
    rows = sorted((scan.objects_of(identity) for identity in scan.classes), key=len)
    for owners in (scan.objects.owners[of] for of in rows):
        candidates = sorted(readable.intersection(owners.tolist()))
        if len(chosen) < count and candidates and not set(candidates).intersection(chosen):
            chosen.append(draw.choice(candidates))
    rest = sorted(readable.difference(chosen))
    return sorted(chosen + draw.sample(rest, min(count - len(chosen), len(rest))))


def _section(scan: SetScan, samples: int) -> Pixels:
    """The heading and the grid of one set."""
    chosen = choose_samples(scan, samples)
    rows = max(-(-len(chosen) // COLUMNS), 0)
    height, width = CELL[0] + CAPTION + GAP, CELL[1] + GAP
    sheet = Image.new("RGB", (COLUMNS * width + GAP, HEADING + rows * height), BACKGROUND)
    draw = ImageDraw.Draw(sheet)
    title = (
        f"{scan.name}: {scan.source}, {len(scan.images)} pictures, {len(scan.objects.ids)} objects"
    )
    large, small = ImageFont.load_default(18), ImageFont.load_default(13)
    draw.text((GAP, 8), _fit(draw, large, title, sheet.width - 2 * GAP), fill=INK, font=large)
    for place, index in enumerate(chosen):
        row, column = divmod(place, COLUMNS)
        left, top = GAP + column * width, HEADING + row * height
        picture, caption = _sample(scan, index)
        y, x = (CELL[0] - picture.shape[0]) // 2, (CELL[1] - picture.shape[1]) // 2
        sheet.paste(Image.fromarray(picture), (left + x, top + y))
        text = _fit(draw, small, caption, CELL[1])
        draw.text((left, top + CELL[0] + 2), text, fill=DULL, font=small)
    return np.array(sheet, np.uint8)


def _sample(scan: SetScan, index: int) -> tuple[Pixels, str]:
    """A picture with its boxes, fitted into a cell, and its caption."""
    file, objects = scan.files[index], scan.objects
    rows = np.flatnonzero(objects.owners == index)
    name = scan.images[index]["file_name"]
    size = file.size or CELL
    scale = min(CELL[0] / size[0], CELL[1] / size[1])
    fitted = max(round(size[0] * scale), 1), max(round(size[1] * scale), 1)
    try:
        pixels = resize(read_picture(file.path, reduce_to=fitted), fitted, "antialias")
    except PictureError:
        return np.full((*fitted, 3), DULL, np.uint8), f"{name}: cannot be decoded"
    # Boxes are placed by the annotated size: where it is not the file's, the sheet shows it.
    annotated = annotated_size(scan.images[index]) or size
    shown = rows[np.argsort(objects.areas[rows], kind="stable")][:BOXES_DRAWN]  # small ones on top
    classes = list(scan.classes)
    drawn = draw_boxes(
        pixels,
        scale_boxes(objects.boxes[shown], annotated, fitted),
        [classes.index(category) for category in objects.categories[shown]],
        [(scan.classes[category],) for category in objects.categories[shown]],
    )
    more = f", {BOXES_DRAWN} of them drawn" if len(rows) > BOXES_DRAWN else ""
    return drawn, f"{name}: {len(rows)} objects{more}"


def _fit(draw: ImageDraw.ImageDraw, font: Font, text: str, width: int) -> str:
    """The text in ASCII, all that Pillow's own font has; its beginning is cut off to fit."""
    text = text.encode("ascii", "replace").decode()
    cut = text
    while cut and draw.textlength(cut if cut == text else f"...{cut}", font=font) > width:
        cut = cut[1:]
    return cut if cut == text else f"...{cut}"
