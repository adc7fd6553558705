"""Each translated operator in ONNX Runtime: to the last bit what torch does, and the slow loops."""

from __future__ import annotations

from functools import partial

import numpy as np
import pytest
import torch
from torch import Tensor

from cn2.export.operators.pooling import level_borders
from cn2.export.operators.suppression import largest_float32
from cn2.trainer import ops
from cn2.trainer.roi_pooling import assign_levels
from onnx_sessions import Run, assert_identical, through_onnx
from operator_inputs import (
    CANVASES,
    STRIDES,
    pyramid,
    random_boxes,
    random_scores,
    rois_of_all_kinds,
)
from reference import ops_reference as reference

BATCHES = (1, 2, 8)

# --- stable_topk


@pytest.fixture(scope="module")
def topk() -> Run:
    """The five best of rows of any length."""
    return through_onnx(partial(ops.stable_topk, k=5), (torch.rand(2, 20),), ((0, 1),))[0]


@pytest.mark.parametrize("batch", BATCHES)
@pytest.mark.parametrize("count", [12, 5, 3, 1, 0])  # more than asked for, as many, fewer, none
def test_stable_topk(topk: Run, batch: int, count: int) -> None:
    scores = random_scores(batch, count, seed=count, steps=3)
    found = topk(scores)
    assert_identical(found, ops.stable_topk(scores, 5))
    expected = reference.topk(scores[0].tolist(), 5)
    assert (found[0][0].tolist(), found[1][0].tolist()) == expected


def test_stable_topk_keeps_the_order_of_equal_scores() -> None:
    example = (torch.rand(2, 5000),)
    run, _ = through_onnx(partial(ops.stable_topk, k=1000), example, ((0, 1),))
    assert run(torch.full((1, 5000), 0.25))[1][0].tolist() == list(range(1000))


def test_stable_topk_of_negative_scores_pads_with_zeros(topk: Run) -> None:
    scores = torch.tensor([[-3.0, -1.0]])
    assert_identical(topk(scores), ops.stable_topk(scores, 5))


def test_stable_topk_of_long_rows_of_known_length_is_one_node() -> None:
    run, nodes = through_onnx(partial(ops.stable_topk, k=5), (torch.rand(2, 9),), ((0,),))
    assert nodes == ["TopK"]
    scores = random_scores(3, 9, seed=1)
    assert_identical(run(scores), ops.stable_topk(scores, 5))


# --- proposal_nms


@pytest.mark.parametrize(
    ("k", "threshold"),
    [(3, 0.5), (20, 0.5), (50, 0.5), (20, 0.9), (20, 0.0)],  # 40 boxes come
)
def test_proposal_nms(k: int, threshold: float) -> None:
    function = partial(ops.proposal_nms, k=k, iou_threshold=threshold)
    run, _ = through_onnx(function, (torch.rand(2, 40, 4), torch.rand(2, 40)), ((0, 1), (0, 1)))
    for batch in BATCHES:
        for count in (40, 7, 1):
            boxes, scores = random_boxes(batch, count, seed=k), random_scores(batch, count, seed=k)
            found = run(boxes, scores)
            assert_identical(found, function(boxes, scores))
            kept, kept_scores = reference.proposal_nms(
                boxes[0].double().numpy(), scores[0].tolist(), k, threshold
            )
            np.testing.assert_array_equal(found[0][0], kept)
            assert found[1][0].tolist() == kept_scores


def test_proposal_nms_of_padding_only_and_of_equal_boxes() -> None:
    function = partial(ops.proposal_nms, k=4, iou_threshold=0.9)
    run, _ = through_onnx(function, (torch.rand(2, 40, 4), torch.rand(2, 40)), ((0, 1), (0, 1)))
    boxes = torch.tensor([10.0, 20.0, 30.0, 40.0]).expand(2, 6, 4).clone()
    scores = torch.full((2, 6), 0.5)
    scores[0] = 0.0  # a picture without any proposal; its boxes are not zero on purpose
    found = run(boxes, scores)
    assert_identical(found, function(boxes, scores))
    assert found[1].tolist() == [[0, 0, 0, 0], [0.5, 0, 0, 0]]
    assert not found[0][0].any()


