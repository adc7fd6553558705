"""DetectionNMS against slow loops, and what must hold of any input."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from native_kernels import Found, Kernels
from plugin_inputs import case_threshold, grid_boxes, grid_scores, spread_boxes
from reference import nms_reference as reference

BATCHES, BATCH = 200, 50  # 10,000 cases


def assert_equal_to_reference(
    found: Found,
    boxes: NDArray[np.float32],
    scores: NDArray[np.float32],
    score_threshold: float,
    iou_threshold: float,
) -> None:
    """To the last bit."""
    detections = found.scores.shape[1]
    expected = reference.detection_nms(boxes, scores, score_threshold, detections, iou_threshold)
    for ours, theirs in zip(found, expected, strict=True):
        np.testing.assert_array_equal(ours, theirs)


def test_random_cases_with_ties_and_overlaps_on_the_threshold(kernels: Kernels) -> None:
    rng = np.random.default_rng(0)
    for case in range(BATCHES):
        rows, classes = case % 7, int(rng.integers(1, 4))
        boxes = grid_boxes(rng, (BATCH, rows, 1 if case % 2 else classes))
        scores = grid_scores(rng, (BATCH, rows, classes))
        iou = case_threshold(rng, boxes[:, :, 0])
        floor = float(rng.choice([0.0, 0.2, 0.4, -1.0]))  # 0.2 and 0.4 are scores that occur
        detections = int(rng.integers(1, 9))
        found = kernels.detection_nms(boxes, scores, floor, detections, iou)
        assert_equal_to_reference(found, boxes, scores, floor, iou)


@pytest.mark.parametrize(
    ("rows", "classes", "detections", "floor"),
    [
        (1000, 1, 100, 0.05),
        (128, 80, 100, 0.05),
        (128, 80, 20000, 0.9),  # more than there are scores
        (256, 1203, 300, 0.97),
        (1, 1203, 300, 0.5),
    ],
)
@pytest.mark.parametrize("shared", [True, False])
def test_real_sizes(
    kernels: Kernels, rows: int, classes: int, detections: int, floor: float, shared: bool
) -> None:
    rng = np.random.default_rng(1)
    boxes = spread_boxes(rng, (1, rows, 1 if shared else classes))
    scores = rng.random((1, rows, classes), dtype=np.float32)
    scores[rng.random(scores.shape) < 0.5] = 0
    found = kernels.detection_nms(boxes, scores, floor, detections, 0.5)
    expected = fast_reference(boxes[0], scores[0], floor, detections, 0.5)
    assert found.counts[0] == len(expected)
    np.testing.assert_array_equal(
        found.classes[0, : len(expected)], [label for _, label in expected]
    )
    own = [boxes[0, row, 0 if shared else label] for row, label in expected]
    np.testing.assert_array_equal(found.boxes[0, : len(expected)], own)
    assert not found.boxes[0, len(expected) :].any()


def fast_reference(
    boxes: NDArray[np.float32],
    scores: NDArray[np.float32],
    floor: float,
    detections: int,
    threshold: float,
) -> list[tuple[int, int]]:
    """As the reference, class by class, for sizes where its loops take too long."""
    found: list[tuple[float, int, int]] = []
    for label in range(scores.shape[1]):
        rows = np.array(reference.best_first(scores[:, label].tolist(), floor), dtype=int)
        own = boxes[rows, min(label, boxes.shape[1] - 1)]
        above = reference.iou_matrix(own) > np.float32(threshold)
        alive = np.ones(len(rows), bool)
        for place in range(len(rows)):
            if alive[place]:
                found.append((-float(scores[rows[place], label]), int(rows[place]), label))
                alive[place + 1 :] &= ~above[place, place + 1 :]
    return [(row, label) for _, row, label in sorted(found)[:detections]]


def test_most_scores_are_suppressed(kernels: Kernels) -> None:
    """All rows show one object, so each of 600 classes has one detection among 64 candidates."""
    rng = np.random.default_rng(2)
    boxes = np.tile(np.array([0, 0, 50, 50], np.float32), (1, 64, 1, 1))
    scores = rng.random((1, 64, 600), dtype=np.float32)
    found = kernels.detection_nms(boxes, scores, 0.0, 700, 0.5)
    assert found.counts[0] == 600
    best = np.sort(scores[0].max(axis=0))[::-1]
    np.testing.assert_array_equal(found.scores[0, :600], best)
    assert not found.scores[0, 600:].any()


def test_nothing_to_find(kernels: Kernels) -> None:
    rng = np.random.default_rng(3)
    boxes, scores = spread_boxes(rng, (2, 5, 1)), rng.random((2, 5, 3), dtype=np.float32)
    for rows, classes, floor in ((5, 3, 1.0), (5, 3, np.nan), (0, 3, 0.0), (5, 0, 0.0)):
        found = kernels.detection_nms(boxes[:, :rows], scores[:, :rows, :classes], floor, 4, 0.5)
        assert found.counts.tolist() == [0, 0]
        assert not any(values.any() for values in found)
    assert kernels.detection_nms(boxes[:0], scores[:0], 0.0, 4, 0.5).boxes.shape == (0, 4, 4)


def test_ties_go_to_the_lower_row_then_to_the_lower_class(kernels: Kernels) -> None:
    boxes = np.array([[0, 0, 1, 1], [5, 5, 6, 6], [9, 9, 10, 10]], np.float32)[None, :, None]
    scores = np.full((1, 3, 2), 0.5, np.float32)
    scores[0, 2, 1] = -0.0  # equal to 0.0, and above -1
    scores[0, 1, 0] = 0.0
    found = kernels.detection_nms(boxes, scores, -1.0, 6, 0.7)
    assert found.classes[0].tolist() == [0, 1, 1, 0, 0, 1]
    assert found.boxes[0, :, 0].tolist() == [0, 0, 5, 9, 5, 9]


def test_nan_scores_never_count(kernels: Kernels) -> None:
    boxes = spread_boxes(np.random.default_rng(4), (1, 200, 1))
    scores = np.full((1, 200, 2), np.nan, np.float32)
    scores[0, 150, 1] = -2
    found = kernels.detection_nms(boxes, scores, -np.inf, 3, 0.5)
    assert found.counts[0] == 1
    assert found.scores[0].tolist() == [-2, 0, 0]


@settings(deadline=None, max_examples=60)
@given(st.integers(0, 10**6), st.integers(1, 20), st.integers(1, 4), st.integers(-60, 60))
def test_order_and_scale_do_not_matter(
    kernels: Kernels, seed: int, rows: int, classes: int, exponent: int
) -> None:
    rng = np.random.default_rng(seed)
    boxes = grid_boxes(rng, (1, rows, 1))
    scores = rng.permutation(rows * classes).astype(np.float32).reshape(1, rows, classes) + 1
    found = kernels.detection_nms(boxes, scores, 0.0, rows * classes, 0.5)
    order = rng.permutation(rows)
    shuffled = kernels.detection_nms(boxes[:, order], scores[:, order], 0.0, rows * classes, 0.5)
    factor = np.float32(2.0**exponent)
    scaled = kernels.detection_nms(boxes * factor, scores, 0.0, rows * classes, 0.5)
    for ours, other, large in zip(found, shuffled, scaled, strict=True):
        np.testing.assert_array_equal(other, ours)
        np.testing.assert_array_equal(large, ours * factor if ours is found.boxes else ours)


@settings(deadline=None, max_examples=60)
@given(st.integers(0, 10**6), st.integers(1, 20), st.integers(1, 4))
def test_worse_duplicates_change_nothing(
    kernels: Kernels, seed: int, rows: int, classes: int
) -> None:
    rng = np.random.default_rng(seed)
    boxes, scores = spread_boxes(rng, (1, rows, 1)), grid_scores(rng, (1, rows, classes))
    found = kernels.detection_nms(boxes, scores, 0.1, 30, 0.5)
    both = np.concatenate([boxes, boxes], axis=1), np.concatenate([scores, scores], axis=1)
    for ours, theirs in zip(kernels.detection_nms(*both, 0.1, 30, 0.5), found, strict=True):
        np.testing.assert_array_equal(ours, theirs)


def test_threads_and_batches_give_the_same(kernels: Kernels) -> None:
    rng = np.random.default_rng(5)
    boxes, scores = spread_boxes(rng, (9, 60, 1)), grid_scores(rng, (9, 60, 40), steps=50)
    serial = kernels.detection_nms(boxes, scores, 0.1, 100, 0.5)
    threaded = kernels.detection_nms(boxes, scores, 0.1, 100, 0.5, threads=4)
    for ours, theirs in zip(threaded, serial, strict=True):
        np.testing.assert_array_equal(ours, theirs)
    alone = kernels.detection_nms(boxes[4:5], scores[4:5], 0.1, 100, 0.5)
    for ours, theirs in zip(alone, serial, strict=True):
        np.testing.assert_array_equal(ours, theirs[4:5])


@pytest.mark.parametrize(
    ("batch", "rows", "classes", "detections", "threshold"),
    [
        (1, 1, 1, 0, 0.5),
        (1, 1, 1, -1, 0.5),
        (1, 1, 1, 2**31, 0.5),
        (1, 1, 1, 1, 1.01),
        (1, 1, 1, 1, np.nan),
        (-1, 1, 1, 1, 0.5),
        (1, -1, 1, 1, 0.5),
        (1, 1, -1, 1, 0.5),
        (1, 2**20, 2**12, 1, 0.5),  # more scores a picture than there are ranks
        (2**61, 1, 1, 1, 0.5),
        (1, 1, 2**31, 1, 0.5),
    ],
)
def test_what_no_call_can_have(
    kernels: Kernels, batch: int, rows: int, classes: int, detections: int, threshold: float
) -> None:
    from ctypes import c_float, c_int32, c_int64, c_void_p

    nothing = c_void_p(None)
    status = kernels.library.cn2_kernels_detection_nms(
        nothing, nothing, c_int64(batch), c_int64(rows), c_int64(classes), c_int32(1),
        c_int64(detections), c_float(threshold), c_float(0), c_int32(0), *[nothing] * 4,
    )  # fmt: skip
    assert status == 1
