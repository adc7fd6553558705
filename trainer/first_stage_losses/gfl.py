"""The losses of GFL: quality focal loss, GIoU of boxes, the distribution of their sides."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from ..boxes import decode_ltrb, paired_ious
from ..dense_losses import box_giou_losses, distribution_focal_loss, quality_focal_loss
from ..first_stage.coding import mean_distances
from ..first_stage_config import GFLConfig
from ..structures import FirstStageOutput, Target
from .located import Positives, assign_locations
from .shared import Share, all_places, without_settled


class GFLLosses:
    """See `FirstStageLosses`.

    `quality`, over the number of positives; `regression` and, where sides are distributions,
    `distribution`, each positive weighted with its likelihood, over the sum of those.
    Source: arXiv 2006.04388, Sec. 3; weights as in its official code.
    """

    def __init__(self, config: GFLConfig, share: Share) -> None:
        """Keep the settings; `share` turns a count into a divisor, see `DetectorLosses`."""
        self.config = config
        self.share = share

    def __call__(
        self,
        output: FirstStageOutput,
        targets: Sequence[Target],
        strides: Sequence[int],
        settled: Tensor | None = None,
    ) -> dict[str, Tensor]:
        """See `FirstStageLosses.__call__`."""
        config = self.config
        logits, sides, grid = all_places(output, strides)
        found = assign_locations(
            targets, grid, config.anchor_size, config.candidates, logits.shape[2]
        )
        own = sides[found.pictures, found.cells]  # (P, D)
        boxes = self._decode(own, found)
        qualities = torch.zeros_like(logits)
        qualities[found.pictures, found.cells, found.labels] = paired_ious(
            boxes.detach(), found.boxes
        )
        positive = torch.zeros_like(logits)
        positive[found.pictures, found.cells] = 1.0  # also where the IoU is 0
        counted = without_settled(positive, settled)
        quality = quality_focal_loss(logits[counted], qualities[counted], beta=config.quality_beta)
        weights = logits.detach()[found.pictures, found.cells].amax(dim=1).sigmoid()
        divisor = self.share(float(weights.sum()))
        regression = (box_giou_losses(boxes, found.boxes) * weights).sum()
        losses = {
            "quality": quality * config.quality_weight / self.share(len(found.cells)),
            "regression": regression * config.regression_weight / divisor,
        }
        if config.largest_distance is not None:
            wanted = found.ltrb / found.strides[:, None]
            distribution = (distribution_focal_loss(own, wanted) * weights).sum()
            losses["distribution"] = distribution * config.distribution_weight / divisor
        return losses

    def _decode(self, sides: Tensor, found: Positives) -> Tensor:
        """The boxes (P, 4) that the positives predict."""
        ltrb = sides if self.config.largest_distance is None else mean_distances(sides)
        return decode_ltrb(found.locations, ltrb * found.strides[:, None])
