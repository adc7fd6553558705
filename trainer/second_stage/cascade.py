"""The second stage: a cascade of box heads over pooled proposals, and the joint score."""

from __future__ import annotations

from itertools import pairwise
from typing import Literal, NamedTuple

import torch
from torch import Tensor, nn

from .. import ops
from ..boxes import clip_boxes, decode_deltas
from ..layers import in_fp32
from ..roi_pooling import pool_levels
from ..structures import Proposals, RawDetections

DeltaWeights = tuple[float, float, float, float]
Classifier = Literal["softmax", "sigmoid"]


class Pooling(NamedTuple):
    """How RoIs are pooled from the pyramid."""

    levels: tuple[int, ...]  # positions in the list of pyramid features, not level numbers
    strides: tuple[int, ...]  # of those levels, pixels per cell
    canonical_level: int
    canonical_size: float  # pixels
    output_size: int
    sampling_ratio: int


class Selection(NamedTuple):
    """Which detections are returned."""

    score_rule: Literal["sqrt", "product", "class"]
    score_threshold: float
    nms_iou: float
    detections: int


class CascadeStage(nn.Module):
    """Fully connected layers over a pooled RoI; class logits, and box deltas for all or each class.

    Source: Cascade R-CNN, arXiv 1712.00726, Sec. 4; box head of FPN, arXiv 1612.03144, Sec. 4.2.
    """

    def __init__(
        self,
        inputs: int,
        fc_channels: tuple[int, ...],
        classes: int,
        delta_weights: DeltaWeights,
        *,
        per_class_boxes: bool = False,
    ) -> None:
        """Take the flattened size of a pooled RoI, the layers' widths and the class count."""
        super().__init__()
        self.delta_weights = delta_weights
        widths = (inputs, *fc_channels)
        self.layers = nn.ModuleList(nn.Linear(before, after) for before, after in pairwise(widths))
        self.class_logits = nn.Linear(widths[-1], classes + 1)
        self.deltas = nn.Linear(widths[-1], 4 * classes if per_class_boxes else 4)
        for layer in self.layers:
            nn.init.kaiming_uniform_(layer.weight, a=1)  # type: ignore[arg-type]
            nn.init.zeros_(layer.bias)  # type: ignore[arg-type]
        for layer, std in ((self.class_logits, 0.01), (self.deltas, 0.001)):
            nn.init.normal_(layer.weight, std=std)
            nn.init.zeros_(layer.bias)

    def forward(self, pooled: Tensor) -> tuple[Tensor, Tensor]:
        """(R, C, P, P) -> class logits (R, classes + 1), background last; box deltas (R, 4).

        With a box for each class its deltas are (R, 4 * classes), class after class.
        """
        x = pooled.flatten(1)
        for layer in self.layers:
            x = torch.relu(layer(x))
        return in_fp32(self.class_logits, x), in_fp32(self.deltas, x)


