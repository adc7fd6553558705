"""The operators against slow loops: ties, empty boxes, padding, thresholds met exactly, batches."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from cn2.trainer import ops
from reference import ops_reference as reference


def random_boxes(batch: int, count: int, seed: int) -> Tensor:
    """(batch, count, 4) boxes on a coarse grid of 60 pixels, so that many overlap or are equal."""
    generator = torch.Generator().manual_seed(seed)
    start = torch.randint(0, 30, (batch, count, 2), generator=generator)
    size = torch.randint(0, 30, (batch, count, 2), generator=generator)
    return torch.cat([start, start + size], dim=-1).float()


def random_scores(*shape: int, seed: int, steps: int = 8) -> Tensor:
    """Scores in [0, 1) with few distinct values: ties everywhere, some exactly 0."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, steps, shape, generator=generator).float() / steps


@pytest.mark.parametrize(
    ("count", "k"),
    [
        (12, 5),  # more than asked for
        (5, 5),
        (3, 7),  # fewer: padded
        (1, 1),
        (0, 4),  # none at all
    ],
)
def test_stable_topk(count: int, k: int, device: torch.device) -> None:
    scores = random_scores(3, count, seed=count, steps=3)
    values, indices = ops.stable_topk(scores.to(device), k)
    assert indices.dtype == torch.int64
    for row in range(3):
        expected = reference.topk(scores[row].tolist(), k)
        assert (values[row].tolist(), indices[row].tolist()) == expected


def test_stable_topk_of_equal_scores_keeps_their_order(device: torch.device) -> None:
    _, indices = ops.stable_topk(torch.full((1, 5000), 0.25, device=device), 1000)
    assert indices[0].tolist() == list(range(1000))


@pytest.mark.parametrize("threshold", [0.0, 0.5, 0.9])
@pytest.mark.parametrize("k", [3, 20, 50])  # fewer than survive, about as many, more than came
def test_proposal_nms(threshold: float, k: int, device: torch.device) -> None:
    boxes, scores = random_boxes(3, 40, seed=k), random_scores(3, 40, seed=k + 1)
    kept, kept_scores = ops.proposal_nms(boxes.to(device), scores.to(device), k, threshold)
    assert kept.shape == (3, k, 4)
    for picture in range(3):
        expected, expected_scores = reference.proposal_nms(
            boxes[picture].double().numpy(), scores[picture].tolist(), k, threshold
        )
        np.testing.assert_array_equal(kept[picture].cpu().numpy(), expected)
        assert kept_scores[picture].tolist() == expected_scores


HALF_OVERLAP = [[0.0, 0.0, 2.0, 1.0], [0.0, 0.0, 1.0, 1.0]]  # IoU exactly 1/2


@pytest.mark.parametrize(("threshold", "kept"), [(0.5, 2), (0.4999, 1), (0.5001, 2)])
def test_an_overlap_of_exactly_the_threshold_stays(
    threshold: float, kept: int, device: torch.device
) -> None:
    boxes = torch.tensor([HALF_OVERLAP], device=device)
    scores = torch.tensor([[0.9, 0.8]], device=device)
    assert int((ops.proposal_nms(boxes, scores, 4, threshold)[1] > 0).sum()) == kept
    floor = torch.tensor(0.1, device=device)
    number = ops.detection_nms(boxes, scores[..., None], floor, 4, threshold)[0]
    assert number.tolist() == [kept]


def test_rows_of_score_zero_are_padding_whatever_their_boxes() -> None:
    boxes = torch.tensor([[[0.0, 0.0, 9.0, 9.0], [1.0, 1.0, 5.0, 5.0]]])
    kept, scores = ops.proposal_nms(boxes, torch.tensor([[0.0, 0.5]]), 3, 0.9)
    assert scores.tolist() == [[0.5, 0.0, 0.0]]
    assert kept[0].tolist() == [[1.0, 1.0, 5.0, 5.0], [0.0] * 4, [0.0] * 4]


def test_empty_boxes_suppress_nothing() -> None:
    boxes = torch.zeros(1, 3, 4)
    _, scores = ops.proposal_nms(boxes, torch.tensor([[0.3, 0.9, 0.3]]), 3, 0.5)
    torch.testing.assert_close(scores, torch.tensor([[0.9, 0.3, 0.3]]))


