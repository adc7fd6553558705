"""How far two runs of one detector are apart, and which differences a threshold explains.

Two programs that compute the same in another order differ in the last bits. Nearly always that
moves boxes by thousandths of a pixel; but where a score, an overlap or a place in a sorted list
lies on a threshold, it decides whether a detection is there. Such a difference is excused and
counted; any other one is reported.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.floating]
BOX_TOLERANCE_PX = 0.05
SCORE_TOLERANCE = 1e-4
MARGIN = 1e-4  # a decision is open where score, IoU or cut is this close to its threshold
# Two detections of a class are taken for one object if they overlap so much, or, as boxes without
# area overlap nothing, if they are so close.
SAME_IOU, SAME_PX, SAME_SCORE = 0.9, 1.0, 0.01


@dataclass(frozen=True, kw_only=True)
class Found:
    """The detections of one picture, best first, as the graph returns them."""

    boxes: Floats  # (N, 4) xyxy, pixels of the resized picture
    scores: Floats  # (N,)
    classes: npt.NDArray[np.int32]  # (N,)

    def __len__(self) -> int:
        return len(self.scores)


@dataclass(frozen=True, kw_only=True)
class OpenProposals:
    """What the second stage makes of proposals whose own selection lies on a threshold."""

    boxes: Floats  # (M, 4)
    scores: Floats  # (M, C)


@dataclass(frozen=True, kw_only=True)
class Thresholds:
    """Where the second stage decides, and how far two runs may be apart."""

    score: float
    nms_iou: float
    detections: int  # most per picture
    box_limit_px: float = BOX_TOLERANCE_PX
    score_limit: float = SCORE_TOLERANCE


@dataclass(kw_only=True)
class Agreement:
    """Two runs compared, over any number of pictures."""

    pictures: int = 0
    detections: int = 0  # found by both
    box_px: float = 0.0  # largest difference of a coordinate among those
    score: float = 0.0  # largest difference of a score among those
    excused: Counter[str] = field(default_factory=Counter)  # by the threshold that explains it
    unexplained: list[str] = field(default_factory=list)  # a line each

    def add(self, other: Agreement) -> None:
        """Count another comparison in."""
        self.pictures += other.pictures
        self.detections += other.detections
        self.box_px = max(self.box_px, other.box_px)
        self.score = max(self.score, other.score)
        self.excused.update(other.excused)
        self.unexplained.extend(other.unexplained)

    @property
    def holds(self) -> bool:
        """Whether every difference is within its limit or excused."""
        return not self.unexplained


def compare(
    expected: Found,
    found: Found,
    thresholds: Thresholds,
    open_proposals: Callable[[], OpenProposals] | None = None,
) -> Agreement:
    """Compare the detections of one picture.

    Args:
        expected: of the reference.
        found: of the program under test.
        thresholds: of both.
        open_proposals: asked only when the second stage's thresholds explain not all; None: the
            first stage explains nothing.
    """
    pairs = match(expected, found)
    rows, columns = [row for row, _ in pairs], [column for _, column in pairs]
    boxes = np.abs(expected.boxes[rows] - found.boxes[columns])
    scores = np.abs(expected.scores[rows] - found.scores[columns])
    result = Agreement(
        pictures=1,
        detections=len(pairs),
        box_px=float(boxes.max(initial=0.0)),
        score=float(scores.max(initial=0.0)),
    )
    left = [Leftover("reference only", expected, found, row) for row in _rest(expected, rows)]
    left += [Leftover("file only", found, expected, row) for row in _rest(found, columns)]
    for leftover in left:
        leftover.reason = _own_reason(leftover, thresholds)
    if open_proposals is not None and any(not leftover.reason for leftover in left):
        _explain_by_proposals(left, open_proposals())
    _explain_by_others(left, thresholds)
    for leftover in left:
        if leftover.reason:
            result.excused[leftover.reason] += 1
        else:
            result.unexplained.append(str(leftover))
    result.unexplained += _beyond("box", result.box_px, thresholds.box_limit_px)
    result.unexplained += _beyond("score", result.score, thresholds.score_limit)
    return result


def _beyond(what: str, difference: float, limit: float) -> list[str]:
    """A line if the difference is beyond the limit, or is no number."""
    if difference <= limit:
        return []
    return [f"a {what} differs by {difference:.2g}, limit {limit:.2g}"]


@dataclass
class Leftover:
    """A detection that only one of the two runs has."""

    where: str
    own: Found
    other: Found
    row: int
    reason: str = ""  # the threshold that explains it

    @property
    def box(self) -> Floats:
        """(1, 4)."""
        return self.own.boxes[self.row : self.row + 1]

    @property
    def score(self) -> float:
        return float(self.own.scores[self.row])

    @property
    def label(self) -> int:
        return int(self.own.classes[self.row])

    def __str__(self) -> str:
        sides = ", ".join(f"{side:.1f}" for side in self.box[0])
        return f"{self.where}: class {self.label}, score {self.score:.4f}, box [{sides}]"


def match(expected: Found, found: Found) -> list[tuple[int, int]]:
    """Pairs of rows that are the same object: same class, nearest box and score, one to one."""
    if not len(expected) or not len(found):
        return []
    boxes = np.abs(expected.boxes[:, None] - found.boxes[None]).max(axis=2)
    scores = np.abs(expected.scores[:, None] - found.scores[None])
    distance = np.maximum(boxes / BOX_TOLERANCE_PX, scores / SCORE_TOLERANCE)
    close = (boxes <= SAME_PX) & (scores <= SAME_SCORE)
    near = close | (iou_matrix(expected.boxes, found.boxes) > SAME_IOU)
    rows, columns = np.nonzero(near & (expected.classes[:, None] == found.classes[None]))
    pairs: list[tuple[int, int]] = []
    taken: tuple[set[int], set[int]] = (set(), set())
    for index in np.argsort(distance[rows, columns], kind="stable"):
        row, column = int(rows[index]), int(columns[index])
        if row not in taken[0] and column not in taken[1]:
            pairs.append((row, column))
            taken[0].add(row)
            taken[1].add(column)
    return pairs


def iou_matrix(first: Floats, second: Floats) -> Floats:
    """Intersection over union of every pair of boxes: (N, 4), (M, 4) -> (N, M), 0 if both empty."""
    low = np.maximum(first[:, None, :2], second[None, :, :2])
    high = np.minimum(first[:, None, 2:], second[None, :, 2:])
    overlap = np.clip(high - low, 0, None).prod(axis=2)
    areas = [(boxes[:, 2:] - boxes[:, :2]).prod(axis=1) for boxes in (first, second)]
    union = areas[0][:, None] + areas[1][None] - overlap
    ious: Floats = overlap / np.maximum(union, 1e-12)
    return ious


def _rest(found: Found, matched: list[int]) -> list[int]:
    return sorted(set(range(len(found))) - set(matched))


def _own_reason(leftover: Leftover, thresholds: Thresholds) -> str:
    """The second-stage threshold that this detection itself lies on; "" if on none."""
    other, score = leftover.other, leftover.score
    if abs(score - thresholds.score) <= MARGIN:
        return "score"
    if len(other) == thresholds.detections and abs(score - other.scores[-1]) <= MARGIN:
        return "cut"
    rivals = (other.classes == leftover.label) & (other.scores >= score - MARGIN)
    ious = iou_matrix(leftover.box, other.boxes[rivals])
    if (np.abs(ious - thresholds.nms_iou) <= MARGIN).any():
        return "iou"
    return ""


def _explain_by_proposals(left: list[Leftover], proposals: OpenProposals) -> None:
    """Excuse what comes from a proposal whose own selection is open."""
    for leftover in left:
        boxes = np.abs(proposals.boxes - leftover.box).max(axis=1)
        scores = np.abs(proposals.scores[:, leftover.label] - leftover.score)
        same = (boxes <= BOX_TOLERANCE_PX) & (scores <= SCORE_TOLERANCE)
        if not leftover.reason and same.any():
            leftover.reason = "proposal"


def _explain_by_others(left: list[Leftover], thresholds: Thresholds) -> None:
    """Excuse what an excused detection of the other run suppresses or pushes off the list."""
    changed = True
    while changed:
        changed = False
        for leftover in left:
            causes = [x for x in left if x.reason and x.own is leftover.other]
            if not leftover.reason and _follows(leftover, causes, thresholds):
                leftover.reason = "follows"
                changed = True


def _follows(leftover: Leftover, causes: list[Leftover], thresholds: Thresholds) -> bool:
    """Whether one of the causes, which the other run has, keeps this detection out of it."""
    other = leftover.other
    pushed_off = len(other) == thresholds.detections and leftover.score < other.scores[-1]
    if causes and pushed_off:
        return True
    rivals = [cause.box for cause in causes if cause.label == leftover.label]
    if not rivals:
        return False
    ious = iou_matrix(leftover.box, np.concatenate(rivals))
    return bool((ious > thresholds.nms_iou - MARGIN).any())
