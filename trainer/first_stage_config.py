"""The first stages, or only stages, as frozen dataclasses."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

from pydantic import Field

from .strict import Strict


@dataclass(frozen=True, kw_only=True)
class ProposalFilter(Strict):
    """Which first-stage boxes go on."""

    pre_nms: int  # best locations kept per level and picture
    post_nms: int  # proposals kept per picture
    nms_iou: float = 0.9  # suppress above this


class FirstStageConfig(Strict):
    """What the config of every first stage can say of the parts around it."""

    @property
    def suppress_within_levels(self) -> bool:
        """Whether boxes of other levels do not suppress; a field where it can be chosen."""
        return False

    def check(self, levels: tuple[int, ...], alone: bool) -> None:
        """Fail if this cannot stand on these pyramid levels, or alone, without a second stage.

        Raises:
            ValueError: it cannot.
        """


@dataclass(frozen=True, kw_only=True)
class ExtraPositivesConfig(Strict):
    """Cells beside an object's centre become positive where they predict its box well already."""

    largest_loss: float = 0.2  # GIoU loss of the predicted box from which a cell is no positive
    # nor from the so-many-th smallest loss of its object on
    rank: Annotated[int, Field(ge=1, le=9)] = 9


@dataclass(frozen=True, kw_only=True)
class CenterNetConfig(FirstStageConfig):
    """CenterNet, arXiv 2103.07461, Sec. 5: class-agnostic before a second stage, else per class."""

    kind: Literal["centernet"] = "centernet"
    sizes_of_interest: tuple[tuple[float, float], ...]  # half box diagonal of each level, pixels
    convs: int = 4
    deformable: bool = False  # the last of these convolutions
    class_convs: int = 0  # of a tower of its own for the class heat maps; without a second stage
    norm_groups: int = 32
    prior: float = 0.01  # initial P(object) of every location
    regression_bias: float = 8.0  # initial distances, strides; positive, or the ReLU stays shut
    # Locations at or below never become proposals; without a second stage, the score threshold.
    objectness_floor: float = 1e-4
    test_filter: ProposalFilter = ProposalFilter(pre_nms=1000, post_nms=256)
    train_filter: ProposalFilter = ProposalFilter(pre_nms=4000, post_nms=2000)
    min_overlap: float = 0.8  # of the heat map's Gaussian radius
    min_radius: float = 4.0  # pixels
    focal_alpha: float = 0.25
    focal_gamma: float = 2.0
    focal_beta: float = 4.0
    ignore_high_negatives: float = 0.85  # negatives at or above this probability carry no loss
    heatmap_weight: float = 0.5
    regression_weight: float = 1.0
    extra_positives: ExtraPositivesConfig | None = None

    def check(self, levels: tuple[int, ...], alone: bool) -> None:
        """See `FirstStageConfig.check`."""
        if len(levels) != len(self.sizes_of_interest):
            raise ValueError(
                f"first_stage.sizes_of_interest: expected one per level {levels}, got "
                f"{len(self.sizes_of_interest)}"
            )
        if self.class_convs and not alone:
            raise ValueError(
                "first_stage.class_convs: expected 0 before a second stage, which knows the "
                f"classes, got {self.class_convs}"
            )


@dataclass(frozen=True, kw_only=True)
class AnchorConfig(Strict):
    """The boxes that a location is compared and moved from; their sizes follow the stride."""

    size: float  # root of the smallest anchors' area, strides
    octave_scales: Annotated[int, Field(ge=1)] = 1  # sizes, each 2^(1 / octave_scales) of the last
    height_per_width: tuple[float, ...] = (0.5, 1.0, 2.0)


@dataclass(frozen=True, kw_only=True)
class RetinaNetConfig(FirstStageConfig):
    """RetinaNet, arXiv 1708.02002: anchors, strict positives and negatives, the focal loss."""

    kind: Literal["retinanet"] = "retinanet"
    anchors: AnchorConfig = AnchorConfig(size=4.0, octave_scales=3)
    merged: bool = True  # one tower for both outputs; else each has its own
    convs: int = 4  # of each tower
    prior: float = 0.01  # initial probability of every anchor, of each class
    # Anchors at or below never become proposals; without a second stage, the score threshold.
    objectness_floor: float = 1e-4
    test_filter: ProposalFilter = ProposalFilter(pre_nms=1000, post_nms=256)
    train_filter: ProposalFilter = ProposalFilter(pre_nms=4000, post_nms=2000)
    positive_iou: float = 0.5  # with its object, from this on an anchor is positive
    negative_iou: float = 0.4  # below this it is negative; between the two it does not count
    focal_alpha: float = 0.25
    focal_gamma: float = 2.0
    smooth_l1_beta: float = 0.1  # deltas; from this error on the box loss is linear
    classification_weight: float = 1.0
    regression_weight: float = 1.0


