"""Pictures and ground truth to the named losses of the whole detector; their sum is trained."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from .build_first_stage import build_first_stage_losses
from .cascade_losses import CascadeLosses
from .detector import AnyDetector, TwoStageDetector
from .larger_bound import share_background
from .model_config import ModelConfig
from .structures import FirstStageOutput, Proposals, Target


def _at_least_one(count: float) -> float:
    """The divisor of one process on its own; 1 where there is nothing to divide."""
    return max(float(count), 1.0)


class DetectorLosses:
    """The losses of one batch, by name, weighted as the config says.

    Keys: those of the first stage (CenterNet's: heatmap_positive, heatmap_negative, regression),
    and class_k and box_k of each stage k of a second stage. All are finite and have a gradient,
    also where no picture has an object.
    """

    def __init__(
        self, config: ModelConfig, share: Callable[[float], float] = _at_least_one
    ) -> None:
        """Keep the settings.

        Args:
            config: the detector's parts.
            share: turns the count of objects, cells or RoIs that a sum is over into its divisor.
                Several processes that average their gradients pass one that gives the mean of
                their counts: together they then train on what one process with all pictures would.
        """
        self.config = config
        self.first_stage_losses = build_first_stage_losses(config.first_stage, share)
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
        if self.cascade_losses is None:
            return self.first_stage_losses(output, targets, detector.strides)
        assert isinstance(detector, TwoStageDetector)
        found, settled = self._propose(detector, features, output, targets)
        losses = self.first_stage_losses(output, targets, detector.strides, settled)
        second_stage = detector.second_stage
        return losses | self.cascade_losses(second_stage, features, found, image_sizes, targets)

    @torch.no_grad()
    def _propose(
        self,
        detector: TwoStageDetector,
        features: list[Tensor],
        output: FirstStageOutput,
        targets: Sequence[Target],
    ) -> tuple[Proposals, Tensor | None]:
        """The second stage's proposals, and the places that the first stage leaves to it."""
        stage, filter = detector.first_stage, self.config.first_stage.train_filter
        if self.config.background_bounds == "both":
            return stage.propose(output, filter), None
        second = self.config.second_stage
        assert second is not None
        proposals, places = stage.propose_with_places(output, filter)
        return share_background(
            detector.second_stage, features, proposals, places, targets, second.ious[0],
            sum(level[0].numel() for level in output.logits),
        )  # fmt: skip
