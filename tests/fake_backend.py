"""A backend without any engine: it "detects" bright blocks, one colour channel per class."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from cn2.runtime.backends.base import RawDetections, check_inputs, check_score_threshold
from cn2.runtime.canvas import CanvasRule
from cn2.runtime.manifest import Manifest


def make_manifest(**changes: Any) -> Manifest:
    """A manifest of three classes on small canvases, with parts changed."""
    values: dict[str, Any] = {
        "preset": "fake",
        "class_names": ("red", "green", "blue"),
        "category_ids": (1, 3, 7),
        "canvas": CanvasRule(short_edge=64, long_edge=96, divisor=32, interpolation="linear"),
        "proposals": 16,
        "detections": 3,
        "strides": (8, 16, 32),
        "score_threshold": 0.05,
        "lowest_score_threshold": 0.01,
        "weights_license": "CC0-1.0",
    }
    return Manifest(**{**values, **changes})


class FakeBackend:
    """For each class the bounding box of its channel's bright pixels, scored by their brightness.

    `runs` holds the shape of each batch that it was given.
    """

    name = "fake"
    device = "cpu"

    def __init__(self, manifest: Manifest | None = None) -> None:
        self.manifest = manifest or make_manifest()
        self.runs: list[tuple[int, ...]] = []
        self.closed = False

    def infer(
        self,
        images: npt.NDArray[np.uint8],
        image_sizes: npt.NDArray[np.int32],
        score_threshold: float | None = None,
    ) -> RawDetections:
        """Search each picture on its own."""
        check_inputs(self.manifest, images, image_sizes)
        check_score_threshold(self.manifest, score_threshold)
        self.runs.append(images.shape)
        floor = self.manifest.score_threshold if score_threshold is None else score_threshold
        batch, rows = len(images), self.manifest.detections
        raw = RawDetections(
            np.zeros(batch, np.int32),
            np.zeros((batch, rows, 4), np.float32),
            np.zeros((batch, rows), np.float32),
            np.zeros((batch, rows), np.int32),
        )
        for index, (image, (height, width)) in enumerate(zip(images, image_sizes, strict=True)):
            found = [row for row in _search(image[:height, :width]) if row[1] > floor][:rows]
            raw.num_detections[index] = len(found)
            for row, (box, score, class_id) in enumerate(found):
                raw.boxes[index, row] = box
                raw.scores[index, row] = score
                raw.classes[index, row] = class_id
        return raw

    def close(self) -> None:
        """Remember that somebody closed it."""
        self.closed = True


def _search(picture: npt.NDArray[np.uint8]) -> list[tuple[list[int], float, int]]:
    found = []
    for class_id in range(3):
        rows, columns = np.nonzero(picture[:, :, class_id] > 127)
        if len(rows):
            box = [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]
            found.append((box, float(picture[rows, columns, class_id].mean() / 256), class_id))
    return sorted(found, key=lambda row: (-row[1], row[2]))
