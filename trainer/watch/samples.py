"""A few validation pictures, always the same, with what is there and what was found."""

from __future__ import annotations

from typing import Any

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from cn2.runtime.detections import Detections
from cn2.runtime.drawing import draw_detections
from cn2.runtime.errors import PictureError

from ..data.coco import CocoDataset, Picture
from ..data.transforms import Boxes, Pixels, read_picture, resize, resized_size, scale_boxes

LONGEST_PX = 640  # of a drawn picture's sides: 4 of 4000 px in each scoring would fill a disk
GAP_PX = 8  # between the two halves
HEADING_PX = 20  # height of the line above, its text 14
BACKGROUND, INK = (255, 255, 255), (0, 0, 0)


def draw_samples(
    data: CocoDataset,
    results: list[dict[str, Any]],
    *,
    count: int = 4,
    score_threshold: float = 0.3,
) -> list[Pixels]:
    """Pictures in two halves: the ground truth at the left, the detections at the right.

    The same pictures each time, spread evenly over those with objects. A picture that cannot be
    read is left out; reading the data names it.

    Args:
        data: the validation pictures.
        results: COCO result dicts of them, as `detect_all` returns them.
        count: of pictures, at most.
        score_threshold: detections with a higher score are drawn.
    Returns:
        (H, W, 3) uint8 RGB each, sides of different lengths; empty where there is no picture.
    """
    drawn = (_draw(p, data, results, score_threshold) for p in choose_pictures(data, count))
    return [pixels for pixels in drawn if pixels is not None]


def choose_pictures(data: CocoDataset, count: int) -> list[Picture]:
    """Up to `count` pictures, evenly spread over those with objects; over all where none has."""
    pictures = [p for p in data.pictures if len(p.boxes)] or data.pictures
    count = min(count, len(pictures))
    return [pictures[k * len(pictures) // count] for k in range(count)]


def _draw(
    picture: Picture, data: CocoDataset, results: list[dict[str, Any]], threshold: float
) -> Pixels | None:
    try:
        pixels = read_picture(picture.path)
    except PictureError:
        return None
    longest = min(LONGEST_PX, max(pixels.shape[:2]))
    size = resized_size(picture.height, picture.width, longest, longest)
    pixels = resize(pixels, size, "antialias")
    truth, found = _truth(picture, data, size), _found(picture, data, results, size)
    return _side_by_side(
        ("ground truth", draw_detections(pixels, truth, scores=False)),
        (
            f"score > {threshold:g}",
            draw_detections(pixels, found.filter(score_threshold=threshold)),
        ),
    )


def _truth(picture: Picture, data: CocoDataset, size: tuple[int, int]) -> Detections:
    scores = np.ones(len(picture.boxes), np.float32)
    return _detections(picture, data, size, picture.boxes, scores, picture.classes)


def _found(
    picture: Picture, data: CocoDataset, results: list[dict[str, Any]], size: tuple[int, int]
) -> Detections:
    rows = [row for row in results if row["image_id"] == picture.image_id]
    rows.sort(key=lambda row: -row["score"])
    boxes = np.array([row["bbox"] for row in rows], np.float32).reshape(-1, 4)
    boxes[:, 2:] += boxes[:, :2]  # xywh -> xyxy
    scores = np.array([row["score"] for row in rows], np.float32)
    classes = [data.category_ids.index(row["category_id"]) for row in rows]
    return _detections(picture, data, size, boxes, scores, np.array(classes, np.int64))


def _detections(
    picture: Picture,
    data: CocoDataset,
    size: tuple[int, int],
    boxes: Boxes,
    scores: np.typing.NDArray[np.float32],
    classes: np.typing.NDArray[np.int64],
) -> Detections:
    """Boxes in the picture's own pixels as detections in a picture of this (height, width)."""
    return Detections(
        boxes=scale_boxes(boxes, (picture.height, picture.width), size),
        scores=scores,
        class_ids=classes,
        image_size=size,
        class_names=data.class_names,
        dataset_ids=data.category_ids,
    )


def _side_by_side(left: tuple[str, Pixels], right: tuple[str, Pixels]) -> Pixels:
    """Two pictures of one size, each with a heading."""
    height, width = left[1].shape[:2]
    sheet = Image.new("RGB", (2 * width + GAP_PX, height + HEADING_PX), BACKGROUND)
    draw, font = ImageDraw.Draw(sheet), ImageFont.load_default(14)
    for x, (heading, pixels) in ((0, left), (width + GAP_PX, right)):
        draw.text((x + 2, 2), heading, fill=INK, font=font)
        sheet.paste(Image.fromarray(pixels), (x, HEADING_PX))
    return np.array(sheet, dtype=np.uint8)
