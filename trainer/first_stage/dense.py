"""From dense predictions to proposals, or to detections where there is no second stage.

Whatever predicts: a head gives logits and regressions, a `BoxCoding` reads boxes from them.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from .. import ops
from ..boxes import clip_boxes
from ..model_config import ProposalFilter
from ..structures import FirstStageOutput, Proposals, RawDetections
from .coding import BoxCoding


class DenseStage(nn.Module):
    """A head over pyramid levels, and how its boxes are read."""

    def __init__(self, head: nn.Module, coding: BoxCoding, strides: tuple[int, ...]) -> None:
        """Take the head, levels to `FirstStageOutput`, its coding, and pixels per cell."""
        super().__init__()
        self.head = head
        self.coding = coding
        self.strides = strides

    def forward(self, features: list[Tensor]) -> FirstStageOutput:
        """Levels (B, C, h, w), fine to coarse -> predictions of every cell."""
        output: FirstStageOutput = self.head(features)
        return output

    def classes_of(self, output: FirstStageOutput) -> int:
        """C, the logits of each place."""
        return output.logits[0].shape[1] // self.coding.per_cell

    def likelihood(self, output: FirstStageOutput, level: int) -> Tensor:
        """P(object), or of each class, of a level's places: (B, h * w * A * C), no gradient.

        Where the head says how central a place is, that is a factor of it.
        """
        found = torch.sigmoid(_in_order(output.logits[level]))
        if output.centerness is None:
            return found
        central = torch.sigmoid(_in_order(output.centerness[level]))  # (B, h * w * A)
        by_place = found.reshape(*central.shape, found.shape[1] // central.shape[1])
        return (by_place * central[..., None]).flatten(1)


def _in_order(level: Tensor) -> Tensor:
    """Channels (B, N, h, w) without gradient as (B, h * w * N), the channels of a cell together."""
    level = level.detach()
    return level.flatten(1) if level.shape[1] == 1 else level.permute(0, 2, 3, 1).flatten(1)


class ProposalStage(DenseStage):
    """The first stage before a second one: class-agnostic, picks proposals."""

    def __init__(
        self,
        head: nn.Module,
        coding: BoxCoding,
        strides: tuple[int, ...],
        objectness_floor: float,
        *,
        suppress_within_levels: bool = False,
    ) -> None:
        """Take the parts.

        Args:
            head: levels to `FirstStageOutput` with one logit a place.
            coding: of its boxes.
            strides: of the levels, pixels per cell.
            objectness_floor: P(object) at or below which nothing is proposed.
            suppress_within_levels: boxes of different levels do not suppress one another.
        """
        super().__init__(head, coding, strides)
        self.objectness_floor = objectness_floor
        self.suppress_within_levels = suppress_within_levels

    def propose(self, output: FirstStageOutput, filter: ProposalFilter) -> Proposals:
        """Turn dense predictions into exactly `filter.post_nms` proposals a picture.

        Ties go to the finer level, then to the lower place. No gradient passes.

        Args:
            output: of `forward`.
            filter: how many places and proposals are kept, and the IoU of suppression.
        Returns:
            Proposals, best first, not clipped; objectness is the square root of the likelihood.
        Source: arXiv 2103.07461, Sec. 4 and 5; the square root is the official code's.
        """
        boxes, scores, _, levels = self._candidates(output, filter.pre_nms)
        if not self.suppress_within_levels:
            return Proposals(*ops.proposal_nms(boxes, scores, filter.post_nms, filter.nms_iou))
        _, boxes, scores, _ = ops.class_nms(
            boxes, scores, levels, len(self.strides), filter.post_nms, filter.nms_iou
        )
        return Proposals(boxes, scores)

    @torch.no_grad()
    def propose_with_places(
        self, output: FirstStageOutput, filter: ProposalFilter
    ) -> tuple[Proposals, Tensor]:
        """For training: proposals as `propose` gives them, and the place of each.

        Returns:
            The proposals and (B, filter.post_nms) int64, places among those of all levels; any
            number where there is no proposal.
        """
        boxes, scores, places, levels = self._candidates(output, filter.pre_nms)
        own = levels if self.suppress_within_levels else torch.zeros_like(levels)
        rows = torch.zeros(len(boxes), filter.post_nms, dtype=torch.int64, device=boxes.device)
        exists = torch.zeros_like(rows, dtype=torch.bool)
        for picture in range(len(boxes)):
            valid = torch.nonzero(scores[picture] > 0).squeeze(1)
            kept = ops.surviving_rows(
                boxes[picture, valid],
                scores[picture, valid],
                own[picture, valid],
                filter.post_nms,
                filter.nms_iou,
            )
            rows[picture, : len(kept)] = valid[kept]
            exists[picture, : len(kept)] = True
        kept_boxes = boxes.gather(1, rows[..., None].expand(-1, -1, 4)) * exists[..., None]
        proposals = Proposals(kept_boxes, scores.gather(1, rows) * exists)
        return proposals, places.gather(1, rows)

    def levels_of(self, places: Tensor, output: FirstStageOutput) -> Tensor:
        """The level that each place among those of all levels is on, same shape, int64."""
        counts = [level[0, 0].numel() * self.coding.per_cell for level in output.logits]
        ends = torch.tensor(counts, device=places.device).cumsum(0)
        return torch.bucketize(places, ends, right=True)

    def _candidates(
        self, output: FirstStageOutput, count: int
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """The likeliest places of each level, level after level, before suppression.

        Returns:
            boxes (B, L * count, 4), objectness (B, L * count), their places among those of all
            levels and their levels, int64.
        """
        found, offset = [], 0
        for level, logits in enumerate(output.logits):
            boxes, objectness, places = self._best_of(output, level, count)
            found.append((boxes, objectness, places + offset, torch.full_like(places, level)))
            offset += logits.shape[2] * logits.shape[3] * self.coding.per_cell
        boxes, objectness, places, levels = (
            torch.cat(parts, dim=1) for parts in zip(*found, strict=True)
        )
        return boxes, objectness, places, levels

    def _best_of(
        self, output: FirstStageOutput, level: int, count: int
    ) -> tuple[Tensor, Tensor, Tensor]:
        """The likeliest places of a level: boxes (B, count, 4), objectness, places (B, count)."""
        likelihood = self.likelihood(output, level)
        likelihood = torch.where(likelihood > self.objectness_floor, likelihood, 0.0)
        best, places = ops.stable_topk(likelihood, count)
        regression = output.regressions[level].detach()
        boxes = self.coding.decode(regression, places, self.strides[level])
        return torch.where((best > 0)[..., None], boxes, 0.0), torch.sqrt(best), places


class ClassStage(DenseStage):
    """The only stage of a one-stage detector: knows the classes, picks detections."""

    score_threshold: Tensor

    def __init__(
        self, head: nn.Module, coding: BoxCoding, strides: tuple[int, ...], score_threshold: float
    ) -> None:
        """Take the parts of a `DenseStage` and the score at or below which nothing counts."""
        super().__init__(head, coding, strides)
        threshold = torch.tensor(score_threshold, dtype=torch.float32)
        self.register_buffer("score_threshold", threshold, persistent=False)

    def detect(
        self,
        output: FirstStageOutput,
        filter: ProposalFilter,
        image_sizes: Tensor,
        score_threshold: Tensor | None = None,
    ) -> RawDetections:
        """Turn dense predictions into detections; no gradient passes.

        Equal scores rank by level, finer first, then by place, then by class.

        Args:
            output: of `forward`.
            filter: pairs of place and class kept per level, detections kept, IoU of suppression
                among the boxes of a class.
            image_sizes: (B, 2) height, width of the pictures on the canvas, pixels.
            score_threshold: () float32; scores at or below are dropped; None: the config's.
        Returns:
            `filter.post_nms` rows, best first, clipped after suppression as in the official code.
        """
        threshold = self.score_threshold if score_threshold is None else score_threshold
        candidates = self.candidates(output, filter.pre_nms, threshold)
        number, boxes, scores, classes = ops.class_nms(
            *candidates, self.classes_of(output), filter.post_nms, filter.nms_iou
        )
        return RawDetections(number, clip_boxes(boxes, image_sizes), scores, classes)

    def candidates(
        self, output: FirstStageOutput, count: int, score_threshold: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """The best pairs of place and class of each level, before suppression.

        Returns:
            boxes (B, L * count, 4), not clipped, scores (B, L * count) and classes int64, level
            after level, each best first; rows that there is nothing for have score 0 and box 0.
        """
        levels = [
            self._best_of(output, level, count, score_threshold)
            for level in range(len(self.strides))
        ]
        boxes, scores, classes = (torch.cat(parts, dim=1) for parts in zip(*levels, strict=True))
        return boxes, scores, classes

    def _best_of(
        self, output: FirstStageOutput, level: int, count: int, score_threshold: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """A level's best pairs: boxes (B, count, 4), scores and classes (B, count)."""
        scores, classes = self.likelihood(output, level), self.classes_of(output)
        scores = torch.where(scores > score_threshold, scores, 0.0)
        best, pairs = ops.stable_topk(scores, count)
        regression = output.regressions[level].detach()
        boxes = self.coding.decode(regression, pairs // classes, self.strides[level])
        return torch.where((best > 0)[..., None], boxes, 0.0), best, pairs % classes