@pytest.mark.parametrize(
    ("threshold", "wide", "narrow", "both_stay"),
    [  # IoU narrow / wide: the threshold itself, as float32 rounds it
        (0.5, 2.0, 1.0, True),  # 0.5 is exact
        (0.6, 5.0, 3.0, False),  # float32(0.6) is above 0.6
        (0.7, 10.0, 7.0, True),  # float32(0.7) is below 0.7
        (0.9, 10.0, 9.0, True),  # float32(0.9) is below 0.9
    ],
)
def test_nms_on_the_threshold_decides_as_torch(
    threshold: float, wide: float, narrow: float, both_stay: bool
) -> None:
    function = partial(ops.proposal_nms, k=2, iou_threshold=threshold)
    run, _ = through_onnx(function, (torch.rand(2, 2, 4), torch.rand(2, 2)), ((0,), (0,)))
    boxes = torch.tensor([[[0.0, 0.0, wide, 1.0], [0.0, 0.0, narrow, 1.0]]])
    scores = torch.tensor([[0.9, 0.8]])
    found = run(boxes, scores)
    assert_identical(found, function(boxes, scores))
    assert bool(found[1][0, 1] > 0) == both_stay


def test_largest_float32_is_never_above() -> None:
    for threshold in (0.5, 0.6, 0.7, 0.9, 1.0, 1e-4):
        below = largest_float32(threshold)
        assert below <= threshold < float(np.nextafter(np.float32(below), np.float32(2)))


# --- detection_nms


@pytest.mark.parametrize("detections", [25, 5, 100])  # 20 boxes of 3 classes come: 60 scores
def test_detection_nms(detections: int) -> None:
    function = partial(ops.detection_nms, detections=detections, iou_threshold=0.5)
    example = (torch.rand(2, 20, 4), torch.rand(2, 20, 3), torch.tensor(0.05))
    run, _ = through_onnx(function, example, ((0,), (0,), ()))
    for batch in BATCHES:
        boxes, scores = random_boxes(batch, 20, seed=batch), random_scores(batch, 20, 3, seed=batch)
        scores[:, 15:] = 0.0  # padded proposals
        for value in (0.0, 0.25, 0.3, 1.0):  # 0.25 is a score that occurs; 1.0: nothing found
            threshold = torch.tensor(value)
            found = run(boxes, scores, threshold)
            assert_identical(found, function(boxes, scores, threshold))
            expected = reference.detection_nms(
                boxes[0].double().numpy(), scores[0].numpy(), value, detections, 0.5
            )
            count = int(found[0][0])
            assert count == len(expected)
            assert found[3][0, :count].tolist() == [label for _, label in expected]
            rows = [row for row, _ in expected]
            np.testing.assert_array_equal(found[1][0, :count], boxes[0, rows].numpy())


@pytest.mark.parametrize("detections", [25, 5, 100])  # of 60 pairs of a box and a class
def test_detection_nms_of_boxes_of_each_class(detections: int) -> None:
    function = partial(ops.detection_nms, detections=detections, iou_threshold=0.5)
    example = (torch.rand(2, 20, 3, 4), torch.rand(2, 20, 3), torch.tensor(0.05))
    run, _ = through_onnx(function, example, ((0,), (0,), ()))
    for batch in BATCHES:
        boxes = random_boxes(batch, 60, seed=batch).reshape(batch, 20, 3, 4)
        scores = random_scores(batch, 20, 3, seed=batch)
        scores[:, 15:] = 0.0  # padded proposals
        for value in (0.0, 0.25, 0.3, 1.0):  # 0.25 is a score that occurs; 1.0: nothing found
            threshold = torch.tensor(value)
            found = run(boxes, scores, threshold)
            assert_identical(found, function(boxes, scores, threshold))
            assert found[0].max() > 0 or value == 1.0


def test_detection_nms_finds_nothing_and_returns_zeros() -> None:
    function = partial(ops.detection_nms, detections=6, iou_threshold=0.7)
    example = (torch.rand(2, 4, 4), torch.rand(2, 4, 3), torch.tensor(0.05))
    run, _ = through_onnx(function, example, ((0,), (0,), ()))
    found = run(torch.rand(3, 4, 4), torch.full((3, 4, 3), 0.5), torch.tensor(0.5))
    assert found[0].tolist() == [0, 0, 0]
    assert not any(output.any() for output in found)