class CascadeRCNN(nn.Module):
    """Refines proposals stage by stage and scores them with both stages' probabilities."""

    score_threshold: Tensor
    freq_weight: Tensor | None

    def __init__(
        self,
        stages: list[CascadeStage],
        pooling: Pooling,
        selection: Selection,
        classifier: Classifier = "softmax",
        freq_weight: Tensor | None = None,
    ) -> None:
        """Take the parts.

        Args:
            stages: first to last.
            pooling: of RoIs.
            selection: of detections.
            classifier: what makes probabilities of class logits.
            freq_weight: (C,) weights of the federated loss's draw of classes; None: there is none.
        """
        super().__init__()
        self.classifier = classifier
        self.register_buffer("freq_weight", freq_weight)
        self.stages = nn.ModuleList(stages)
        self.pooling = pooling
        self.selection = selection
        threshold = torch.tensor(selection.score_threshold, dtype=torch.float32)
        self.register_buffer("score_threshold", threshold, persistent=False)

    def forward(
        self,
        features: list[Tensor],
        proposals: Proposals,
        image_sizes: Tensor,
        score_threshold: Tensor | None = None,
    ) -> RawDetections:
        """Detect in every picture; the arithmetic of a batch does not mix pictures.

        Args:
            features: every pyramid level (B, C, h, w), fine to coarse.
            proposals: (B, K) boxes and objectness.
            image_sizes: (B, 2) height, width of the pictures on the canvas, pixels.
            score_threshold: () float32; scores at or below are dropped; None: the config's.
        Returns:
            Detections, best first; rows past their number are zero.
        """
        probabilities, boxes = self.refine(features, proposals.boxes, image_sizes)
        finite = torch.isfinite(boxes).all(dim=-1, keepdim=True)  # (B, K, 1) or (B, K, classes, 1)
        boxes = clip_boxes(torch.where(finite, boxes, 0.0), image_sizes)
        scores = self.joint_score(probabilities, proposals.objectness)
        scores = torch.where(finite.flatten(2), scores, 0.0)
        threshold = self.score_threshold if score_threshold is None else score_threshold
        number, boxes, scores, classes = ops.detection_nms(
            boxes, scores, threshold, self.selection.detections, self.selection.nms_iou
        )
        return RawDetections(number, boxes, scores, classes)

    def refine(
        self, features: list[Tensor], boxes: Tensor, image_sizes: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Pass boxes (B, K, 4) through the cascade, clipping between its stages.

        Returns:
            P(class | object) (B, K, classes), the mean over the stages, and the last stage's boxes
            (B, K, 4), of each class (B, K, classes, 4), not clipped.
        """
        levels = [features[position] for position in self.pooling.levels]
        total: Tensor | None = None
        for index, stage in enumerate(self.stages):
            if index:
                boxes = clip_boxes(boxes, image_sizes)
            probabilities, boxes = self._run_stage(stage, levels, boxes)
            total = probabilities if total is None else total + probabilities
        assert total is not None
        return total / len(self.stages), boxes

    def _run_stage(
        self, stage: nn.Module, levels: list[Tensor], boxes: Tensor
    ) -> tuple[Tensor, Tensor]:
        """One stage's class probabilities (B, K, classes) and its boxes, see `refine`."""
        pooling = self.pooling
        pooled = ops.pyramid_roi_align(
            boxes,
            levels,
            pooling.strides,
            pooling.canonical_level,
            pooling.canonical_size,
            pooling.output_size,
            pooling.sampling_ratio,
        )
        logits, deltas = stage(pooled.flatten(0, 1))
        probabilities = class_probabilities(logits, self.classifier)
        batch, count = boxes.shape[:2]
        deltas = deltas.reshape(batch, count, deltas.shape[1])
        if deltas.shape[2] > 4:  # of each class
            boxes = boxes[:, :, None]
            deltas = deltas.reshape(batch, count, deltas.shape[2] // 4, 4)
        refined = decode_deltas(boxes, deltas, stage.delta_weights)  # type: ignore[arg-type]
        return probabilities.reshape(batch, count, probabilities.shape[-1]), refined

    def joint_score(self, probabilities: Tensor, objectness: Tensor) -> Tensor:
        """Join P(class | object) (B, K, C) with objectness (B, K), the root of P(object).

        `sqrt` is what the official code computes; `product` is arXiv 2103.07461, Eq. 1; `class`
        leaves the first stage out, as Faster R-CNN does, but for rows without a proposal.
        """
        objectness = objectness[..., None]
        if self.selection.score_rule == "class":
            return torch.where(objectness > 0, probabilities, 0.0)
        if self.selection.score_rule == "product":
            return probabilities * objectness * objectness
        return torch.sqrt(probabilities * objectness)

    def pool(self, features: list[Tensor], boxes: list[Tensor]) -> Tensor:
        """Pool each picture's boxes, differentiably, for training.

        Args:
            features: every pyramid level (B, C, h, w), fine to coarse.
            boxes: per picture (R_b, 4), pixels of the canvas.
        Returns:
            (R, C, P, P), picture after picture.
        """
        pictures = [rows.new_full((len(rows), 1), index) for index, rows in enumerate(boxes)]
        rois = torch.cat([torch.cat(pictures), torch.cat(boxes)], dim=1)
        return pool_levels(
            [features[position] for position in self.pooling.levels],
            rois,
            strides=self.pooling.strides,
            canonical_level=self.pooling.canonical_level,
            canonical_size=self.pooling.canonical_size,
            output_size=self.pooling.output_size,
            sampling_ratio=self.pooling.sampling_ratio,
        )


def class_probabilities(logits: Tensor, classifier: Classifier) -> Tensor:
    """Logits (R, C + 1), background last, to P(class | object) (R, C)."""
    if classifier == "sigmoid":
        return torch.sigmoid(logits[:, :-1])
    return torch.softmax(logits, dim=-1)[:, :-1]
