"""What a graph returned into detections, in pixels of the picture as it was opened."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from .backends.base import RawDetections
from .detections import Detections
from .manifest import Manifest
from .preprocess import PlacedPicture


def to_detections(
    raw: RawDetections,
    row: int,
    placed: PlacedPicture,
    manifest: Manifest,
    score_threshold: float | None = None,
) -> Detections:
    """One picture's row of what the graph returned, in pixels of the picture as it was opened.

    x is scaled by the ratio of the widths and y by that of the heights, as both were rounded; boxes
    are clipped to the picture, and what is then empty is dropped.
    """
    count = int(raw.num_detections[row])
    boxes, scores = raw.boxes[row, :count], raw.scores[row, :count]
    (height, width), (resized_height, resized_width) = placed.original, placed.resized
    factors = np.array([width / resized_width, height / resized_height] * 2, dtype=np.float32)
    limits = np.array([width, height] * 2, dtype=np.float32)
    boxes = np.clip(boxes * factors, 0, limits)
    keep: npt.NDArray[np.bool_] = (boxes[:, 2:] > boxes[:, :2]).all(axis=1)
    if score_threshold is not None:  # for graphs without that input; greedy NMS allows it
        keep &= scores > score_threshold
    return Detections(
        boxes=boxes[keep],
        scores=scores[keep],
        class_ids=raw.classes[row, :count][keep].astype(np.int64),
        image_size=placed.original,
        class_names=manifest.class_names,
        dataset_ids=manifest.category_ids,
    )