def test_detection_nms_ties_go_to_the_lower_box_then_the_lower_class() -> None:
    function = partial(ops.detection_nms, detections=4, iou_threshold=0.7)
    example = (torch.rand(2, 3, 4), torch.rand(2, 3, 2), torch.tensor(0.05))
    run, _ = through_onnx(function, example, ((0,), (0,), ()))
    boxes = torch.tensor([[[0.0, 0, 1, 1], [5, 5, 6, 6], [9, 9, 10, 10]]])
    number, found, _, classes = run(boxes, torch.full((1, 3, 2), 0.5), torch.tensor(0.1))
    assert number[0] == 4
    assert classes[0].tolist() == [0, 1, 0, 1]
    np.testing.assert_array_equal(found[0], boxes[0, [0, 0, 1, 1]].numpy())


# --- class_nms


@pytest.mark.parametrize(
    ("detections", "labels"),
    [(25, 3), (5, 3), (100, 3), (25, 1), (60, 60)],  # 60 boxes come; of one class, of 60
)
def test_class_nms(detections: int, labels: int) -> None:
    function = partial(ops.class_nms, class_count=labels, detections=detections, iou_threshold=0.6)
    example = (torch.rand(2, 60, 4), torch.rand(2, 60), torch.zeros(2, 60, dtype=torch.int64))
    run, _ = through_onnx(function, example, ((0,), (0,), (0,)))
    for batch in BATCHES:
        boxes, scores = random_boxes(batch, 60, seed=batch), random_scores(batch, 60, seed=batch)
        scores[:, 50:] = 0.0  # padding
        scores[-1] *= batch > 2  # the last picture of a small batch has nothing
        generator = torch.Generator().manual_seed(batch)
        classes = torch.randint(0, labels, (batch, 60), generator=generator)
        found = run(boxes, scores, classes)
        assert_identical(found, function(boxes, scores, classes))
        expected = reference.class_nms(
            boxes[0].double().numpy(), scores[0].tolist(), classes[0].tolist(), detections, 0.6
        )
        assert found[0][0] == len(expected)
        np.testing.assert_array_equal(found[1][0, : len(expected)], boxes[0, expected].numpy())
        assert found[3][0, : len(expected)].tolist() == classes[0, expected].tolist()


def test_class_nms_keeps_equal_boxes_of_different_classes_in_order() -> None:
    function = partial(ops.class_nms, class_count=4, detections=3, iou_threshold=0.6)
    example = (torch.rand(2, 5, 4), torch.rand(2, 5), torch.zeros(2, 5, dtype=torch.int64))
    run, _ = through_onnx(function, example, ((0,), (0,), (0,)))
    boxes = torch.tensor([10.0, 20.0, 30.0, 40.0]).expand(1, 5, 4).clone()
    number, _, _, classes = run(boxes, torch.full((1, 5), 0.5), torch.tensor([[2, 2, 1, 3, 0]]))
    assert (number[0], classes[0].tolist()) == (3, [2, 1, 3])


# --- pyramid_roi_align


@pytest.mark.parametrize("sampling_ratio", [0, 2])
@pytest.mark.parametrize("canonical_size", [224.0, 56.0])
def test_pyramid_roi_align(sampling_ratio: int, canonical_size: float) -> None:
    def function(rois: Tensor, *features: Tensor) -> Tensor:
        return ops.pyramid_roi_align(
            rois, list(features), list(STRIDES), 4, canonical_size, 7, sampling_ratio
        )

    example = (rois_of_all_kinds(2, CANVASES[0]), *pyramid(2, CANVASES[0]))
    run, _ = through_onnx(function, example, ((0,), *[(0, 2, 3)] * 3))
    for batch in BATCHES:
        for canvas in CANVASES:
            rois, features = rois_of_all_kinds(batch, canvas), pyramid(batch, canvas)
            assert_identical(run(rois, *features), function(rois, *features))


