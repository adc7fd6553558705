"""ProposalNMS against slow loops, and what must hold of any input."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from native_kernels import Kernels, Proposals
from plugin_inputs import case_threshold, grid_boxes, grid_scores, spread_boxes
from reference import nms_reference as reference

BATCHES, BATCH = 200, 50  # 10,000 cases
NAN, INF = np.float32(np.nan), np.float32(np.inf)


def assert_equal_to_reference(
    found: Proposals,
    boxes: NDArray[np.float32],
    scores: NDArray[np.float32],
    threshold: float,
    classes: NDArray[np.int32] | None = None,
) -> None:
    """To the last bit."""
    expected = reference.proposal_nms(boxes, scores, found.scores.shape[1], threshold, classes)
    np.testing.assert_array_equal(found.boxes, expected[0])
    np.testing.assert_array_equal(found.scores, expected[1])
    if found.classes is not None:
        np.testing.assert_array_equal(found.classes, expected[2])


def test_random_cases_with_ties_and_overlaps_on_the_threshold(kernels: Kernels) -> None:
    rng = np.random.default_rng(0)
    on_threshold = 0
    for case in range(BATCHES):
        shape, k = (BATCH, case % 12), int(rng.integers(1, 9))
        boxes, scores = grid_boxes(rng, shape), grid_scores(rng, shape)
        classes = rng.integers(0, 3, shape).astype(np.int32) if case // 12 % 2 else None
        threshold = case_threshold(rng, boxes)
        on_threshold += int((reference.iou_matrix(boxes) == threshold).any(axis=(1, 2)).sum())
        found = kernels.proposal_nms(boxes, scores, k, threshold, classes=classes)
        assert_equal_to_reference(found, boxes, scores, threshold, classes)
    assert on_threshold > 1000  # pictures with an IoU that is the threshold


@pytest.mark.parametrize("k", [1, 128, 1000])
@pytest.mark.parametrize("threshold", [0.9, 0.5, 0.0])
def test_many_boxes(kernels: Kernels, k: int, threshold: float) -> None:
    rng = np.random.default_rng(1)
    boxes, scores = spread_boxes(rng, (2, 500)), rng.random((2, 500), dtype=np.float32)
    found = kernels.proposal_nms(boxes, scores, k, threshold)
    assert_equal_to_reference(found, boxes, scores, threshold)


def test_most_boxes_are_suppressed(kernels: Kernels) -> None:
    """Far more candidates than the first round sorts are looked at: 30 objects, 50 wanted."""
    rng = np.random.default_rng(2)
    objects = spread_boxes(rng, (1, 30)) * 100
    boxes = objects[:, rng.integers(0, 30, 1500)] + rng.random((1, 1500, 4), dtype=np.float32)
    scores = grid_scores(rng, (1, 1500), steps=500)
    found = kernels.proposal_nms(boxes, scores, 50, 0.5)
    assert_equal_to_reference(found, boxes, scores, 0.5)
    assert 1 < np.count_nonzero(found.scores) <= 30


def test_more_proposals_than_boxes_and_none_at_all(kernels: Kernels) -> None:
    rng = np.random.default_rng(3)
    boxes, scores = grid_boxes(rng, (2, 5)), grid_scores(rng, (2, 5))
    found = kernels.proposal_nms(boxes, scores, 1000, 0.5)
    assert_equal_to_reference(found, boxes, scores, 0.5)
    classes = np.zeros((2, 0), np.int32)
    empty = kernels.proposal_nms(boxes[:, :0], scores[:, :0], 4, 0.5, classes=classes)
    assert not empty.boxes.any()
    assert not empty.scores.any()
    assert empty.classes is not None
    assert not empty.classes.any()
    assert kernels.proposal_nms(boxes[:0], scores[:0], 4, 0.5).boxes.shape == (0, 4, 4)


def test_equal_scores_keep_their_order(kernels: Kernels) -> None:
    boxes = np.zeros((1, 700, 4), np.float32)
    boxes[0, :, 0] = np.arange(700) * 2
    boxes[0, :, 2] = boxes[0, :, 0] + 1
    boxes[0, :, 3] = 1
    found = kernels.proposal_nms(boxes, np.full((1, 700), 0.25, np.float32), 600, 0.5)
    np.testing.assert_array_equal(found.boxes[0], boxes[0, :600])


def test_boxes_without_area_stay(kernels: Kernels) -> None:
    flat = np.array([[1, 1, 1, 5], [1, 1, 5, 1], [2, 2, 2, 2], [5, 5, 1, 1], [0, 0, 6, 6]])
    boxes = np.repeat(flat, 2, axis=0)[None].astype(np.float32)
    scores = np.linspace(1, 0.1, 10, dtype=np.float32)[None]
    found = kernels.proposal_nms(boxes, scores, 10, 0.0)
    np.testing.assert_array_equal(found.boxes[0, :9], boxes[0, :9])  # the last one repeats a solid
    assert found.scores[0, 9] == 0


def test_numbers_that_are_none(kernels: Kernels) -> None:
    """NaN and scores up to 0 are padding; a box with NaN overlaps nothing; infinity is a score."""
    boxes = np.tile(np.array([0, 0, 4, 4], np.float32), (1, 7, 1))
    boxes[0, 4, 2] = NAN
    boxes[0, 5, 2] = INF
    scores = np.array([[NAN, 0.0, -1.0, INF, 0.5, 0.25, 0.125]], np.float32)
    found = kernels.proposal_nms(boxes, scores, 7, 0.5)
    np.testing.assert_array_equal(found.scores[0], [INF, 0.5, 0.25, 0, 0, 0, 0])
    np.testing.assert_array_equal(found.boxes[0, :3], boxes[0, 3:6])


@settings(deadline=None, max_examples=60)
@given(st.integers(0, 10**6), st.integers(1, 40), st.integers(-60, 60))
def test_order_and_scale_do_not_matter(
    kernels: Kernels, seed: int, count: int, exponent: int
) -> None:
    rng = np.random.default_rng(seed)
    boxes, threshold = grid_boxes(rng, (1, count)), 0.5
    scores = rng.permutation(count).astype(np.float32)[None] + 1
    found = kernels.proposal_nms(boxes, scores, count, threshold)
    order = rng.permutation(count)
    shuffled = kernels.proposal_nms(boxes[:, order], scores[:, order], count, threshold)
    np.testing.assert_array_equal(shuffled.boxes, found.boxes)
    factor = np.float32(2.0**exponent)
    scaled = kernels.proposal_nms(boxes * factor, scores, count, threshold)
    np.testing.assert_array_equal(scaled.boxes, found.boxes * factor)
    np.testing.assert_array_equal(scaled.scores, found.scores)


@settings(deadline=None, max_examples=60)
@given(st.integers(0, 10**6), st.integers(1, 40))
def test_worse_duplicates_change_nothing(kernels: Kernels, seed: int, count: int) -> None:
    rng = np.random.default_rng(seed)
    boxes, scores = spread_boxes(rng, (1, count)), grid_scores(rng, (1, count)) + np.float32(1)
    found = kernels.proposal_nms(boxes, scores, count, 0.5)
    both = np.concatenate([boxes, boxes], axis=1), np.concatenate([scores, scores], axis=1)
    again = kernels.proposal_nms(*both, count, 0.5)
    np.testing.assert_array_equal(again.boxes, found.boxes)


def test_threads_give_the_same(kernels: Kernels) -> None:
    rng = np.random.default_rng(4)
    boxes, scores = spread_boxes(rng, (9, 300)), grid_scores(rng, (9, 300), steps=50)
    serial = kernels.proposal_nms(boxes, scores, 100, 0.5)
    threaded = kernels.proposal_nms(boxes, scores, 100, 0.5, threads=4)
    for ours, theirs in zip(threaded[:2], serial[:2], strict=True):
        np.testing.assert_array_equal(ours, theirs)


@pytest.mark.parametrize(("k", "threshold"), [(0, 0.5), (-1, 0.5), (1, -0.1), (1, 1.5), (1, NAN)])
def test_what_no_call_can_have(kernels: Kernels, k: int, threshold: float) -> None:
    status = call_with_sizes(kernels, 1, 1, k, threshold)
    assert status == 1


@pytest.mark.parametrize("sizes", [(-1, 1), (1, -1), (1, 2**32), (2**62, 4), (2**31, 2**31)])
def test_sizes_that_no_tensor_has(kernels: Kernels, sizes: tuple[int, int]) -> None:
    assert call_with_sizes(kernels, *sizes, 1, 0.5) == 1


def call_with_sizes(kernels: Kernels, batch: int, count: int, k: int, threshold: float) -> int:
    """The status of a call whose tensors nobody may touch."""
    from ctypes import c_float, c_int32, c_int64, c_void_p

    nothing = c_void_p(None)
    status: int = kernels.library.cn2_kernels_proposal_nms(
        nothing, nothing, nothing, c_int64(batch), c_int64(count), c_int64(k), c_float(threshold),
        c_int32(0), nothing, nothing, nothing,
    )  # fmt: skip
    return status
