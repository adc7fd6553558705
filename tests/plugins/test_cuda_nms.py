"""Both NMS as CUDA kernels, emulated, against the CPU's kernels and slow loops: to the last bit."""

from __future__ import annotations

import numpy as np
import pytest

from native_cuda import CudaKernels
from native_kernels import Found, Kernels, Proposals
from plugin_inputs import Floats, case_threshold, grid_boxes, grid_scores, spread_boxes
from reference import nms_reference as reference

BATCHES, BATCH = 24, 20
CHUNK = 2048  # ranks that are sorted together


def assert_same(ours: Proposals | Found, theirs: Proposals | Found) -> None:
    for one, other in zip(ours, theirs, strict=True):
        np.testing.assert_array_equal(one, other)


def test_proposals_of_random_cases(cuda: CudaKernels) -> None:
    rng = np.random.default_rng(0)
    for case in range(BATCHES):
        shape, k = (BATCH, case % 12), int(rng.integers(1, 9))
        boxes, scores = grid_boxes(rng, shape), grid_scores(rng, shape)
        classes = rng.integers(0, 3, shape).astype(np.int32) if case % 2 else None
        threshold = case_threshold(rng, boxes)
        cuda.set_seed(case)
        found = cuda.proposal_nms(boxes, scores, k, threshold, classes=classes)
        expected = reference.proposal_nms(boxes, scores, k, threshold, classes)
        for ours, theirs in zip(found[:2], expected[:2], strict=True):
            np.testing.assert_array_equal(ours, theirs)
        if found.classes is not None:
            np.testing.assert_array_equal(found.classes, expected[2])


def test_detections_of_random_cases(cuda: CudaKernels) -> None:
    rng = np.random.default_rng(1)
    for case in range(BATCHES):
        rows, classes = case % 7, int(rng.integers(1, 4))
        boxes = grid_boxes(rng, (BATCH, rows, 1 if case % 2 else classes))
        scores = grid_scores(rng, (BATCH, rows, classes))
        iou = case_threshold(rng, boxes[:, :, 0])
        floor = float(rng.choice([0.0, 0.2, 0.4, -1.0]))
        limit = int(rng.integers(1, 9))
        cuda.set_seed(case)
        found = cuda.detection_nms(boxes, scores, floor, limit, iou)
        expected = reference.detection_nms(boxes, scores, floor, limit, iou)
        for ours, theirs in zip(found, expected, strict=True):
            np.testing.assert_array_equal(ours, theirs)


# Around the tile of 64, the chunk, and what needs several chunks; distinct scores, and ties.
@pytest.mark.parametrize("count", [63, 64, 65, CHUNK - 1, CHUNK, CHUNK + 1, 5000])
@pytest.mark.parametrize("steps", [7, 2**22])
def test_counts_around_a_tile_and_a_chunk(
    cuda: CudaKernels, kernels: Kernels, count: int, steps: int
) -> None:
    rng = np.random.default_rng(count)
    boxes, scores = spread_boxes(rng, (1, count)), grid_scores(rng, (1, count), steps=steps)
    for k, threshold in ((128, 0.9), (1000, 0.3)):
        ours = cuda.proposal_nms(boxes, scores, k, threshold)
        theirs = kernels.proposal_nms(boxes, scores, k, threshold)
        np.testing.assert_array_equal(ours.boxes, theirs.boxes)
        np.testing.assert_array_equal(ours.scores, theirs.scores)


@pytest.mark.parametrize("with_classes", [True, False])
def test_so_many_boxes_that_they_are_collected_first(
    cuda: CudaKernels, kernels: Kernels, with_classes: bool
) -> None:
    rng = np.random.default_rng(6)
    shape = (2, 20000)
    boxes, scores = spread_boxes(rng, shape), grid_scores(rng, shape, steps=3000)
    scores[rng.random(shape) < 0.3] = np.nan
    scores[1, 100:] = 0  # few are left of this one
    classes = rng.integers(0, 5, shape).astype(np.int32) if with_classes else None
    theirs = kernels.proposal_nms(boxes, scores, 700, 0.5, classes=classes)
    for seed in range(3):
        cuda.set_seed(seed)
        ours = cuda.proposal_nms(boxes, scores, 700, 0.5, classes=classes)
        np.testing.assert_array_equal(ours.boxes, theirs.boxes)
        np.testing.assert_array_equal(ours.scores, theirs.scores)
        if with_classes:
            np.testing.assert_array_equal(ours.classes, theirs.classes)


