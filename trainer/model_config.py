"""The detector's parts as frozen dataclasses: backbone, neck, first stage, second stage."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal, NamedTuple

from pydantic import Field

from .first_stage_config import (
    AnchorConfig,
    ATSSConfig,
    CenterNetConfig,
    ExtraPositivesConfig,
    FirstStage,
    GFLConfig,
    ProposalFilter,
    RetinaNetConfig,
    RPNConfig,
)
from .strict import Strict

__all__ = [
    "ATSSConfig",
    "AnchorConfig",
    "Backbone",
    "BiFPNConfig",
    "CascadeRCNNConfig",
    "CenterNetConfig",
    "DLAConfig",
    "DLAUpConfig",
    "DetectionLimits",
    "EfficientNetLiteConfig",
    "ExtraPositivesConfig",
    "FPNConfig",
    "FederatedConfig",
    "FirstStage",
    "GFLConfig",
    "ModelConfig",
    "NanoConfig",
    "Neck",
    "ProposalFilter",
    "RPNConfig",
    "Res2NetConfig",
    "ResNetConfig",
    "RetinaNetConfig",
]

# Stages held as they are, from the picture on: 1 is all at stride 2 (ResNet: the stem), 2 also what
# is at stride 4 (ResNet: res2), and so on to 5, the whole backbone.
FrozenStages = Annotated[int, Field(ge=0, le=5)]
# Stages, counted so, with modulated deformable convolutions, arXiv 1811.11168, for their 3x3 ones.
DeformableStages = tuple[Literal[2, 3, 4, 5], ...]


@dataclass(frozen=True, kw_only=True)
class ResNetConfig(Strict):
    """ResNet, or with groups ResNeXt (arXiv 1611.05431), with frozen BatchNorm."""

    kind: Literal["resnet"] = "resnet"
    depth: Literal[50, 101] = 50
    frozen_stages: FrozenStages = 2  # stem and res2 take no gradient
    stride_in: Literal["1x1", "3x3"] = "1x1"  # as Caffe's weights have it, or torchvision's
    groups: int = 1  # of the 3x3 convolutions
    group_width: int = 64  # channels of each group in res2, twice as many in each later stage
    deformable_stages: DeformableStages = ()


@dataclass(frozen=True, kw_only=True)
class Res2NetConfig(Strict):
    """Res2Net, arXiv 1904.01169, with frozen BatchNorm."""

    kind: Literal["res2net"] = "res2net"
    depth: Literal[50, 101] = 101
    frozen_stages: FrozenStages = 2  # stem and res2 take no gradient
    splits: Annotated[int, Field(ge=2)] = 4
    split_width: int = 26  # channels of each split in res2, twice as many in each later stage
    deformable_stages: DeformableStages = ()


@dataclass(frozen=True, kw_only=True)
class DLAConfig(Strict):
    """Deep layer aggregation, arXiv 1707.06484."""

    kind: Literal["dla"] = "dla"
    depth: Literal[34] = 34
    frozen_stages: FrozenStages = 0


@dataclass(frozen=True, kw_only=True)
class NanoConfig(Strict):
    """A small residual network of ours for CPUs; widths are those of strides 2, 4, 8, 16, 32."""

    kind: Literal["nano"] = "nano"
    widths: tuple[int, int, int, int, int] = (24, 48, 96, 160, 160)
    hidden: tuple[int, int, int, int] = (24, 48, 80, 80)  # inner widths, strides 4..32
    blocks: tuple[int, int, int, int] = (1, 2, 2, 1)  # residual blocks at strides 4..32
    frozen_stages: FrozenStages = 0


@dataclass(frozen=True, kw_only=True)
class EfficientNetLiteConfig(Strict):
    """EfficientNet-Lite, arXiv 1905.11946: small, and there are ImageNet weights for it."""

    kind: Literal["efficientnet-lite"] = "efficientnet-lite"
    variant: Literal[0] = 0
    frozen_stages: FrozenStages = 0


@dataclass(frozen=True, kw_only=True)
class FPNConfig(Strict):
    """Feature pyramid, arXiv 1612.03144; levels above P5 are made of it one after another."""

    kind: Literal["fpn"] = "fpn"
    levels: tuple[int, ...] = (3, 4, 5, 6, 7)
    channels: int = 256
    coarser: Literal["convolution", "subsampling"] = "convolution"  # strided; every other cell


@dataclass(frozen=True, kw_only=True)
class BiFPNConfig(Strict):
    """Weighted bidirectional pyramid, EfficientDet, arXiv 1911.09070, Sec. 3.

    The two flavours differ in pooling and lateral convolutions; docs/differences.md.
    """

    kind: Literal["bifpn"] = "bifpn"
    flavour: Literal["efficientdet", "fcos"]
    levels: tuple[int, ...]
    channels: int = 160
    repeats: int = 3
    norm_groups: int = 32


@dataclass(frozen=True, kw_only=True)
class DLAUpConfig(Strict):
    """DLA's up path, arXiv 1707.06484, Sec. 4.2, with deformable convolutions: one fine level."""

    kind: Literal["dla-up"] = "dla-up"
    levels: tuple[Literal[2, 3, 4]] = (2,)
    channels: int = 64  # as many as the backbone has at that level