def test_pyramid_roi_align_is_what_the_slow_loops_say() -> None:
    def function(rois: Tensor, *features: Tensor) -> Tensor:
        return ops.pyramid_roi_align(rois, list(features), list(STRIDES), 4, 56.0, 3, 0)

    canvas = (96, 160)
    rois, features = rois_of_all_kinds(2, canvas), pyramid(2, canvas)
    run, _ = through_onnx(function, (rois, *features), ((0,), *[(0, 2, 3)] * 3))
    found = run(rois, *features)[0]
    for picture in range(2):
        for row in (0, 2, 3, 4, 5, 7):  # not those whose size is a whole number of samples
            box = rois[picture, row].double().numpy()
            level = reference.level_of(box, list(STRIDES), 4, 56.0)
            feature = features[level][picture].double().numpy()
            expected = reference.roi_align(feature, box, STRIDES[level], 3, 0)
            np.testing.assert_allclose(found[picture, row], expected, atol=1e-5)


@pytest.mark.parametrize("strides", [(8,), (4, 8), (8, 16, 32, 64, 128)])
def test_pyramid_roi_align_of_other_pyramids(strides: tuple[int, ...]) -> None:
    def function(rois: Tensor, *features: Tensor) -> Tensor:
        return ops.pyramid_roi_align(rois, list(features), list(strides), 4, 224.0, 7, 0)

    example = (rois_of_all_kinds(2, (256, 384)), *pyramid(2, (256, 384), strides))
    run, _ = through_onnx(function, example, ((0,), *[(0, 2, 3)] * len(strides)))
    rois, features = rois_of_all_kinds(3, (256, 160)), pyramid(3, (256, 160), strides)
    assert_identical(run(rois, *features), function(rois, *features))


def test_every_roi_on_one_level_leaves_the_others_empty() -> None:
    def function(rois: Tensor, *features: Tensor) -> Tensor:
        return ops.pyramid_roi_align(rois, list(features), list(STRIDES), 4, 224.0, 7, 0)

    run, _ = through_onnx(
        function, (torch.rand(2, 6, 4), *pyramid(2, (64, 96))), ((0,), *[(0, 2, 3)] * 3)
    )
    features = pyramid(2, (64, 96))
    for side in (20.0, 200.0, 900.0):
        rois = torch.tensor([0.0, 0.0, side, side]).expand(2, 6, 4).clone()
        assert_identical(run(rois, *features), function(rois, *features))


def test_levels_at_the_borders_are_torchs_to_the_last_bit() -> None:
    """Features that hold their level's number tell which level a RoI was pooled from."""

    def function(rois: Tensor, *features: Tensor) -> Tensor:
        return ops.pyramid_roi_align(rois, list(features), list(STRIDES), 4, 224.0, 1, 1)

    levels = [torch.full((1, 1, 512 // s, 512 // s), float(i)) for i, s in enumerate(STRIDES)]
    near = torch.arange(-40, 41, dtype=torch.float32) * 2**-23 + 1
    sides = torch.cat([border * near for border in (112.0, 224.0, 448.0)])
    rois = torch.stack([torch.zeros_like(sides), torch.zeros_like(sides), sides, sides], dim=1)[
        None
    ]
    run, _ = through_onnx(
        function, (rois.repeat(2, 1, 1), *(f.repeat(2, 1, 1, 1) for f in levels)), ((0,),) * 4
    )
    found = run(rois, *levels)[0].reshape(-1)
    expected = assign_levels(rois[0], list(STRIDES), 4, 224.0)
    assert found.tolist() == expected.tolist()
    assert set(expected.tolist()) == {0, 1, 2}


def test_level_borders_are_close_to_powers_of_two() -> None:
    borders = level_borders([8, 16, 32, 64, 128], 4)
    np.testing.assert_allclose(borders, [1, 2, 4, 8], rtol=1e-6)
    for stride, border in zip([16, 32, 64, 128], borders, strict=True):
        for size, reached in ((border, True), (float(np.nextafter(np.float32(border), 0)), False)):
            level = torch.floor(4 + torch.log2(torch.tensor(size)))
            assert bool(level >= np.log2(stride)) == reached