def test_all_candidates_of_several_chunks_are_looked_at(
    cuda: CudaKernels, kernels: Kernels
) -> None:
    """Thirty objects, more wanted: nearly every candidate is suppressed by one of them."""
    rng = np.random.default_rng(2)
    objects = spread_boxes(rng, (1, 30)) * 100
    boxes = objects[:, rng.integers(0, 30, 7000)] + rng.random((1, 7000, 4), dtype=np.float32)
    scores = grid_scores(rng, (1, 7000), steps=3000)
    ours, theirs = (one.proposal_nms(boxes, scores, 50, 0.5) for one in (cuda, kernels))
    np.testing.assert_array_equal(ours.boxes, theirs.boxes)
    assert 1 < np.count_nonzero(ours.scores) <= 30


def test_equal_scores_in_several_chunks(cuda: CudaKernels) -> None:
    """Only the lowest digit of the rank tells them apart."""
    count = 3 * CHUNK
    boxes = np.zeros((1, count, 4), np.float32)
    boxes[0, :, 0] = np.arange(count) * 2
    boxes[0, :, 2] = boxes[0, :, 0] + 1
    boxes[0, :, 3] = 1
    found = cuda.proposal_nms(boxes, np.full((1, count), 0.25, np.float32), count + 9, 0.5)
    np.testing.assert_array_equal(found.boxes[0, :count], boxes[0])
    assert not found.scores[0, count:].any()


def test_a_chain_of_a_whole_tile(cuda: CudaKernels, kernels: Kernels) -> None:
    """Each box overlaps the next only, so every second one stays, after as many rounds."""
    boxes = np.array([[[6 * i, 0, 6 * i + 10, 10] for i in range(64)]], np.float32)
    scores = np.linspace(1, 0.5, 64, dtype=np.float32)[None]
    ours, theirs = (one.proposal_nms(boxes, scores, 64, 0.2) for one in (cuda, kernels))
    np.testing.assert_array_equal(ours.boxes, theirs.boxes)
    np.testing.assert_array_equal(ours.boxes[0, :32], boxes[0, ::2])


@pytest.mark.parametrize(
    ("rows", "classes", "limit", "floor"),
    [
        (128, 80, 100, 0.05),
        (1000, 1, 100, 0.05),
        (40, 1203, 300, 0.02),
        (40, 1203, 50000, 0.9),  # more than there are scores
    ],
)
@pytest.mark.parametrize("shared", [True, False])
def test_detections_of_real_sizes(
    cuda: CudaKernels,
    kernels: Kernels,
    rows: int,
    classes: int,
    limit: int,
    floor: float,
    shared: bool,
) -> None:
    rng = np.random.default_rng(3)
    boxes = spread_boxes(rng, (1, rows, 1 if shared else classes))
    scores = rng.random((1, rows, classes), dtype=np.float32)
    scores[rng.random(scores.shape) < 0.5] = 0
    assert_same(
        cuda.detection_nms(boxes, scores, floor, limit, 0.5),
        kernels.detection_nms(boxes, scores, floor, limit, 0.5),
    )


def test_order_of_threads_does_not_matter(cuda: CudaKernels) -> None:
    """A race would show: also several pictures, several chunks, several tiles."""
    rng = np.random.default_rng(4)
    boxes, scores = spread_boxes(rng, (2, 2500)), grid_scores(rng, (2, 2500), steps=300)
    every = boxes[:, :50, None], scores.reshape(2, 50, 50)
    first = cuda.proposal_nms(boxes, scores, 300, 0.6), cuda.detection_nms(*every, 0.1, 80, 0.5)
    for seed in range(1, 4):
        cuda.set_seed(seed)
        again = cuda.proposal_nms(boxes, scores, 300, 0.6)
        np.testing.assert_array_equal(again.boxes, first[0].boxes)
        assert_same(cuda.detection_nms(*every, 0.1, 80, 0.5), first[1])


def test_numbers_that_are_none(cuda: CudaKernels, kernels: Kernels) -> None:
    rng = np.random.default_rng(5)
    numbers = np.array([np.nan, np.inf, -np.inf, 0, 1, 2, 3, -0.0, 1e38, 1e-40], np.float32)
    boxes: Floats = rng.choice(numbers, (1, 300, 4))
    scores: Floats = rng.choice(numbers, (1, 300))
    for threshold in (0.0, 0.5, 1.0):
        ours = cuda.proposal_nms(boxes, scores, 300, threshold)
        theirs = kernels.proposal_nms(boxes, scores, 300, threshold)
        np.testing.assert_array_equal(ours.boxes, theirs.boxes)
        for floor in (0.0, -1.0, np.nan, -np.inf):
            split = boxes[:, :60, None], scores.reshape(1, 60, 5)
            assert_same(
                cuda.detection_nms(*split, floor, 50, threshold),
                kernels.detection_nms(*split, floor, 50, threshold),
            )
