"""Which differences between two runs are excused, and which are reported."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from cn2.export.agreement import (
    Agreement,
    Found,
    OpenProposals,
    Thresholds,
    compare,
    iou_matrix,
    match,
)

LIMITS = Thresholds(score=0.05, nms_iou=0.7, detections=4)
BOX = (10.0, 10.0, 50.0, 30.0)
FAR = (100.0, 100.0, 150.0, 130.0)
WIDE = (0.0, 0.0, 100.0, 10.0)
NARROW = (0.0, 0.0, 70.0, 10.0)  # IoU with WIDE is 0.7, the threshold


def found(*rows: tuple[tuple[float, ...], float, int]) -> Found:
    """Detections from (box, score, class)."""
    return Found(
        boxes=np.array([row[0] for row in rows], np.float32).reshape(-1, 4),
        scores=np.array([row[1] for row in rows], np.float32),
        classes=np.array([row[2] for row in rows], np.int32),
    )


def shifted(box: tuple[float, ...], by: float) -> tuple[float, ...]:
    return tuple(side + by for side in box)


def compared(expected: Found, other: Found, **options: Any) -> Agreement:
    """The comparison, the same both ways round."""
    forth = compare(expected, other, LIMITS, **options)
    back = compare(other, expected, LIMITS, **options)
    assert forth.excused == back.excused
    assert len(forth.unexplained) == len(back.unexplained)
    assert (forth.box_px, forth.score) == (back.box_px, back.score)
    return forth


def test_nothing_equals_nothing() -> None:
    result = compared(found(), found())
    assert (result.pictures, result.detections, result.holds) == (1, 0, True)


def test_differences_of_pairs_are_measured() -> None:
    expected = found((BOX, 0.9, 1), (FAR, 0.8, 2))
    result = compared(expected, found((shifted(BOX, 0.01), 0.9, 1), (FAR, 0.80005, 2)))
    assert result.detections == 2
    assert result.box_px == pytest.approx(0.01, abs=1e-5)
    assert result.score == pytest.approx(5e-5, abs=1e-6)
    assert result.holds


@pytest.mark.parametrize(
    ("other", "holds"),
    [
        ((shifted(BOX, 0.04), 0.9, 1), True),
        ((shifted(BOX, 0.06), 0.9, 1), False),  # a box beyond 0.05 px
        ((BOX, 0.90009, 1), True),
        ((BOX, 0.90011, 1), False),  # a score beyond 1e-4
        ((BOX, 0.9, 2), False),  # another class
        ((shifted(BOX, 5.0), 0.9, 1), False),  # another object
    ],
)
def test_tolerances(other: tuple[tuple[float, ...], float, int], holds: bool) -> None:
    assert compared(found((BOX, 0.9, 1)), found(other)).holds is holds


def test_equal_boxes_are_paired_by_class_and_score() -> None:
    expected = found((BOX, 0.9, 1), (BOX, 0.8, 2), (shifted(BOX, 2.0), 0.7, 1))
    other = found((BOX, 0.9, 1), (shifted(BOX, 2.0), 0.70001, 1), (BOX, 0.8, 2))
    assert sorted(match(expected, other)) == [(0, 0), (1, 2), (2, 1)]


def test_a_missing_detection_is_reported() -> None:
    result = compared(found((BOX, 0.9, 1), (FAR, 0.8, 2)), found((BOX, 0.9, 1)))
    assert not result.holds
    assert not result.excused
    assert "class 2, score 0.8000, box [100.0, 100.0, 150.0, 130.0]" in result.unexplained[0]


def test_a_score_on_the_threshold_is_excused() -> None:
    result = compared(found((BOX, 0.9, 1), (FAR, 0.05004, 2)), found((BOX, 0.9, 1)))
    assert result.excused == {"score": 1}
    assert result.holds
    assert not compared(found((FAR, 0.0502, 2)), found()).holds


def test_a_score_at_the_cut_is_excused() -> None:
    full = [(shifted(FAR, 60.0 * i), 0.9 - 0.1 * i, 0) for i in range(3)]
    result = compared(
        found(*full, (BOX, 0.50003, 1)), found(*full, (shifted(BOX, 30.0), 0.49999, 1))
    )
    assert result.excused == {"cut": 2}
    apart = compared(found(*full, (BOX, 0.5, 1)), found(*full, (shifted(BOX, 30.0), 0.49, 1)))
    assert len(apart.unexplained) == 2


def test_an_overlap_on_the_threshold_is_excused_in_its_class_only() -> None:
    one = found((WIDE, 0.9, 1), (NARROW, 0.8, 1))
    assert compared(one, found((WIDE, 0.9, 1))).excused == {"iou": 1}
    other_class = compared(found((WIDE, 0.9, 2), (NARROW, 0.8, 1)), found((WIDE, 0.9, 2)))
    assert not other_class.holds
    worse = compared(found((WIDE, 0.7, 1), (NARROW, 0.8, 1)), found((WIDE, 0.7, 1)))
    assert not worse.holds  # a better box is not suppressed by a worse one


def test_what_an_excused_detection_suppresses_follows() -> None:
    follower = (0.0, 0.0, 55.0, 10.0)  # IoU 0.79 with NARROW, 0.55 with WIDE
    result = compared(
        found((WIDE, 0.9, 1), (NARROW, 0.8, 1)), found((WIDE, 0.9, 1), (follower, 0.6, 1))
    )
    assert result.excused == {"iou": 1, "follows": 1}


def test_what_an_excused_detection_pushes_off_the_list_follows() -> None:
    full = [(WIDE, 0.9, 1), (shifted(FAR, 60.0), 0.7, 0), (shifted(FAR, 120.0), 0.6, 0)]
    with_it = found(full[0], (NARROW, 0.8, 1), *full[1:])
    without = found(*full, (BOX, 0.5, 2))
    result = compared(with_it, without)
    assert result.excused == {"iou": 1, "follows": 1}


def test_an_open_proposal_excuses_only_what_comes_from_it() -> None:
    scores = np.zeros((1, 3), np.float32)
    scores[0, 2] = 0.8
    proposals = OpenProposals(boxes=np.array([FAR], np.float32), scores=scores)
    expected, other = found((BOX, 0.9, 1), (FAR, 0.80002, 2)), found((BOX, 0.9, 1))
    result = compared(expected, other, open_proposals=lambda: proposals)
    assert result.excused == {"proposal": 1}
    assert not compared(found((FAR, 0.8, 1)), found(), open_proposals=lambda: proposals).holds
    assert not compared(found((BOX, 0.8, 2)), found(), open_proposals=lambda: proposals).holds


def test_open_proposals_are_asked_only_when_needed() -> None:
    def never() -> OpenProposals:
        raise AssertionError("expected no question")

    assert compared(found((BOX, 0.05001, 1)), found(), open_proposals=never).holds


def test_agreements_add_up() -> None:
    total = Agreement()
    total.add(compare(found((BOX, 0.9, 1)), found((shifted(BOX, 0.02), 0.9, 1)), LIMITS))
    total.add(compare(found((BOX, 0.05, 1)), found(), LIMITS))
    total.add(compare(found((BOX, 0.5, 1)), found(), LIMITS))
    assert (total.pictures, total.detections) == (3, 1)
    assert total.box_px == pytest.approx(0.02, abs=1e-5)
    assert (dict(total.excused), len(total.unexplained)) == ({"score": 1}, 1)


def test_iou_matrix() -> None:
    first = np.array([WIDE, BOX, (0, 0, 0, 0)], np.float32)
    second = np.array([NARROW, WIDE, FAR, (0, 0, 0, 0)], np.float32)
    expected = [[0.7, 1, 0, 0], [0, 0, 0, 0], [0, 0, 0, 0]]
    np.testing.assert_allclose(iou_matrix(first, second), expected, atol=1e-6)
    assert iou_matrix(first[:0], second).shape == (0, 4)
