"""Does libcn2 find in a file what the backend onnxruntime finds? Both on one thread."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from cn2.runtime.detector import Detector
from exported import canvases
from factories import picture

SIZES = [(64, 96), (96, 64), (131, 190), (70, 70), (240, 320), (3, 150), (150, 3)]
BOX_PX, SCORE = 0.01, 1e-5


def assert_native_agrees(path: Path) -> str:
    """Compare whole pictures of all shapes, and the graph on canvases; what native says runs it."""
    with (
        Detector.open(path, backend="native", device="cpu", threads=1) as native,
        Detector.open(path, backend="onnxruntime", device="cpu", threads=1) as python,
    ):
        assert_same_pictures(native, python)
        height, width = native.manifest.canvas.fixed or (128, 256)  # multiples of every divisor
        images, sizes = canvases(2, height, width)
        found, expected = (one.backend.infer(images, sizes) for one in (native, python))
        np.testing.assert_array_equal(found.num_detections, expected.num_detections)
        np.testing.assert_array_equal(found.classes, expected.classes)
        np.testing.assert_allclose(found.boxes, expected.boxes, rtol=0, atol=BOX_PX)
        np.testing.assert_allclose(found.scores, expected.scores, rtol=0, atol=SCORE)
        assert found.num_detections.min() >= 1
        runtime: str = native.backend.runtime  # type: ignore[attr-defined]
    return runtime


def assert_same_pictures(native: Detector, python: Detector) -> None:
    pictures = [picture(*size, seed=index) for index, size in enumerate(SIZES)]
    counts = []
    for threshold in (native.manifest.lowest_score_threshold, 0.3):
        for one in pictures:
            found, expected = native(one, threshold), python(one, threshold)
            np.testing.assert_array_equal(found.class_ids, expected.class_ids)
            np.testing.assert_allclose(found.boxes, expected.boxes, rtol=0, atol=BOX_PX)
            np.testing.assert_allclose(found.scores, expected.scores, rtol=0, atol=SCORE)
            assert found.image_size == expected.image_size
            counts.append(len(found))
    assert sum(counts[: len(pictures)]) >= 7
    assert sum(counts[len(pictures) :]) < sum(counts[: len(pictures)])
