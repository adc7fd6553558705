"""Proposals and ground truth to the named losses of the second stage."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from .boxes import clip_boxes, decode_deltas, encode_deltas
from .losses import (
    box_delta_loss,
    classification_loss,
    scale_gradient,
    sigmoid_classification_loss,
)
from .model_config import CascadeRCNNConfig
from .structures import Proposals, Target
from .targets.cascade import (
    BACKGROUND,
    Matches,
    has_area,
    match_boxes,
    sample_rois,
    training_proposals,
)
from .targets.federated import draw_ranks, federated_classes

if TYPE_CHECKING:
    from .second_stage.cascade import CascadeRCNN


class CascadeLosses:
    """Class and box losses of every cascade stage; each refines the boxes of the one before."""

    def __init__(self, config: CascadeRCNNConfig, share: Callable[[float], float]) -> None:
        """Keep the settings; `share` turns a count into a divisor, see `DetectorLosses`."""
        self.config = config
        self.share = share

    def __call__(
        self,
        second_stage: CascadeRCNN,
        features: list[Tensor],
        proposals: Proposals,
        image_sizes: Tensor,
        targets: Sequence[Target],
    ) -> dict[str, Tensor]:
        """Run the cascade on drawn RoIs and compare it with the ground truth.

        Args:
            second_stage: what is trained.
            features: of each level.
            proposals: of the first stage, without gradient.
            image_sizes: (B, 2) height, width of the pictures, pixels.
            targets: ground truth of each picture.
        Returns:
            class_k and box_k for each stage k.
        """
        config = self.config
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
            classes = torch.where(classes == BACKGROUND, logits.shape[1] - 1, classes)
            divisor = self.share(len(rois))
            class_loss = self._class_loss(logits.float(), classes, second_stage, targets, k)
            losses[f"class_{k}"] = class_loss / divisor
            own = deltas[positive]
            if config.per_class_boxes:
                rows = torch.arange(len(own), device=own.device)
                own = own.reshape(len(own), own.shape[1] // 4, 4)[rows, classes[positive]]
            losses[f"box_{k}"] = box_delta_loss(own.float(), wanted) / divisor
            if k + 1 < len(config.ious):
                boxes = _refine(boxes, deltas.detach().float(), weights, image_sizes)
        return losses

    def _class_loss(
        self,
        logits: Tensor,
        classes: Tensor,
        second_stage: CascadeRCNN,
        targets: Sequence[Target],
        stage: int,
    ) -> Tensor:
        """Of RoIs (R, C + 1) whose classes (R,) are in 0..C, background last; summed."""
        if self.config.classifier == "softmax":
            return classification_loss(logits, classes)
        counted = None
        if self.config.federated is not None:
            assert second_stage.freq_weight is not None
            ranks = draw_ranks(second_stage.freq_weight, _class_generator(targets, stage))
            counted = federated_classes(classes, ranks, self.config.federated.classes)
        return sigmoid_classification_loss(logits, classes, counted)

    def _sample(self, boxes: list[Tensor], targets: Sequence[Target]) -> list[Tensor]:
        """Draw each picture's RoIs, positive at the first stage's IoU or not."""
        config = self.config
        sampled = []
        for some, target in zip(boxes, targets, strict=True):
            classes = match_boxes(some, target, config.ious[0]).classes
            generator = None if target.seed is None else torch.Generator().manual_seed(target.seed)
            kept = sample_rois(classes, config.rois_per_image, config.positive_fraction, generator)
            sampled.append(some[kept])
        return sampled


def _class_generator(targets: Sequence[Target], stage: int) -> torch.Generator | None:
    """Of a stage's draw of classes, from the seeds of its pictures; None where they have none."""
    seeds = [target.seed for target in targets]
    if None in seeds:
        return None
    seed = random.Random(f"classes/{stage}/{seeds}").getrandbits(32)
    return torch.Generator().manual_seed(seed)


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
