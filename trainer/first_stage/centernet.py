"""The class-agnostic CenterNet first stage: pyramid levels in, proposals with P(object) out."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from .. import ops
from ..boxes import decode_ltrb
from ..deformable import DeformableConv2d
from ..layers import OffsetConv2d, in_fp32
from ..model_config import ProposalFilter
from ..structures import FirstStageOutput, Proposals


class CenterNetHead(nn.Module):
    """A tower of convolutions, shared by all levels, with a heat map and a regression on top.

    Source: arXiv 2103.07461, Sec. 5. As in the official code the tower is shared by both outputs
    and the regression passes a ReLU, not an exponential.
    """

    def __init__(
        self,
        channels: int,
        *,
        convs: int,
        norm_groups: int,
        levels: int,
        regression_bias: float,
        deformable: bool = False,
    ) -> None:
        """Take what a `CenterNetConfig` has; `deformable`: the tower's last convolution."""
        super().__init__()
        self.tower = conv_tower(channels, convs, norm_groups, deformable=deformable)
        self.heatmap = nn.Conv2d(channels, 1, 3, padding=1)
        self.regression = nn.Conv2d(channels, 4, 3, padding=1)
        self.level_scales = nn.Parameter(torch.ones(levels))
        initialise_head(self, self.regression, regression_bias)

    def forward(self, features: list[Tensor]) -> FirstStageOutput:
        """Levels (B, C, h, w), fine to coarse -> logits and distances of every cell."""
        heatmaps, regressions = [], []
        for level, feature in enumerate(features):
            x = self.tower(feature)
            heatmaps.append(in_fp32(self.heatmap, x))
            regressions.append(torch.relu(self.level_scales[level] * in_fp32(self.regression, x)))
        return FirstStageOutput(heatmaps, regressions)


def conv_tower(
    channels: int, convs: int, norm_groups: int, *, deformable: bool = False
) -> nn.Sequential:
    """So many 3x3 convolutions with GroupNorm and ReLU; `deformable`: the last of them."""
    layers: list[nn.Module] = []
    for index in range(convs):
        layers += [
            DeformableConv2d(channels, channels, bias=True)
            if deformable and index == convs - 1
            else nn.Conv2d(channels, channels, 3, padding=1),
            nn.GroupNorm(norm_groups, channels),
            nn.ReLU(inplace=True),
        ]
    return nn.Sequential(*layers)


def initialise_head(head: nn.Module, regression: nn.Conv2d, regression_bias: float) -> None:
    """Small normal weights and zero biases, but the regression's bias, in strides."""
    for layer in head.modules():
        if isinstance(layer, nn.Conv2d) and not isinstance(layer, OffsetConv2d):
            nn.init.normal_(layer.weight, std=0.01)
            nn.init.zeros_(layer.bias)  # type: ignore[arg-type]  # every one has a bias
    nn.init.constant_(regression.bias, regression_bias)  # type: ignore[arg-type]


class CenterNetFirstStage(nn.Module):
    """Predicts centres and side distances in every cell, and picks proposals from them."""

    def __init__(
        self, head: CenterNetHead, strides: tuple[int, ...], objectness_floor: float
    ) -> None:
        """Take the head, the levels' strides and the P(object) below which nothing is proposed."""
        super().__init__()
        self.head = head
        self.strides = strides
        self.objectness_floor = objectness_floor

    def forward(self, features: list[Tensor]) -> FirstStageOutput:
        """Levels (B, C, h, w), fine to coarse -> logits and distances of every cell."""
        output: FirstStageOutput = self.head(features)
        return output

    def propose(self, output: FirstStageOutput, filter: ProposalFilter) -> Proposals:
        """Turn dense predictions into exactly `filter.post_nms` proposals a picture.

        Ties go to the finer level, then to the lower cell index. No gradient passes.

        Args:
            output: of `forward`.
            filter: how many locations and proposals are kept, and the IoU of suppression.
        Returns:
            Proposals, best first, not clipped; objectness is the square root of the likelihood.
        Source: arXiv 2103.07461, Sec. 4 and 5; the square root is the official code's.
        """
        boxes, scores = [], []
        for heatmap, regression, stride in zip(
            output.heatmaps, output.regressions, self.strides, strict=True
        ):
            level_boxes, level_scores = self._best_of_level(
                heatmap.detach(), regression.detach(), stride, filter.pre_nms
            )
            boxes.append(level_boxes)
            scores.append(level_scores)
        kept_boxes, kept_scores = ops.proposal_nms(
            torch.cat(boxes, dim=1), torch.cat(scores, dim=1), filter.post_nms, filter.nms_iou
        )
        return Proposals(kept_boxes, kept_scores)

    def _best_of_level(
        self, heatmap: Tensor, regression: Tensor, stride: int, count: int
    ) -> tuple[Tensor, Tensor]:
        """The likeliest cells of a level: boxes (B, count, 4), objectness (B, count)."""
        likelihood = torch.sigmoid(heatmap.flatten(1))  # (B, h * w)
        likelihood = torch.where(likelihood > self.objectness_floor, likelihood, 0.0)
        best, cells = ops.stable_topk(likelihood, count)
        boxes = decode_cells(regression, cells, stride)
        return torch.where((best > 0)[..., None], boxes, 0.0), torch.sqrt(best)


def decode_cells(regression: Tensor, cells: Tensor, stride: int) -> Tensor:
    """The boxes that some cells of a level predict.

    Args:
        regression: (B, 4, h, w) left, top, right, bottom, stride units.
        cells: (B, K) int64, row by row.
        stride: pixels per cell.
    Returns:
        (B, K, 4) xyxy, pixels, not clipped.
    """
    distances = regression.flatten(2) * stride  # (B, 4, h * w) pixels
    distances = distances.gather(2, cells[:, None, :].expand(-1, 4, -1)).transpose(1, 2)
    height, width = regression.shape[2:]
    locations = cell_locations(height, width, stride, regression.device)
    return decode_ltrb(locations[cells], distances)


def cell_locations(height: int, width: int, stride: int, device: torch.device) -> Tensor:
    """The location of every cell of a level.

    Args:
        height: of the level, cells.
        width: of the level, cells.
        stride: pixels per cell.
        device: where the answer lies.
    Returns:
        (height * width, 2) x, y in pixels, row by row: index * stride + stride // 2.
    """
    x = torch.arange(width, device=device, dtype=torch.float32) * stride + stride // 2
    y = torch.arange(height, device=device, dtype=torch.float32) * stride + stride // 2
    grid = torch.stack([x[None, :].expand(height, -1), y[:, None].expand(-1, width)], dim=-1)
    return grid.reshape(-1, 2)
