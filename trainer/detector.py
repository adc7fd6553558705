"""The whole detector: pictures on a canvas in, detections out."""

from __future__ import annotations

from typing import Literal, TypeAlias

import torch
from torch import Tensor, nn

from .first_stage.dense import ClassStage, ProposalStage
from .model_config import ProposalFilter
from .second_stage.cascade import CascadeRCNN
from .structures import RawDetections


class Normalizer(nn.Module):
    """Makes grey levels the network's input: colour order, mean, deviation, zero padding."""

    mean: Tensor
    std: Tensor

    def __init__(
        self,
        color_order: Literal["RGB", "BGR"],
        mean: tuple[float, ...],
        std: tuple[float, ...],
    ) -> None:
        """Take the network's colour order, and mean and deviation (grey levels) in that order."""
        super().__init__()
        self.color_order = color_order
        self.register_buffer("mean", torch.tensor(mean).reshape(1, 3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(std).reshape(1, 3, 1, 1), persistent=False)

    def forward(self, images: Tensor, image_sizes: Tensor) -> Tensor:
        """Normalise, and zero what lies outside the pictures.

        Args:
            images: (B, H, W, 3) uint8, RGB, the picture at the top left.
            image_sizes: (B, 2) height, width of the picture on the canvas, pixels, int.
        Returns:
            (B, 3, H, W) float32.
        """
        x = images.to(torch.float32).permute(0, 3, 1, 2)
        if self.color_order == "BGR":
            x = x.flip(1)
        x = (x - self.mean) / self.std
        rows = torch.arange(images.shape[1], device=images.device)
        columns = torch.arange(images.shape[2], device=images.device)
        in_rows = rows[None, :] < image_sizes[:, :1]  # (B, H)
        in_columns = columns[None, :] < image_sizes[:, 1:]  # (B, W)
        inside = in_rows[:, None, :, None] & in_columns[:, None, None, :]  # (B, 1, H, W)
        return x * inside.to(x.dtype)  # a third of the time of torch.where in ONNX Runtime


class FeaturePyramid(nn.Module):
    """The beginning of every detector: pictures in, pyramid features out.

    The canvas (H, W) is a multiple of the config's divisor.
    """

    def __init__(self, *, preprocess: Normalizer, backbone: nn.Module, neck: nn.Module) -> None:
        super().__init__()
        self.preprocess = preprocess
        self.backbone = backbone
        self.neck = neck

    def features(self, images: Tensor, image_sizes: Tensor) -> list[Tensor]:
        """uint8 RGB (B, H, W, 3), sizes (B, 2) -> pyramid levels (B, C, h, w), fine to coarse."""
        levels: list[Tensor] = self.neck(self.backbone(self.preprocess(images, image_sizes)))
        return levels


class OneStageDetector(FeaturePyramid):
    """A dense stage that knows the classes, and no second one.

    Training uses the parts; `forward` is inference, and what it returns is what the exported file
    returns.
    """

    def __init__(
        self,
        *,
        preprocess: Normalizer,
        backbone: nn.Module,
        neck: nn.Module,
        first_stage: ClassStage,
        test_filter: ProposalFilter,
    ) -> None:
        super().__init__(preprocess=preprocess, backbone=backbone, neck=neck)
        self.first_stage = first_stage
        self.test_filter = test_filter
        self.strides = first_stage.strides

    def forward(
        self, images: Tensor, image_sizes: Tensor, score_threshold: Tensor | None = None
    ) -> RawDetections:
        """Detect objects; see `TwoStageDetector.forward`."""
        output = self.first_stage(self.features(images, image_sizes))
        return self.first_stage.detect(output, self.test_filter, image_sizes, score_threshold)


class TwoStageDetector(FeaturePyramid):
    """Proposals and a second stage; CenterNet2 is one: arXiv 2103.07461.

    Training uses the parts; `forward` is inference, and what it returns is what the exported file
    returns.
    """

    def __init__(
        self,
        *,
        preprocess: Normalizer,
        backbone: nn.Module,
        neck: nn.Module,
        first_stage: ProposalStage,
        second_stage: CascadeRCNN,
        test_filter: ProposalFilter,
    ) -> None:
        super().__init__(preprocess=preprocess, backbone=backbone, neck=neck)
        self.first_stage = first_stage
        self.second_stage = second_stage
        self.test_filter = test_filter
        self.strides = first_stage.strides

    def forward(
        self, images: Tensor, image_sizes: Tensor, score_threshold: Tensor | None = None
    ) -> RawDetections:
        """Detect objects.

        Args:
            images: (B, H, W, 3) uint8, RGB, the resized picture at the top left of the canvas.
            image_sizes: (B, 2) int, height and width of the picture on the canvas, pixels.
            score_threshold: () float32, scores at or below are dropped; None: the config's.
        Returns:
            Detections in pixels of the resized picture, clipped to it, best first.
        """
        features = self.features(images, image_sizes)
        proposals = self.first_stage.propose(self.first_stage(features), self.test_filter)
        detections: RawDetections = self.second_stage(
            features, proposals, image_sizes, score_threshold
        )
        return detections


AnyDetector: TypeAlias = OneStageDetector | TwoStageDetector


@torch.no_grad()
def set_frequency_weights(detector: AnyDetector, weights: Tensor) -> None:
    """Set the weights (C,) that the federated loss draws classes with.

    Raises:
        ValueError: a detector without this loss, or of another number of classes.
    """
    second = detector.second_stage if isinstance(detector, TwoStageDetector) else None
    if second is None or second.freq_weight is None:
        raise ValueError("frequency weights: expected a detector with a federated loss, got none")
    if weights.shape != second.freq_weight.shape:
        raise ValueError(
            f"frequency weights: expected {tuple(second.freq_weight.shape)}, one per class, got "
            f"{tuple(weights.shape)}"
        )
    second.freq_weight.copy_(weights)
