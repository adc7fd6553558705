"""The losses of ATSS: focal loss, GIoU of boxes, centerness."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional

from ..boxes import decode_deltas
from ..dense_losses import box_giou_losses, centerness_of, focal_loss
from ..first_stage_config import ATSSConfig
from ..structures import FirstStageOutput, Target
from .located import assign_locations
from .shared import Share, all_places, join_levels, without_settled


class ATSSLosses:
    """See `FirstStageLosses`.

    `anchors` and `centerness`, over the number of positives, and `regression`, each positive
    weighted with its true centerness, over the sum of those.
    Source: arXiv 1912.02424, Sec. 4; weights as in its official code.
    """

    def __init__(self, config: ATSSConfig, share: Share) -> None:
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
        assert output.centerness is not None
        logits, deltas, grid = all_places(output, strides)
        centerness = join_levels(output.centerness, 1)[..., 0]  # (B, M)
        found = assign_locations(
            targets, grid, config.anchor_size, config.candidates, logits.shape[2]
        )
        one_hot = torch.zeros_like(logits)
        one_hot[found.pictures, found.cells, found.labels] = 1.0
        counted = without_settled(one_hot, settled)
        focal = focal_loss(
            logits[counted], one_hot[counted], alpha=config.focal_alpha, gamma=config.focal_gamma
        )
        half = (found.strides * (config.anchor_size / 2))[:, None]
        anchors = torch.cat([found.locations - half, found.locations + half], dim=1)
        predicted = decode_deltas(
            anchors, deltas[found.pictures, found.cells], config.delta_weights
        )
        wanted = centerness_of(found.ltrb)
        regression = (box_giou_losses(predicted, found.boxes) * wanted).sum()
        central = functional.binary_cross_entropy_with_logits(
            centerness[found.pictures, found.cells], wanted, reduction="sum"
        )
        divisor = self.share(len(found.cells))
        weight = config.regression_weight / self.share(float(wanted.sum()))
        return {
            "anchors": focal * config.classification_weight / divisor,
            "regression": regression * weight,
            "centerness": central * config.centerness_weight / divisor,
        }
