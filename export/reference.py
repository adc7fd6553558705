"""The detector in torch as the judge of its exported file: in float32, and in float64 on demand."""

from __future__ import annotations

import copy
from dataclasses import replace

import torch
from torch import Tensor

from cn2.runtime.preprocess import PlacedPicture
from cn2.trainer.boxes import box_ious, clip_boxes
from cn2.trainer.detector import AnyDetector, OneStageDetector, TwoStageDetector
from cn2.trainer.ops import surviving_rows
from cn2.trainer.structures import Proposals

from .agreement import MARGIN, Found, OpenProposals

BEYOND_CUT = 64  # candidates of a level looked at past those that are kept


class Reference:
    """Runs single pictures; the detector is put into eval mode, and else left as it is."""

    def __init__(self, detector: AnyDetector) -> None:
        self._detector = detector.eval()
        self._exact: AnyDetector | None = None

    @torch.inference_mode()
    def run(self, picture: PlacedPicture, score_threshold: float) -> Found:
        """What the detector finds, in float32."""
        return _run(self._detector, picture, score_threshold)

    @torch.inference_mode()
    def run_exact(self, picture: PlacedPicture, score_threshold: float) -> Found:
        """What it finds in float64: the truth where float32 runs differ by their rounding."""
        if self._exact is None:
            self._exact = copy.deepcopy(self._detector).double()
        return _run(self._exact, picture, score_threshold)

    @torch.inference_mode()
    def open_proposals(self, picture: PlacedPicture) -> OpenProposals:
        """What becomes of the proposals that a last bit lets in or keeps out."""
        if isinstance(self._detector, OneStageDetector):
            return _open_pairs(self._detector, picture)
        return _open_proposals(self._detector, picture)


def _open_proposals(detector: TwoStageDetector, picture: PlacedPicture) -> OpenProposals:
    images, sizes = _tensors(picture)
    features = detector.features(images, sizes)
    chosen = detector.test_filter
    everything = replace(chosen, nms_iou=1.0, post_nms=chosen.pre_nms * len(detector.strides))
    first = detector.first_stage
    output = first(features)
    candidates, places = first.propose_with_places(output, everything)
    levels = first.levels_of(places, output) if first.suppress_within_levels else None
    rows = undecided_candidates(candidates, chosen.nms_iou, chosen.post_nms, levels)
    stage = detector.second_stage
    probabilities, boxes = stage.refine(features, candidates.boxes[:, rows], sizes)
    scores = stage.joint_score(probabilities, candidates.objectness[:, rows])[0]
    boxes = clip_boxes(boxes, sizes)[0]
    if boxes.ndim == 3:  # of each class: rows of one class each
        scores = torch.diag_embed(scores).flatten(0, 1)
        boxes = boxes.flatten(0, 1)
    return OpenProposals(boxes=boxes.numpy(), scores=scores.numpy())


def _open_pairs(detector: OneStageDetector, picture: PlacedPicture) -> OpenProposals:
    """Of a detector without proposals the pairs of cell and class that a last bit decides on."""
    images, sizes = _tensors(picture)
    chosen, stage = detector.test_filter, detector.first_stage
    output = stage(detector.features(images, sizes))
    count = chosen.pre_nms + BEYOND_CUT
    boxes, scores, classes = (
        part[0] for part in stage.candidates(output, count, torch.tensor(0.0))
    )
    at_cut, kept = _at_cut(scores.reshape(-1, count), chosen.pre_nms)
    candidates = torch.nonzero((kept | at_cut) & (scores > 0)).squeeze(1)
    candidates = candidates[torch.sort(scores[candidates], descending=True, stable=True).indices]
    rows = candidates[
        undecided_pairs(boxes[candidates], classes[candidates], at_cut[candidates], chosen.nms_iou)
    ]
    table = torch.zeros(len(rows), output.logits[0].shape[1], dtype=scores.dtype)
    table[torch.arange(len(rows)), classes[rows]] = scores[rows]
    clipped = clip_boxes(boxes[None, rows], sizes)[0]
    return OpenProposals(boxes=clipped.numpy(), scores=table.numpy())


