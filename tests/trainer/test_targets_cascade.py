"""Cascade targets: matching against slow loops, sampling counts, the boxes that are pooled."""

from __future__ import annotations

import pytest
import torch

from cn2.trainer.structures import Proposals, Target
from cn2.trainer.targets.cascade import (
    BACKGROUND,
    has_area,
    match_boxes,
    sample_rois,
    training_proposals,
)
from reference.targets_reference import match_loops

Box = tuple[float, float, float, float]


def target(*boxes: Box) -> Target:
    """Objects of classes 0, 1, 2, ..."""
    tensor = torch.tensor(boxes, dtype=torch.float32).reshape(-1, 4)
    return Target(boxes=tensor, classes=torch.arange(len(boxes)))


def random_boxes(seed: int, count: int) -> torch.Tensor:
    """Boxes on quarter pixels, so that single and double precision see the same IoUs."""
    generator = torch.Generator().manual_seed(seed)
    corners = (torch.rand(count, 2, generator=generator) * 160).round() / 4
    sides = (torch.rand(count, 2, generator=generator) * 160).round() / 4
    return torch.cat([corners, corners + sides], dim=1)


@pytest.mark.parametrize("iou_threshold", [0.3, 0.6, 0.8])
@pytest.mark.parametrize(("rois", "objects"), [(0, 3), (1, 1), (40, 0), (60, 25)])
def test_matching_equals_the_loops(rois: int, objects: int, iou_threshold: float) -> None:
    boxes, things = random_boxes(1, rois), random_boxes(2, objects)
    boxes[: objects // 2] = things[: objects // 2] + torch.tensor([0.25, 0.0, 0.5, -0.25])
    classes = torch.arange(objects) % 4
    found = match_boxes(boxes, Target(boxes=things, classes=classes), iou_threshold)
    expected = match_loops(boxes.tolist(), things.tolist(), classes.tolist(), iou_threshold)
    assert found.classes.tolist() == [kind for kind, _ in expected]
    positive = found.classes != BACKGROUND
    rows = [thing for kind, thing in expected if kind != BACKGROUND]
    assert torch.equal(found.boxes[positive], things[rows])
    assert found.boxes.shape == (rois, 4)


@pytest.mark.parametrize(
    ("box", "kind"),
    [
        ((0, 0, 10, 10), 0),  # the object itself
        ((0, 0, 10, 6), 0),  # IoU exactly 0.6 is a match
        ((0, 0, 10, 5.9), BACKGROUND),
        ((10, 0, 20, 10), BACKGROUND),  # touches a side
        ((3, 3, 3, 3), BACKGROUND),  # no area, inside the object
        ((-1e6, -1e6, 1e6, 1e6), BACKGROUND),
    ],
)
def test_the_threshold_is_inclusive(box: Box, kind: int) -> None:
    found = match_boxes(torch.tensor([box], dtype=torch.float32), target((0, 0, 10, 10)), 0.6)
    assert found.classes.tolist() == [kind]


def test_an_object_without_area_matches_nothing_not_even_itself() -> None:
    point = target((5, 5, 5, 5))
    assert match_boxes(point.boxes, point, 0.5).classes.tolist() == [BACKGROUND]


def test_of_two_equal_objects_the_earlier_one_counts() -> None:
    twice = target((0, 0, 10, 10), (0, 0, 10, 10))
    assert match_boxes(twice.boxes, twice, 0.5).classes.tolist() == [0, 0]


def test_matching_in_chunks_gives_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    boxes, things = random_boxes(3, 101), target(*random_boxes(4, 7).tolist())
    whole = match_boxes(boxes, things, 0.3)
    monkeypatch.setattr("cn2.trainer.targets.cascade.CHUNK_PAIRS", 70)
    chunked = match_boxes(boxes, things, 0.3)
    assert torch.equal(whole.classes, chunked.classes)
    assert torch.equal(whole.boxes, chunked.boxes)


@pytest.mark.parametrize(
    ("positives", "negatives", "expected"),
    [
        (0, 0, (0, 0)),  # nothing to draw from
        (1, 0, (1, 0)),
        (0, 100, (0, 16)),
        (3, 100, (3, 13)),  # negatives fill up
        (50, 100, (4, 12)),  # a quarter is positive
        (50, 5, (4, 5)),  # positives do not fill up
    ],
)
def test_sampled_counts(positives: int, negatives: int, expected: tuple[int, int]) -> None:
    classes = torch.tensor([2] * positives + [BACKGROUND] * negatives)
    kept = sample_rois(classes, 16, 0.25)
    drawn = int((classes[kept] != BACKGROUND).sum())
    assert (drawn, len(kept) - drawn) == expected
    assert kept.tolist() == sorted(set(kept.tolist()))


def test_a_large_number_keeps_every_roi() -> None:
    classes = torch.tensor([0, BACKGROUND, 3, BACKGROUND, 1])
    assert sample_rois(classes, 100_000, 0.25).tolist() == [0, 1, 2, 3, 4]


def test_a_seed_repeats_the_draw_and_every_roi_gets_its_turn() -> None:
    classes = torch.tensor([0] * 20 + [BACKGROUND] * 20)

    def draw(seed: int) -> list[int]:
        generator = torch.Generator().manual_seed(seed)
        return [int(i) for i in sample_rois(classes, 8, 0.25, generator)]

    assert draw(1) == draw(1)
    assert {index for seed in range(200) for index in draw(seed)} == set(range(40))


def test_ground_truth_follows_the_proposals_without_padding() -> None:
    boxes = torch.tensor([[[0.0, 0, 8, 8], [1, 1, 9, 9], [0, 0, 0, 0]]]).repeat(2, 1, 1)
    objectness = torch.tensor([[0.9, 0.2, 0.0], [0.5, 0.0, 0.0]])
    found = training_proposals(Proposals(boxes, objectness), [target((2, 2, 4, 4)), target()])
    assert found[0].tolist() == [[0, 0, 8, 8], [1, 1, 9, 9], [2, 2, 4, 4]]
    assert found[1].tolist() == [[0, 0, 8, 8]]


def test_empty_boxes_have_no_area() -> None:
    boxes = torch.tensor([[0.0, 0, 1, 1], [0, 0, 0, 1], [0, 0, 1, 0], [2, 2, 1, 1]])
    assert has_area(boxes).tolist() == [True, False, False, False]
    assert has_area(boxes[:0]).shape == (0,)
