"""The first stage of a two-stage checkpoint on its own: its proposals as detections of a class."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor

from cn2.runtime.manifest import Manifest
from cn2.trainer.boxes import clip_boxes
from cn2.trainer.config import Config
from cn2.trainer.detector import AnyDetector, FeaturePyramid, TwoStageDetector
from cn2.trainer.structures import RawDetections

from .describe import Origin, describe, open_checkpoint
from .torch_backend import TorchBackend


class ProposalDetector(FeaturePyramid):
    """Backbone, neck and first stage; the score of a proposal is P(object)."""

    def __init__(self, detector: TwoStageDetector, proposals: int) -> None:
        """Take the parts of a detector, and the number of proposals a picture."""
        super().__init__(
            preprocess=detector.preprocess, backbone=detector.backbone, neck=detector.neck
        )
        self.first_stage = detector.first_stage
        self.test_filter = replace(detector.test_filter, post_nms=proposals)

    def forward(
        self, images: Tensor, image_sizes: Tensor, score_threshold: Tensor | None = None
    ) -> RawDetections:
        """See `TwoStageDetector.forward`; the classes are 0."""
        output = self.first_stage(self.features(images, image_sizes))
        boxes, roots = self.first_stage.propose(output, self.test_filter)
        scores = roots**2
        kept = scores > (0.0 if score_threshold is None else score_threshold)  # the first ones
        return RawDetections(
            kept.sum(dim=1, dtype=torch.int32),
            torch.where(kept[..., None], clip_boxes(boxes, image_sizes), 0.0),
            torch.where(kept, scores, 0.0),
            torch.zeros_like(kept, dtype=torch.int32),
        )


def open_first_stage(
    path: Path, device: str = "auto", proposals: int | None = None
) -> TorchBackend:
    """Open a checkpoint's first stage.

    Args:
        path: a .safetensors checkpoint.
        device: auto, cpu, cuda, or cuda:1 and so on.
        proposals: a picture; None: the config's.
    Raises:
        ModelFormatError: missing, torn, or not a cn2 checkpoint.
        ValueError: it has no second stage, so that all it gives is final.
        BackendUnavailableError: the device that was asked for is not here.
    """
    model, config, origin = open_checkpoint(path)
    return TorchBackend(*first_stage_of(model, config, origin, proposals), device=device)


def first_stage_of(
    model: AnyDetector, config: Config, origin: Origin, proposals: int | None
) -> tuple[ProposalDetector, Manifest]:
    """A detector's first stage, and what it says of itself; see `open_first_stage`."""
    if not isinstance(model, TwoStageDetector):
        raise ValueError(
            f"stage: expected a detector of two stages, got {config.preset}, which has one; leave "
            "the option out"
        )
    count = model.test_filter.post_nms if proposals is None else proposals
    manifest = replace(
        describe(config, origin=origin),
        class_names=("object",),
        category_ids=(1,),
        proposals=None,
        detections=count,
        score_rule="heatmap",
        score_threshold=0.0,
        lowest_score_threshold=0.0,
    )
    return ProposalDetector(model, count), manifest