@dataclass(frozen=True, kw_only=True)
class FederatedConfig(Strict):
    """Judge each batch on few classes: for data where only some were looked for in a picture."""

    classes: int = 50  # those that occur in the batch, and others drawn up to this many
    frequency_power: float = 0.5  # drawn in proportion to this power of a class's pictures


@dataclass(frozen=True, kw_only=True)
class CascadeRCNNConfig(Strict):
    """Cascade of box heads, arXiv 1712.00726; one entry of `ious` per stage, one: Faster R-CNN."""

    kind: Literal["cascade"] = "cascade"
    levels: tuple[int, ...]  # pyramid levels that RoIs are pooled from
    ious: tuple[float, ...] = (0.6, 0.7, 0.8)
    delta_weights: tuple[tuple[float, float, float, float], ...] = (
        (10.0, 10.0, 5.0, 5.0),
        (20.0, 20.0, 10.0, 10.0),
        (30.0, 30.0, 15.0, 15.0),
    )
    fc_channels: tuple[int, ...] = (1024, 1024)
    pool_size: int = 7
    canonical_level: int = 4
    canonical_size: float = 224.0  # pixels
    sampling_ratio: int = 0  # 0: ceil(RoI size / pool size) samples per bin
    rois_per_image: int = 512
    positive_fraction: float = 0.25
    per_class_boxes: bool = False  # a box for each class, else one for all; of one stage alone
    classifier: Literal["softmax", "sigmoid"] = "softmax"  # classes exclude one another or not
    class_prior: float = 0.01  # initial probability of each class, of sigmoids
    federated: FederatedConfig | None = None  # of the class loss of sigmoids
    # As the official code joins both stages' scores, or the paper; class: the second stage's alone.
    score_rule: Literal["sqrt", "product", "class"] = "sqrt"
    score_threshold: float = 0.05
    nms_iou: float = 0.7
    detections: int = 100

    def __post_init__(self) -> None:
        if len(self.ious) != len(self.delta_weights):
            raise ValueError(
                f"cascade: expected as many delta_weights as ious, got {len(self.delta_weights)} "
                f"and {len(self.ious)}"
            )
        if self.per_class_boxes and len(self.ious) > 1:
            raise ValueError(
                f"cascade.per_class_boxes: expected one stage, got {len(self.ious)}; a next one "
                "would not know which class's box to pool"
            )
        if self.federated is not None and self.classifier != "sigmoid":
            raise ValueError(
                f"cascade.federated: expected classifier sigmoid, got {self.classifier}; softmax "
                "cannot leave classes out"
            )


Backbone = Annotated[
    ResNetConfig | Res2NetConfig | DLAConfig | NanoConfig | EfficientNetLiteConfig,
    Field(discriminator="kind"),
]
Neck = Annotated[FPNConfig | BiFPNConfig | DLAUpConfig, Field(discriminator="kind")]


class DetectionLimits(NamedTuple):
    """Which detections a detector returns."""

    score_threshold: float  # scores at or below are left out
    nms_iou: float  # of two boxes of a class that overlap by more the worse one is left out
    detections: int  # most per picture


@dataclass(frozen=True, kw_only=True)
class ModelConfig(Strict):
    """The detector's parts."""

    backbone: Backbone
    neck: Neck
    first_stage: FirstStage
    second_stage: CascadeRCNNConfig | None  # None: the first stage knows the classes
    # What a proposal without an object trains: both stages, as in practice, or only the one whose
    # lower bound of log P(background) is the larger; arXiv 2103.07461, Sec. 4.
    background_bounds: Literal["both", "larger"] = "both"

    @property
    def limits(self) -> DetectionLimits:
        """Which detections the whole detector returns, whatever its last stage."""
        first, second = self.first_stage, self.second_stage
        if second is None:
            filter = first.test_filter
            return DetectionLimits(first.objectness_floor, filter.nms_iou, filter.post_nms)
        return DetectionLimits(second.score_threshold, second.nms_iou, second.detections)

    def __post_init__(self) -> None:
        levels = self.neck.levels
        self.first_stage.check(levels, alone=self.second_stage is None)
        if self.second_stage is not None and not set(self.second_stage.levels) <= set(levels):
            raise ValueError(
                f"second_stage.levels: expected some of {levels}, got {self.second_stage.levels}"
            )
        if self.background_bounds == "larger":
            second = self.second_stage
            if second is None or second.classifier != "softmax":
                raise ValueError(
                    "background_bounds: expected both without a second stage that gives "
                    "P(background), by softmax, got larger"
                )
