"""The losses of first stages of anchors: RetinaNet, region proposal networks."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from ..boxes import encode_deltas
from ..dense_losses import focal_loss, smooth_l1_loss
from ..first_stage.coding import AnchorDeltas, level_anchors
from ..structures import FirstStageOutput, Target
from ..targets.cascade import BACKGROUND, sample_rois
from ..targets.grid import PyramidGrid
from ..targets.thresholds import IGNORED, NEGATIVE, POSITIVE, AnchorMatches, match_anchors
from .shared import Share, all_places, labels_of


@dataclass(frozen=True, kw_only=True)
class AnchorRule:
    """Which anchors count, and by which losses."""

    positive_iou: float
    negative_iou: float
    sampled: int | None  # anchors a picture that count, drawn; None: all that are not ignored
    positive_fraction: float  # at most, of the drawn ones
    focal: tuple[float, float] | None  # alpha and gamma; None: cross-entropy
    smooth_l1_beta: float
    classification_weight: float
    regression_weight: float


class AnchorLosses:
    """See `FirstStageLosses`: `anchors` and `regression`.

    Both over the number of positives; where anchors are drawn, over all that are, as in Faster
    R-CNN.
    """

    def __init__(self, coding: AnchorDeltas, rule: AnchorRule, share: Share) -> None:
        """Keep the settings; `share` turns a count into a divisor, see `DetectorLosses`."""
        self.coding = coding
        self.rule = rule
        self.share = share

    def __call__(
        self,
        output: FirstStageOutput,
        targets: Sequence[Target],
        strides: Sequence[int],
        settled: Tensor | None = None,
    ) -> dict[str, Tensor]:
        """See `FirstStageLosses.__call__`."""
        rule = self.rule
        logits, deltas, grid = all_places(output, strides, self.coding.per_cell)
        anchors = self._anchors(grid)
        classes = logits.shape[2]
        kinds, wanted_logits, wanted_deltas = [], [], []
        for target in targets:
            matches = self._match(anchors, target)
            positive = matches.kinds == POSITIVE
            objects = matches.objects[positive]
            wanted = torch.zeros_like(logits[0])
            wanted[positive, labels_of(target, classes)[objects]] = 1.0
            boxes = target.boxes.to(anchors)[objects]
            wanted_deltas.append(encode_deltas(anchors[positive], boxes, self.coding.weights))
            wanted_logits.append(wanted)
            kinds.append(matches.kinds)
        kind = torch.stack(kinds)
        if settled is not None:
            kind = torch.where(settled & (kind == NEGATIVE), IGNORED, kind)
        counted, positive = kind != IGNORED, kind == POSITIVE
        classification = self._classification(logits[counted], torch.stack(wanted_logits)[counted])
        regression = smooth_l1_loss(
            deltas[positive], torch.cat(wanted_deltas), beta=rule.smooth_l1_beta
        )
        divisor = self.share(int((positive if rule.sampled is None else counted).sum()))
        return {
            "anchors": classification * rule.classification_weight / divisor,
            "regression": regression * rule.regression_weight / divisor,
        }

    def _anchors(self, grid: PyramidGrid) -> Tensor:
        """(M * A, 4) of all levels."""
        sizes = (grid.heights * grid.widths).tolist()
        levels = torch.split(grid.locations, sizes)
        return torch.cat(
            [
                level_anchors(locations, self.coding.shapes, stride)
                for locations, stride in zip(levels, grid.strides.tolist(), strict=True)
            ]
        )

    def _match(self, anchors: Tensor, target: Target) -> AnchorMatches:
        """The anchors of one picture, those ignored that are not drawn."""
        rule = self.rule
        boxes = target.boxes.to(anchors)
        matches = match_anchors(anchors, boxes, rule.positive_iou, rule.negative_iou)
        if rule.sampled is None:
            return matches
        drawn = draw_anchors(matches.kinds, rule.sampled, rule.positive_fraction, target.seed)
        return matches._replace(kinds=drawn)

    def _classification(self, logits: Tensor, wanted: Tensor) -> Tensor:
        if self.rule.focal is None:
            return functional.binary_cross_entropy_with_logits(logits, wanted, reduction="sum")
        alpha, gamma = self.rule.focal
        return focal_loss(logits, wanted, alpha=alpha, gamma=gamma)


def draw_anchors(kinds: Tensor, count: int, positive_fraction: float, seed: int | None) -> Tensor:
    """Kinds (M,) of which at most `count` are still POSITIVE or NEGATIVE; the others are IGNORED.

    Args:
        kinds: of all anchors.
        count: negatives fill up what positives leave.
        positive_fraction: at most this part is positive.
        seed: of the draw; None: torch's global random state.
    """
    usable = torch.nonzero(kinds != IGNORED).squeeze(1)
    classes = torch.where(kinds[usable] == NEGATIVE, BACKGROUND, 0)
    generator = None
    if seed is not None:  # another one than the second stage draws with
        seed = random.Random(f"anchors/{seed}").getrandbits(32)
        generator = torch.Generator().manual_seed(seed)
    kept = usable[sample_rois(classes, count, positive_fraction, generator)]
    drawn = torch.full_like(kinds, IGNORED)
    drawn[kept] = kinds[kept]
    return drawn
