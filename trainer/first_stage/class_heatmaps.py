"""CenterNet without a second stage: pyramid levels in, detections of every class out."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from .. import ops
from ..boxes import clip_boxes
from ..layers import in_fp32
from ..model_config import ProposalFilter
from ..structures import FirstStageOutput, RawDetections
from .centernet import conv_tower, decode_cells, initialise_head


class ClassHead(nn.Module):
    """Two towers of convolutions, shared by all levels: one for class heat maps, one for boxes.

    Source: CenterNet*, arXiv 2103.07461, Sec. 5; the regression passes a ReLU as in the official
    code, not an exponential.
    """

    def __init__(
        self,
        channels: int,
        classes: int,
        *,
        class_convs: int,
        convs: int,
        norm_groups: int,
        levels: int,
        regression_bias: float,
    ) -> None:
        super().__init__()
        self.class_tower = conv_tower(channels, class_convs, norm_groups)
        self.tower = conv_tower(channels, convs, norm_groups)
        self.class_heatmaps = nn.Conv2d(channels, classes, 3, padding=1)
        self.regression = nn.Conv2d(channels, 4, 3, padding=1)
        self.level_scales = nn.Parameter(torch.ones(levels))
        initialise_head(self, self.regression, regression_bias)

    def forward(self, features: list[Tensor]) -> FirstStageOutput:
        """Levels (B, C, h, w), fine to coarse -> logits of every class and distances, per cell."""
        heatmaps, regressions = [], []
        for level, feature in enumerate(features):
            heatmaps.append(in_fp32(self.class_heatmaps, self.class_tower(feature)))
            x = in_fp32(self.regression, self.tower(feature))
            regressions.append(torch.relu(self.level_scales[level] * x))
        return FirstStageOutput(heatmaps, regressions)


class CenterNetClasses(nn.Module):
    """Predicts class centres and side distances in every cell, and picks detections from them."""

    score_threshold: Tensor

    def __init__(self, head: ClassHead, strides: tuple[int, ...], score_threshold: float) -> None:
        """Take the head, the levels' strides and the score at or below which nothing counts."""
        super().__init__()
        self.head = head
        self.strides = strides
        threshold = torch.tensor(score_threshold, dtype=torch.float32)
        self.register_buffer("score_threshold", threshold, persistent=False)

    def forward(self, features: list[Tensor]) -> FirstStageOutput:
        """Levels (B, C, h, w), fine to coarse -> logits of every class and distances, per cell."""
        output: FirstStageOutput = self.head(features)
        return output

    def detect(
        self,
        output: FirstStageOutput,
        filter: ProposalFilter,
        image_sizes: Tensor,
        score_threshold: Tensor | None = None,
    ) -> RawDetections:
        """Turn dense predictions into detections; no gradient passes.

        Equal scores rank by level, finer first, then by cell, then by class.

        Args:
            output: of `forward`.
            filter: pairs of cell and class kept per level, detections kept, IoU of suppression
                among the boxes of a class.
            image_sizes: (B, 2) height, width of the pictures on the canvas, pixels.
            score_threshold: () float32; scores at or below are dropped; None: the config's.
        Returns:
            `filter.post_nms` rows, best first, clipped after suppression as in the official code.
        """
        threshold = self.score_threshold if score_threshold is None else score_threshold
        candidates = self.candidates(output, filter.pre_nms, threshold)
        number, boxes, scores, classes = ops.class_nms(
            *candidates, output.heatmaps[0].shape[1], filter.post_nms, filter.nms_iou
        )
        return RawDetections(number, clip_boxes(boxes, image_sizes), scores, classes)

    def candidates(
        self, output: FirstStageOutput, count: int, score_threshold: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """The best pairs of cell and class of each level, before suppression.

        Returns:
            boxes (B, L * count, 4), not clipped, scores (B, L * count) and classes int64, level
            after level, each best first; rows that there is nothing for have score 0 and box 0.
        """
        levels = [
            _best_of_level(heatmap.detach(), regression.detach(), stride, count, score_threshold)
            for heatmap, regression, stride in zip(
                output.heatmaps, output.regressions, self.strides, strict=True
            )
        ]
        boxes, scores, classes = (torch.cat(parts, dim=1) for parts in zip(*levels, strict=True))
        return boxes, scores, classes


def _best_of_level(
    heatmap: Tensor, regression: Tensor, stride: int, count: int, score_threshold: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """A level's best pairs: boxes (B, count, 4), scores and classes (B, count)."""
    scores = torch.sigmoid(heatmap.permute(0, 2, 3, 1).flatten(1))  # (B, h * w * C)
    scores = torch.where(scores > score_threshold, scores, 0.0)
    best, pairs = ops.stable_topk(scores, count)
    classes = heatmap.shape[1]
    boxes = decode_cells(regression, pairs // classes, stride)
    return torch.where((best > 0)[..., None], boxes, 0.0), best, pairs % classes
