"""Pictures and ground truth to the named losses of the whole detector; their sum is trained."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from .boxes import clip_boxes, decode_deltas, encode_deltas
from .losses import (
    box_delta_loss,
    classification_loss,
    giou_loss,
    heatmap_focal_loss,
    scale_gradient,
)
from .model_config import ModelConfig
from .structures import FirstStageOutput, Proposals, Target
from .targets.cascade import (
    BACKGROUND,
    Matches,
    has_area,
    match_boxes,
    sample_rois,
    training_proposals,
)
from .targets.centernet import centernet_targets, pyramid_grid

if TYPE_CHECKING:
    from .detector import TwoStageDetector


def _at_least_one(count: int) -> float:
    """The divisor of one process on its own; 1 where there is nothing to divide."""
    return float(max(count, 1))


class DetectorLosses:
    """The losses of one batch, by name, weighted as the config says.

    Keys: heatmap_positive, heatmap_negative, regression, and class_k and box_k of each cascade
    stage k. All are finite and have a gradient, also where no picture has an object.
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

    def __call__(
        self,
        detector: TwoStageDetector,
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
        with torch.no_grad():
            found = detector.first_stage.propose(output, self.config.first_stage.train_filter)
        losses = self.first_stage_losses(output, targets, detector.strides)
        losses |= self.cascade_losses(detector, features, found, image_sizes, targets)
        return losses

    def first_stage_losses(
        self, output: FirstStageOutput, targets: Sequence[Target], strides: Sequence[int]
    ) -> dict[str, Tensor]:
        """Heat map and regression losses of the dense predictions.

        Args:
            output: of the first stage, B pictures.
            targets: ground truth of each picture.
            strides: pixels per cell of each level.
        Returns:
            heatmap_positive and heatmap_negative, over the number of positive cells, and
            regression, over the number of cells that it is trained on; both at least 1.
        """
        config = self.config.first_stage
        logits = torch.cat([level.flatten(1) for level in output.heatmaps], dim=1).float()
        ltrb = torch.cat([level.flatten(2) for level in output.regressions], dim=2).float()
        sizes = [(level.shape[2], level.shape[3]) for level in output.heatmaps]
        grid = pyramid_grid(sizes, strides, logits.device)
        wanted = centernet_targets(targets, grid, config)
        heatmap = heatmap_focal_loss(
            logits.flatten(),
            wanted.heatmap,
            wanted.positives,
            alpha=config.focal_alpha,
            gamma=config.focal_gamma,
            beta=config.focal_beta,
            ignore_high_negatives=config.ignore_high_negatives,
        )
        cells = wanted.regression.indices
        predicted = ltrb.transpose(1, 2).reshape(-1, 4)[cells]
        regression = giou_loss(predicted, wanted.regression.ltrb_strides)
        scale = config.heatmap_weight / self.share(len(wanted.positives))
        return {
            "heatmap_positive": heatmap.positive * scale,
            "heatmap_negative": heatmap.negative * scale,
            "regression": regression * config.regression_weight / self.share(len(cells)),
        }

    def cascade_losses(
        self,
        detector: TwoStageDetector,
        features: list[Tensor],
        proposals: Proposals,
        image_sizes: Tensor,
        targets: Sequence[Target],
    ) -> dict[str, Tensor]:
        """Class and box losses of every cascade stage; each refines the boxes of the one before.

        Args:
            detector: whose second stage runs.
            features: of each level.
            proposals: of the first stage, without gradient.
            image_sizes: (B, 2) height, width of the pictures, pixels.
            targets: ground truth of each picture.
        Returns:
            class_k and box_k for each stage k.
        """
        config = self.config.second_stage
        second_stage = detector.second_stage
        boxes = self._sample(training_proposals(proposals, targets), targets)
        losses: dict[str, Tensor] = {}
        for k, stage in enumerate(second_stage.stages):
            pooled = second_stage.pool(features, boxes)
            logits, deltas = stage(scale_gradient(pooled, 1 / len(second_stage.stages)))
            rois, weights = torch.cat(boxes), config.delta_weights[k]
            matches = _match_all(boxes, targets, config.ious[k])
            classes = matches.classes
            positive = (classes != BACKGROUND).nonzero().flatten()
            wanted = encode_deltas(rois[positive], matches.boxes[positive], weights)
            background = logits.shape[1] - 1
            classes = torch.where(classes == BACKGROUND, background, classes)
            divisor = self.share(len(rois))
            losses[f"class_{k}"] = classification_loss(logits.float(), classes) / divisor
            losses[f"box_{k}"] = box_delta_loss(deltas[positive].float(), wanted) / divisor
            boxes = _refine(boxes, deltas.detach().float(), weights, image_sizes)
        return losses

    def _sample(self, boxes: list[Tensor], targets: Sequence[Target]) -> list[Tensor]:
        """Draw each picture's RoIs, positive at the first stage's IoU or not."""
        config = self.config.second_stage
        sampled = []
        for some, target in zip(boxes, targets, strict=True):
            classes = match_boxes(some, target, config.ious[0]).classes
            generator = None if target.seed is None else torch.Generator().manual_seed(target.seed)
            kept = sample_rois(classes, config.rois_per_image, config.positive_fraction, generator)
            sampled.append(some[kept])
        return sampled


def _match_all(boxes: list[Tensor], targets: Sequence[Target], iou_threshold: float) -> Matches:
    """The matches of all pictures, concatenated."""
    matches = [
        match_boxes(some, target, iou_threshold)
        for some, target in zip(boxes, targets, strict=True)
    ]
    return Matches(
        torch.cat([match.classes for match in matches]),
        torch.cat([match.boxes for match in matches]),
    )


def _refine(
    boxes: list[Tensor], deltas: Tensor, weights: tuple[float, ...], image_sizes: Tensor
) -> list[Tensor]:
    """Move the boxes by their deltas, clip them to their pictures, drop the empty ones."""
    refined = []
    counts = [len(some) for some in boxes]
    for some, moves, size in zip(boxes, torch.split(deltas, counts), image_sizes, strict=True):
        moved = clip_boxes(decode_deltas(some, moves, weights)[None], size[None])[0]
        refined.append(moved[has_area(moved)])
    return refined
