"""The records that pass between the detector's parts; tensors only, fixed fields."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

from torch import Tensor


class FirstStageOutput(NamedTuple):
    """Dense predictions of the first stage, one entry per pyramid level, fine to coarse.

    A cell predicts A boxes, one for each of its anchors or one in all; the channels of the first
    box come first. What a box predicts, its place, is numbered cell * A + a within the level.
    """

    logits: list[Tensor]  # each (B, A * C, h, w), of P(object), C = 1, or of every class
    regressions: list[Tensor]  # each (B, A * D, h, w), as the stage's `BoxCoding` reads them
    centerness: list[Tensor] | None = None  # each (B, A, h, w), logits; None: the stage has none


class Proposals(NamedTuple):
    """First-stage boxes, best first; rows past the last one are zero."""

    boxes: Tensor  # (B, K, 4) xyxy, pixels of the resized picture, not clipped to it
    objectness: Tensor  # (B, K) in [0, 1], root of P(object)


class RawDetections(NamedTuple):
    """What the detector and its ONNX file return; rows past `num_detections` are zero."""

    num_detections: Tensor  # (B,) int32
    boxes: Tensor  # (B, D, 4) xyxy, pixels of the resized picture, clipped to it
    scores: Tensor  # (B, D) float32, descending
    classes: Tensor  # (B, D) int32, 0-based


@dataclass(frozen=True, kw_only=True)
class Target:
    """The ground truth of one picture, on the canvas."""

    boxes: Tensor  # (N, 4) xyxy, pixels of the resized picture
    classes: Tensor  # (N,) int64
    image_id: int = -1  # the dataset's own id, for messages
    seed: int | None = None  # of the draw of its RoIs; None: torch's global random state