def _at_cut(scores: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """Of levels' best scores (L, n), each descending: at the cut after `count`, and before it."""
    cut = scores[:, count - 1 : count]
    real = scores[:, count : count + 1] > 0
    before = torch.arange(scores.shape[1]) < count
    return (real & ((scores - cut).abs() <= MARGIN)).flatten(), before.expand_as(scores).flatten()


def undecided_pairs(boxes: Tensor, classes: Tensor, open: Tensor, nms_iou: float) -> Tensor:
    """Rows of candidates whose suppression within their class lies on a threshold.

    Args:
        boxes: (N, 4), best first.
        classes: (N,) of each.
        open: (N,) bool, those that may not be there at all.
        nms_iou: of the suppression.
    Returns:
        (M,) int64, ascending: the open ones, those whose overlap with a better one is within
        MARGIN of the threshold, and those that only such ones could suppress.
    """
    overlaps = torch.triu(box_ious(boxes, boxes), diagonal=1)  # of a better one and a worse one
    overlaps *= classes[:, None] == classes
    unsure = open | ((overlaps - nms_iou).abs() <= MARGIN).any(dim=0)
    return torch.nonzero(unsure | (overlaps[unsure] > nms_iou - MARGIN).any(dim=0)).squeeze(1)


def undecided_candidates(
    candidates: Proposals, nms_iou: float, count: int, levels: Tensor | None = None
) -> Tensor:
    """Rows of candidates whose selection as a proposal lies on a threshold.

    Args:
        candidates: of one picture, before suppression, best first.
        nms_iou: of the suppression.
        count: proposals kept after it.
        levels: (1, N) int64, of the candidates, where only those of a level suppress one another.
    Returns:
        (M,) int64, ascending: those whose overlap with a better one is within MARGIN of the
        threshold, those that only such a one could suppress, and those whose place is at the cut.
    """
    boxes = candidates.boxes[0][candidates.objectness[0] > 0]
    objectness = candidates.objectness[0][: len(boxes)]
    own = torch.zeros(len(boxes), dtype=torch.int64) if levels is None else levels[0, : len(boxes)]
    kept = torch.zeros(len(boxes), dtype=torch.bool)
    kept[surviving_rows(boxes, objectness, own, len(boxes), nms_iou)] = True
    overlaps = torch.triu(box_ious(boxes, boxes), diagonal=1)  # of a better one and a worse one
    overlaps *= own[:, None] == own
    by_iou = ((overlaps - nms_iou).abs() <= MARGIN).any(dim=0)
    unsure = by_iou | (overlaps[by_iou] > nms_iou - MARGIN).any(dim=0)
    survivors = torch.nonzero(kept | unsure).squeeze(1)
    if len(survivors) > count:
        slack = int(unsure.sum())  # so many places may the cut move up or down
        at_cut = objectness[survivors[max(count - 1 - slack, 0) : count + 1 + slack]]
        high, low = at_cut[0], at_cut[-1]
        if slack or high - low <= MARGIN:
            unsure |= kept & (objectness <= high + MARGIN) & (objectness >= low - MARGIN)
    return torch.nonzero(unsure).squeeze(1)


def _run(detector: AnyDetector, picture: PlacedPicture, score_threshold: float) -> Found:
    images, sizes = _tensors(picture)
    number, boxes, scores, classes = detector(images, sizes, torch.tensor(score_threshold))
    count = int(number[0])
    return Found(
        boxes=boxes[0, :count].numpy(),
        scores=scores[0, :count].numpy(),
        classes=classes[0, :count].numpy(),
    )


def _tensors(picture: PlacedPicture) -> tuple[Tensor, Tensor]:
    """The canvas and the picture's size as a batch of one."""
    images = torch.from_numpy(picture.canvas)[None]
    return images, torch.tensor([picture.resized], dtype=torch.int32)