@dataclass(frozen=True, kw_only=True)
class ATSSConfig(FirstStageConfig):
    """ATSS, arXiv 1912.02424: positives by an IoU threshold of each object's own; centerness."""

    kind: Literal["atss"] = "atss"
    anchor_size: float = 8.0  # side of the square anchor, strides
    delta_weights: tuple[float, float, float, float] = (10.0, 10.0, 5.0, 5.0)
    merged: bool = True  # one tower for both outputs; else each has its own
    convs: int = 4  # of each tower
    norm_groups: int = 32
    prior: float = 0.01  # initial probability of every location, of each class
    # Locations at or below never become proposals; without a second stage, the score threshold.
    objectness_floor: float = 1e-4
    test_filter: ProposalFilter = ProposalFilter(pre_nms=1000, post_nms=256)
    train_filter: ProposalFilter = ProposalFilter(pre_nms=4000, post_nms=2000)
    candidates: Annotated[int, Field(ge=1)] = 9  # nearest locations per level of an object
    focal_alpha: float = 0.25
    focal_gamma: float = 2.0
    classification_weight: float = 1.0
    regression_weight: float = 2.0
    centerness_weight: float = 1.0


@dataclass(frozen=True, kw_only=True)
class GFLConfig(FirstStageConfig):
    """GFL, arXiv 2006.04388: the likelihood is trained to be the IoU of the predicted box."""

    kind: Literal["gfl"] = "gfl"
    anchor_size: float = 8.0  # side of the square that positives are chosen by, strides
    # Sides are distributions over 0, 1, ... strides, up to this; None: one distance each.
    largest_distance: Annotated[int, Field(ge=1)] | None = None
    merged: bool = True  # one tower for both outputs; else each has its own
    convs: int = 4  # of each tower
    norm_groups: int = 32
    prior: float = 0.01  # initial probability of every location, of each class
    regression_bias: float = 4.0  # initial distances, strides, where sides are not distributions
    # Locations at or below never become proposals; without a second stage, the score threshold.
    objectness_floor: float = 1e-4
    test_filter: ProposalFilter = ProposalFilter(pre_nms=1000, post_nms=256)
    train_filter: ProposalFilter = ProposalFilter(pre_nms=4000, post_nms=2000)
    candidates: Annotated[int, Field(ge=1)] = 9  # nearest locations per level of an object
    quality_beta: float = 2.0  # power of |IoU - probability| in the quality focal loss
    quality_weight: float = 1.0
    regression_weight: float = 2.0
    distribution_weight: float = 0.25


@dataclass(frozen=True, kw_only=True)
class RPNConfig(FirstStageConfig):
    """Region proposal network, arXiv 1506.01497, on a pyramid: arXiv 1612.03144, Sec. 4.1.

    Its own rule is few positives, and a draw of anchors with cross-entropy. RetinaNet's: IoU 0.5
    and 0.4, `sampled` None, `loss` focal, `prior` 0.01.
    """

    kind: Literal["rpn"] = "rpn"
    anchors: AnchorConfig = AnchorConfig(size=8.0)
    convs: Annotated[int, Field(ge=1)] = 1
    prior: float = 0.5  # initial P(object) of every anchor
    objectness_floor: float = 0.0  # anchors at or below never become proposals
    test_filter: ProposalFilter = ProposalFilter(pre_nms=1000, post_nms=1000, nms_iou=0.7)
    train_filter: ProposalFilter = ProposalFilter(pre_nms=2000, post_nms=1000, nms_iou=0.7)
    suppress_within_levels: bool = True  # boxes of other levels do not suppress
    positive_iou: float = 0.7  # with its object, from this on an anchor is positive
    negative_iou: float = 0.3  # below this it is negative; between the two it does not count
    sampled: Annotated[int, Field(ge=1)] | None = 256  # anchors a picture that count; None: all
    positive_fraction: float = 0.5  # at most, of the sampled ones
    loss: Literal["cross-entropy", "focal"] = "cross-entropy"
    focal_alpha: float = 0.25
    focal_gamma: float = 2.0
    smooth_l1_beta: float = 0.0  # deltas; from this error on the box loss is linear
    classification_weight: float = 1.0
    regression_weight: float = 1.0

    def check(self, levels: tuple[int, ...], alone: bool) -> None:
        """See `FirstStageConfig.check`."""
        if alone:
            raise ValueError("second_stage: expected one behind an rpn, which knows no classes")


FirstStage = Annotated[
    CenterNetConfig | RetinaNetConfig | ATSSConfig | GFLConfig | RPNConfig,
    Field(discriminator="kind"),
]
