"""Pictures and ground truth to the named losses of the whole detector; their sum is trained."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from .cascade_losses import CascadeLosses
from .detector import AnyDetector, TwoStageDetector
from .losses import giou_loss, heatmap_focal_loss
from .model_config import ModelConfig
from .structures import FirstStageOutput, Target
from .targets.centernet import centernet_targets
from .targets.extra_positives import extra_positives
from .targets.grid import pyramid_grid


def _at_least_one(count: int) -> float:
    """The divisor of one process on its own; 1 where there is nothing to divide."""
    return float(max(count, 1))


class DetectorLosses:
    """The losses of one batch, by name, weighted as the config says.

    Keys: heatmap_positive, heatmap_negative, regression, and class_k and box_k of each stage k of a
    second stage. All are finite and have a gradient, also where no picture has an object.
    """

    def __init__(self, config: ModelConfig, share: Callable[[int], float] = _at_least_one) -> None:
        """Keep the settings.

        Args:
            config: the detector's parts.
            share: turns the count of objects, cells or RoIs that a sum is over into its divisor.
                Several processes that average their gradients pass one that gives the mean of
                their counts: together they then train on what one process with all pictures would.
        """
        self.config = config
        self.share = share
        second = config.second_stage
        self.cascade_losses = None if second is None else CascadeLosses(second, share)

    def __call__(
        self,
        detector: AnyDetector,
        images: Tensor,
        image_sizes: Tensor,
        targets: Sequence[Target],
    ) -> dict[str, Tensor]:
        """Run the detector on a batch and compare it with the ground truth.

        Args:
            detector: in training mode.
            images: (B, H, W, 3) uint8 RGB, pictures at the top left of the canvas.
            image_sizes: (B, 2) height, width of the pictures, pixels.
            targets: ground truth of each picture, on the canvas.
        Returns:
            Scalars by name.
        Raises:
            ValueError: not one target per picture.
        """
        if len(targets) != len(images):
            raise ValueError(
                f"targets: expected {len(images)}, one per picture, got {len(targets)}"
            )
        features = detector.features(images, image_sizes)
        output = detector.first_stage(features)
        losses = self.first_stage_losses(output, targets, detector.strides)
        if self.cascade_losses is None:
            return losses
        assert isinstance(detector, TwoStageDetector)
        with torch.no_grad():
            found = detector.first_stage.propose(output, self.config.first_stage.train_filter)
        second_stage = detector.second_stage
        return losses | self.cascade_losses(second_stage, features, found, image_sizes, targets)

    def first_stage_losses(
        self, output: FirstStageOutput, targets: Sequence[Target], strides: Sequence[int]
    ) -> dict[str, Tensor]:
        """Heat map and regression losses of the dense predictions.

        Args:
            output: of the first stage, B pictures.
            targets: ground truth of each picture.
            strides: pixels per cell of each level.
        Returns:
            heatmap_positive and heatmap_negative, over the number of positives, and regression,
            over the number of cells that it is trained on; both at least 1.
        """
        config, channels = self.config.first_stage, output.heatmaps[0].shape[1]
        logits = torch.cat([cells_first(level) for level in output.heatmaps], dim=1).float()
        ltrb = torch.cat([cells_first(level) for level in output.regressions], dim=1).float()
        sizes = [(level.shape[2], level.shape[3]) for level in output.heatmaps]
        grid = pyramid_grid(sizes, strides, logits.device)
        wanted = centernet_targets(targets, grid, config, channels)
        positives = wanted.positives
        if config.extra_positives is not None:
            positives = extra_positives(targets, ltrb.detach(), grid, config, channels)
        heatmap = heatmap_focal_loss(
            logits.flatten(),
            wanted.heatmap,
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


def cells_first(level: Tensor) -> Tensor:
    """Dense predictions (B, C, h, w) as (B, h * w, C), row by row."""
    return level.flatten(2).transpose(1, 2)