@pytest.mark.parametrize("detections", [1, 10, 200])
@pytest.mark.parametrize("score_threshold", [0.0, 0.375, 0.99])  # all, an exact score, none
def test_detection_nms(detections: int, score_threshold: float, device: torch.device) -> None:
    boxes, scores = random_boxes(2, 20, seed=3), random_scores(2, 20, 4, seed=4)
    number, kept, kept_scores, classes = ops.detection_nms(
        boxes.to(device),
        scores.to(device),
        torch.tensor(score_threshold, device=device),
        detections,
        0.6,
    )
    assert number.dtype == classes.dtype == torch.int32
    for picture in range(2):
        expected = reference.detection_nms(
            boxes[picture].double().numpy(),
            scores[picture].double().numpy(),
            score_threshold,
            detections,
            0.6,
        )
        count = int(number[picture])
        assert count == len(expected)
        assert classes[picture, :count].tolist() == [label for _, label in expected]
        rows = [row for row, _ in expected]
        assert kept[picture, :count].tolist() == boxes[picture, rows].tolist()
        assert kept_scores[picture, :count].tolist() == [
            scores[picture, row, label].item() for row, label in expected
        ]
        for padded in (kept, kept_scores, classes):
            assert not padded[picture, count:].any()


@pytest.mark.parametrize("detections", [1, 10, 200])
def test_detection_nms_of_boxes_of_each_class(detections: int, device: torch.device) -> None:
    """Each class on its own, then the best of all."""
    boxes, scores = (
        random_boxes(2, 80, seed=3).reshape(2, 20, 4, 4),
        random_scores(2, 20, 4, seed=4),
    )
    floor = torch.tensor(0.375, device=device)
    number, kept, kept_scores, classes = ops.detection_nms(
        boxes.to(device), scores.to(device), floor, detections, 0.4
    )
    for picture in range(2):
        found = []
        for label in range(4):
            own = boxes[picture, :, label].double().numpy()
            column = scores[picture, :, label : label + 1].double().numpy()
            rows = [row for row, _ in reference.detection_nms(own, column, 0.375, 20, 0.4)]
            found += [(-scores[picture, row, label].item(), row, label) for row in rows]
        expected = sorted(found)[:detections]
        count = int(number[picture])
        assert count == len(expected)
        assert len(found) < int((scores[picture] > 0.375).sum())  # some were suppressed
        assert classes[picture, :count].tolist() == [label for _, _, label in expected]
        assert kept_scores[picture, :count].tolist() == [-score for score, _, _ in expected]
        for found_box, (_, row, label) in zip(kept[picture, :count], expected, strict=True):
            assert found_box.tolist() == boxes[picture, row, label].tolist()
        assert not kept[picture, count:].any()


def test_equal_scores_rank_by_box_then_class() -> None:
    boxes = torch.tensor([[[0.0, 0.0, 4.0, 4.0], [10.0, 10.0, 14.0, 14.0]]])
    number, kept, _, classes = ops.detection_nms(
        boxes, torch.full((1, 2, 2), 0.5), torch.tensor(0.1), 3, 0.7
    )
    assert number.tolist() == [3]
    assert classes.tolist() == [[0, 1, 0]]
    assert kept[0, :, 0].tolist() == [0.0, 0.0, 10.0]


@pytest.mark.parametrize("detections", [1, 10, 200])  # fewer than survive, some, more
@pytest.mark.parametrize("labels", [1, 4, 40])  # all of one class, several, one or two of each
def test_class_nms(detections: int, labels: int, device: torch.device) -> None:
    boxes, scores = random_boxes(2, 60, seed=3), random_scores(2, 60, seed=4)
    classes = torch.randint(0, labels, (2, 60), generator=torch.Generator().manual_seed(5))
    number, kept, kept_scores, kept_classes = ops.class_nms(
        boxes.to(device), scores.to(device), classes.to(device), labels, detections, 0.6
    )
    assert number.dtype == kept_classes.dtype == torch.int32
    for picture in range(2):
        rows = reference.class_nms(
            boxes[picture].double().numpy(),
            scores[picture].tolist(),
            classes[picture].tolist(),
            detections,
            0.6,
        )
        count = int(number[picture])
        assert count == len(rows)
        assert kept[picture, :count].tolist() == boxes[picture, rows].tolist()
        assert kept_scores[picture, :count].tolist() == scores[picture, rows].tolist()
        assert kept_classes[picture, :count].tolist() == classes[picture, rows].tolist()
        for padded in (kept, kept_scores, kept_classes):
            assert not padded[picture, count:].any()


