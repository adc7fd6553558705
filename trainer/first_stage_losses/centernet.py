"""The losses of CenterNet: heat maps and regression."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from ..first_stage_config import CenterNetConfig
from ..losses import giou_loss, heatmap_focal_loss
from ..structures import FirstStageOutput, Target
from ..targets.centernet import centernet_targets
from ..targets.extra_positives import extra_positives
from .shared import Share, all_places


class CenterNetLosses:
    """See `FirstStageLosses`.

    heatmap_positive and heatmap_negative, over the number of positives, and regression, over the
    number of cells that it is trained on; both at least 1.
    """

    def __init__(self, config: CenterNetConfig, share: Share) -> None:
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
        logits, ltrb, grid = all_places(output, strides)
        channels = logits.shape[2]
        wanted = centernet_targets(targets, grid, config, channels)
        positives = wanted.positives
        if config.extra_positives is not None:
            positives = extra_positives(targets, ltrb.detach(), grid, config, channels)
        heat = wanted.heatmap
        if settled is not None:  # a cell of target 1 is no negative
            heat = torch.where(settled.flatten().repeat_interleave(channels), 1.0, heat)
        heatmap = heatmap_focal_loss(
            logits.flatten(),
            heat,
            positives,
            alpha=config.focal_alpha,
            gamma=config.focal_gamma,
            beta=config.focal_beta,
            ignore_high_negatives=config.ignore_high_negatives,
        )
        cells = wanted.regression.indices
        predicted = ltrb.reshape(-1, 4)[cells]
        regression = giou_loss(predicted, wanted.regression.ltrb_strides)
        scale = config.heatmap_weight / self.share(len(positives))
        return {
            "heatmap_positive": heatmap.positive * scale,
            "heatmap_negative": heatmap.negative * scale,
            "regression": regression * config.regression_weight / self.share(len(cells)),
        }