def test_class_nms_decides_by_the_boxes_as_they_are() -> None:
    """An overlap of exactly the threshold stays, also far from the origin and in a high class."""
    boxes = torch.tensor([HALF_OVERLAP]) + 60_000.0  # shifted by classes, sides would be rounded
    classes = torch.full((1, 2), 1202)
    number, *_ = ops.class_nms(boxes, torch.tensor([[0.9, 0.8]]), classes, 1203, 4, 0.5)
    assert number.tolist() == [2]


def test_no_boxes_at_all() -> None:
    kept, scores = ops.proposal_nms(torch.zeros(2, 0, 4), torch.zeros(2, 0), 3, 0.9)
    assert not kept.any()
    assert not scores.any()
    number, *_ = ops.detection_nms(
        torch.zeros(2, 0, 4), torch.zeros(2, 0, 5), torch.tensor(0.1), 3, 0.7
    )
    assert number.tolist() == [0, 0]
    nothing = (torch.zeros(2, 0, 4), torch.zeros(2, 0), torch.zeros(2, 0, dtype=torch.int64))
    assert ops.class_nms(*nothing, 5, 3, 0.7)[0].tolist() == [0, 0]


# Boxes on levels of strides 8, 16, 32 (canonical: level 4 at 64 pixels), on a canvas of 64 x 96.
ROIS = [
    [4.0, 6.0, 20.0, 30.0],  # small: finest level
    [0.0, 0.0, 64.0, 64.0],  # exactly canonical: level 4
    [0.0, 0.0, 63.9, 64.0],  # just below: level 3
    [-30.0, -20.0, 110.0, 120.0],  # beyond the canvas: level 5
    [50.0, 40.0, 50.0, 40.0],  # empty
    [90.5, 3.25, 95.0, 60.75],  # at the right border, tall
]


def align(rois: Tensor, features: list[Tensor], sampling_ratio: int) -> Tensor:
    return ops.pyramid_roi_align(rois, features, [8, 16, 32], 4, 64.0, 7, sampling_ratio)


def pyramid(batch: int, seed: int = 0) -> list[Tensor]:
    generator = torch.Generator().manual_seed(seed)
    sizes = ((8, 12), (4, 6), (2, 3))
    return [torch.randn(batch, 2, h, w, generator=generator) for h, w in sizes]


@pytest.mark.parametrize("sampling_ratio", [0, 2])
def test_pyramid_roi_align(sampling_ratio: int, device: torch.device) -> None:
    features = pyramid(2)
    rois = torch.tensor([ROIS, ROIS[::-1]])
    pooled = align(rois.to(device), [f.to(device) for f in features], sampling_ratio).cpu()
    assert pooled.shape == (2, len(ROIS), 2, 7, 7)
    for picture in range(2):
        for row in range(len(ROIS)):
            box = rois[picture, row].double().numpy()
            level = reference.level_of(box, [8, 16, 32], 4, 64.0)
            feature = features[level][picture].double().numpy()
            expected = reference.roi_align(feature, box, 8 * 2**level, 7, sampling_ratio)
            np.testing.assert_allclose(pooled[picture, row].numpy(), expected, atol=1e-5)


def test_pyramid_roi_align_keeps_pictures_apart() -> None:
    features, rois = pyramid(3), torch.tensor([ROIS, ROIS[::-1], ROIS])
    together = align(rois, features, 0)
    for picture in range(3):
        one = slice(picture, picture + 1)
        alone = align(rois[one], [feature[one] for feature in features], 0)
        assert torch.equal(together[one], alone)


def test_pyramid_roi_align_of_no_boxes() -> None:
    assert align(torch.zeros(2, 0, 4), pyramid(2), 0).shape == (2, 0, 2, 7, 7)


def test_shapes_without_data_agree_with_real_ones() -> None:
    scores = torch.rand(2, 6)
    torch.library.opcheck(ops.stable_topk, (scores, 4))
    boxes = random_boxes(2, 6, seed=1)
    torch.library.opcheck(ops.proposal_nms, (boxes, scores, 4, 0.9))
    wide = torch.rand(2, 6, 3)
    torch.library.opcheck(ops.detection_nms, (boxes, wide, torch.tensor(0.2), 4, 0.7))
    classes = torch.randint(0, 3, (2, 6))
    torch.library.opcheck(ops.class_nms, (boxes, scores, classes, 3, 4, 0.7))
    arguments = (torch.tensor([ROIS]), pyramid(1), [8, 16, 32], 4, 64.0, 7, 0)
    torch.library.opcheck(ops.pyramid_roi_align, arguments)
