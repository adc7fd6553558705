"""The whole description of a detector and of its training, as frozen dataclasses.

A preset is a value of `Config`. What comes from outside (`--set`, a checkpoint) goes through
`config_from_dict`, which refuses unknown keys and names the nearest known one.
"""

from __future__ import annotations

import difflib
import json
from collections.abc import Sequence
from dataclasses import dataclass, field, fields, replace
from typing import Annotated, Any, ClassVar, Literal, get_args, get_type_hints

from pydantic import ConfigDict, Field, TypeAdapter, ValidationError

Interpolation = Literal["antialias", "linear"]
# Stages held as they are, from the picture on: 1 is all at stride 2 (ResNet: the stem), 2 also what
# is at stride 4 (ResNet: res2), and so on to 5, the whole backbone.
FrozenStages = Annotated[int, Field(ge=0, le=5)]


class _Strict:
    """Makes pydantic refuse unknown keys in the dataclass that inherits it."""

    __pydantic_config__: ClassVar[ConfigDict] = ConfigDict(extra="forbid")


@dataclass(frozen=True, kw_only=True)
class InputConfig(_Strict):
    """How a picture becomes the network's input."""

    color_order: Literal["RGB", "BGR"]
    pixel_mean: tuple[float, float, float]  # in color_order, grey levels 0..255
    pixel_std: tuple[float, float, float]  # in color_order
    short_edge: int  # pixels; the short side is resized to this ...
    long_edge: int  # ... unless the long side would exceed this
    divisor: int  # the canvas is padded to a multiple of this, pixels
    interpolation: Interpolation = "antialias"  # antialias: Pillow bilinear; linear: OpenCV


@dataclass(frozen=True, kw_only=True)
class ResNetConfig(_Strict):
    """ResNet with frozen BatchNorm."""

    kind: Literal["resnet"] = "resnet"
    depth: Literal[50, 101] = 50
    frozen_stages: FrozenStages = 2  # stem and res2 take no gradient
    stride_in: Literal["1x1", "3x3"] = "1x1"  # as Caffe's weights have it, or torchvision's


@dataclass(frozen=True, kw_only=True)
class DLAConfig(_Strict):
    """Deep layer aggregation, arXiv 1707.06484."""

    kind: Literal["dla"] = "dla"
    depth: Literal[34] = 34
    frozen_stages: FrozenStages = 0


@dataclass(frozen=True, kw_only=True)
class NanoConfig(_Strict):
    """A small residual network of ours for CPUs; widths are those of strides 2, 4, 8, 16, 32."""

    kind: Literal["nano"] = "nano"
    widths: tuple[int, int, int, int, int] = (24, 48, 96, 160, 160)
    hidden: tuple[int, int, int, int] = (24, 48, 80, 80)  # inner widths, strides 4..32
    blocks: tuple[int, int, int, int] = (1, 2, 2, 1)  # residual blocks at strides 4..32
    frozen_stages: FrozenStages = 0


@dataclass(frozen=True, kw_only=True)
class EfficientNetLiteConfig(_Strict):
    """EfficientNet-Lite, arXiv 1905.11946: small, and there are ImageNet weights for it."""

    kind: Literal["efficientnet-lite"] = "efficientnet-lite"
    variant: Literal[0] = 0
    frozen_stages: FrozenStages = 0


@dataclass(frozen=True, kw_only=True)
class FPNConfig(_Strict):
    """Feature pyramid, arXiv 1612.03144; levels above P5 are strided convolutions of P5."""

    kind: Literal["fpn"] = "fpn"
    levels: tuple[int, ...] = (3, 4, 5, 6, 7)
    channels: int = 256


@dataclass(frozen=True, kw_only=True)
class BiFPNConfig(_Strict):
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
class ProposalFilter(_Strict):
    """Which first-stage boxes go on."""

    pre_nms: int  # best locations kept per level and picture
    post_nms: int  # proposals kept per picture
    nms_iou: float = 0.9  # suppress above this


@dataclass(frozen=True, kw_only=True)
class CenterNetConfig(_Strict):
    """Class-agnostic CenterNet first stage, arXiv 2103.07461, Sec. 5."""

    kind: Literal["centernet"] = "centernet"
    sizes_of_interest: tuple[tuple[float, float], ...]  # half box diagonal of each level, pixels
    convs: int = 4
    norm_groups: int = 32
    prior: float = 0.01  # initial P(object) of every location
    regression_bias: float = 8.0  # initial distances, strides; positive, or the ReLU stays shut
    objectness_floor: float = 1e-4  # locations at or below never become proposals
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


@dataclass(frozen=True, kw_only=True)
class CascadeRCNNConfig(_Strict):
    """Cascade of box heads, arXiv 1712.00726; one entry of `ious` per stage."""

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
    score_rule: Literal["sqrt", "product"] = "sqrt"  # of the official code; of the paper
    score_threshold: float = 0.05
    nms_iou: float = 0.7
    detections: int = 100

    def __post_init__(self) -> None:
        if len(self.ious) != len(self.delta_weights):
            raise ValueError(
                f"cascade: expected as many delta_weights as ious, got {len(self.delta_weights)} "
                f"and {len(self.ious)}"
            )


Backbone = Annotated[
    ResNetConfig | DLAConfig | NanoConfig | EfficientNetLiteConfig, Field(discriminator="kind")
]
Neck = Annotated[FPNConfig | BiFPNConfig, Field(discriminator="kind")]


@dataclass(frozen=True, kw_only=True)
class ModelConfig(_Strict):
    """The detector's parts."""

    backbone: Backbone
    neck: Neck
    first_stage: CenterNetConfig
    second_stage: CascadeRCNNConfig

    def __post_init__(self) -> None:
        levels, sizes = self.neck.levels, self.first_stage.sizes_of_interest
        if len(levels) != len(sizes):
            raise ValueError(
                f"first_stage.sizes_of_interest: expected one per level {levels}, got {len(sizes)}"
            )
        if not set(self.second_stage.levels) <= set(levels):
            raise ValueError(
                f"second_stage.levels: expected some of {levels}, got {self.second_stage.levels}"
            )


@dataclass(frozen=True, kw_only=True)
class ShortEdgeConfig(_Strict):
    """Pictures keep their shape; the short edge is drawn per picture, arXiv 2103.07461, Sec. 5."""

    kind: Literal["short-edge"] = "short-edge"
    smallest: int  # pixels; drawn are smallest, smallest + step, ... up to largest
    largest: int
    step: int = 32  # pixels
    long_edge: int  # the short edge is less where the long one would exceed this, pixels

    def __post_init__(self) -> None:
        if not 1 <= self.smallest <= self.largest or min(self.step, self.long_edge) < 1:
            raise ValueError(
                "train.resize: expected 1 <= smallest <= largest, step and long_edge of 1 pixel "
                f"or more, got {self.smallest}, {self.largest}, {self.step}, {self.long_edge}"
            )


@dataclass(frozen=True, kw_only=True)
class ResizeCropConfig(_Strict):
    """A square cut out of the randomly scaled picture; EfficientDet, arXiv 1911.09070, Sec. 5.1."""

    kind: Literal["resize-crop"] = "resize-crop"
    size: int = 640  # side of the square, pixels; 640, 896 and 1280 in the published models
    scale: tuple[float, float] = (0.1, 2.0)  # of the picture that just fits into the square

    def __post_init__(self) -> None:
        if self.size < 1 or not 0 < self.scale[0] <= self.scale[1]:
            raise ValueError(
                "train.resize: expected a size of 1 pixel or more and 0 < scale[0] <= scale[1], "
                f"got {self.size} and {self.scale}"
            )


Resize = Annotated[ShortEdgeConfig | ResizeCropConfig, Field(discriminator="kind")]


@dataclass(frozen=True, kw_only=True)
class TrainConfig(_Strict):
    """How the detector is trained; the paper's Section 5 unless a preset says otherwise."""

    batch: int = 16  # pictures of a step, over all processes and all accumulated parts
    accumulate: int = 1  # parts of a step that are computed one after another, to save memory
    steps: int = 90_000
    base_lr: float = 0.02  # for `lr_batch` pictures a step; it grows in proportion to `batch`
    lr_batch: int = 16
    momentum: float = 0.9
    weight_decay: float = 1e-4
    warmup_steps: int = 1000
    warmup_factor: float = 1e-3  # of the learning rate, at step 0
    schedule: Literal["steps", "cosine"] = "steps"
    milestones: tuple[float, ...] = (2 / 3, 8 / 9)  # of a cycle; the rate falls tenfold at each
    cycles: int = 1  # times that the schedule, warm-up apart, runs within `steps`
    clip_norm: float = 1.0  # largest gradient norm, over all parameters; 0: any
    clip_value: float = 0.0  # largest single value of the gradient; 0: any
    ema_decay: float = 0.0  # of the mean weights that are scored and kept; 0: none are kept
    precision: Literal["auto", "fp32", "bf16", "fp16"] = "fp32"  # of convolutions; losses in fp32
    sync_batch_norm: bool = False  # BatchNorm's statistics over all GPUs, where there are several
    resize: Resize = field(
        default_factory=lambda: ShortEdgeConfig(smallest=640, largest=800, long_edge=1333)
    )
    flip: float = 0.5  # probability of a horizontal flip
    flip_vertical: float = 0.0  # probability of a vertical one
    workers: int = 2  # processes that read pictures; 0: the training process does
    prefetch: int = 2  # batches that each of them prepares ahead
    cache_mb: int = 0  # memory for decoded pictures, all workers together; 0: read them anew
    broken_limit: float = 0.2  # share of the pictures that may be unreadable before the run stops
    seed: int = 0
    log_every: int = 20  # steps
    eval_every: int = 5000  # steps; 0: only at the end
    save_every: int = 1000  # steps
    keep: int = 2  # training states kept, the last ones
    watch: bool = True  # TensorBoard events with sample pictures, and a picture of the curves
    patience: int = 0  # scorings without a better AP before the run stops; 0: it never does
    max_bad_steps: int = 10  # steps with a non-finite loss in a row before the run stops

    def __post_init__(self) -> None:
        positive = ("batch", "accumulate", "lr_batch", "cycles", "prefetch", "log_every")
        for name in (*positive, "save_every", "keep", "max_bad_steps"):
            if getattr(self, name) < 1:
                raise ValueError(f"train.{name}: expected at least 1, got {getattr(self, name)}")
        natural = ("steps", "warmup_steps", "workers", "eval_every", "cache_mb", "patience")
        for name in natural:
            if getattr(self, name) < 0:
                raise ValueError(f"train.{name}: expected 0 or more, got {getattr(self, name)}")
        if min(self.clip_norm, self.clip_value) < 0:
            raise ValueError(
                "train.clip_norm, train.clip_value: expected 0 or more, "
                f"got {self.clip_norm}, {self.clip_value}"
            )
        for name in ("flip", "flip_vertical", "broken_limit"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"train.{name}: expected 0 to 1, got {getattr(self, name)}")
        if not 0 <= self.ema_decay < 1:
            raise ValueError(f"train.ema_decay: expected 0 <= decay < 1, got {self.ema_decay}")
        if self.batch % self.accumulate:
            raise ValueError(
                f"train.accumulate: expected a divisor of train.batch {self.batch}, "
                f"got {self.accumulate}"
            )


@dataclass(frozen=True, kw_only=True)
class Config(_Strict):
    """A detector, its input and its training."""

    preset: str
    class_names: tuple[str, ...]
    category_ids: tuple[int, ...]
    input: InputConfig
    model: ModelConfig
    train: TrainConfig = field(default_factory=TrainConfig)

    def __post_init__(self) -> None:
        if len(self.class_names) != len(self.category_ids):
            raise ValueError(
                f"category_ids: expected one per class ({len(self.class_names)}), "
                f"got {len(self.category_ids)}"
            )
        if not self.class_names:
            raise ValueError("class_names: expected at least one class, got none")


def config_to_dict(config: Config) -> dict[str, Any]:
    """The config as JSON-ready nested dicts."""
    values: dict[str, Any] = TypeAdapter(Config).dump_python(config, mode="json")
    return values


def config_from_dict(values: dict[str, Any]) -> Config:
    """Read a config back from nested dicts, strictly.

    Raises:
        ValueError: an unknown key (with the nearest known one), a missing key, a wrong type or a
            broken invariant; the message begins with the key's dotted path.
    """
    try:
        return TypeAdapter(Config).validate_json(json.dumps(values), strict=True)
    except ValidationError as error:
        raise ValueError(_first_error(error, values)) from None


def apply_overrides(config: Config, overrides: Sequence[str]) -> Config:
    """Replace single values, each given as `key.path=value`.

    Args:
        config: the config to start from; it is not changed.
        overrides: such as `train.base_lr=0.01`; a value is JSON, or else taken as text.
    Raises:
        ValueError: no `=`, an unknown key (with the nearest known one), or an unfit value.
    """
    values = config_to_dict(config)
    for override in overrides:
        path, equals, text = override.partition("=")
        if not equals:
            raise ValueError(f"{override}: expected key.path=value, got no '='")
        *parents, last = path.strip().split(".")
        table = values
        for depth, key in enumerate(parents):
            table = _known(table, key, ".".join(parents[: depth + 1]))
        _known(table, last, path.strip())
        table[last] = _parse(text.strip())
    return config_from_dict(values)


def with_classes(config: Config, names: Sequence[str], category_ids: Sequence[int]) -> Config:
    """The same detector for other classes; `category_ids` are the dataset's own, in that order."""
    return replace(config, class_names=tuple(names), category_ids=tuple(category_ids))


def _known(table: Any, key: str, path: str) -> Any:
    """The entry of a table, or an error that names the nearest key."""
    if not isinstance(table, dict):
        raise ValueError(f"{path}: expected a key of a group of settings, got one below a value")
    if key not in table:
        raise ValueError(_unknown_key(path, key, list(table)))
    return table[key]


def _unknown_key(path: str, key: str, known: Sequence[str]) -> str:
    near = difflib.get_close_matches(key, known, n=1, cutoff=0.6)
    hint = f"did you mean {near[0]}?" if near else f"expected one of {', '.join(sorted(known))}"
    return f"{path}: unknown key; {hint}"


def _parse(text: str) -> Any:
    try:
        return json.loads(text)
    except json.JSONDecodeError:
        return text


def _first_error(error: ValidationError, values: dict[str, Any]) -> str:
    """One line for the first thing wrong: dotted path, what was expected, what came."""
    first = error.errors()[0]
    keys = _without_union_tags(first["loc"], values)
    path = ".".join(keys)
    if first["type"] == "unexpected_keyword_argument":
        return _unknown_key(path, keys[-1], [f.name for f in fields(_class_of(keys[:-1], values))])
    message = first["msg"].removeprefix("Value error, ")
    if first["type"] == "value_error":
        return message
    if first["type"].startswith("missing"):
        return f"{path}: expected a value, got none"
    return f"{path}: {message}, got {first['input']!r}"


def _without_union_tags(location: tuple[int | str, ...], values: Any) -> list[str]:
    """The keys that lead to an error, without the tags of unions that pydantic puts between."""
    keys: list[str] = []
    for part in location:
        if isinstance(values, dict) and part not in values and values.get("kind") == part:
            continue
        keys.append(str(part))
        values = values.get(part) if isinstance(values, dict) else None
    return keys


def _class_of(keys: Sequence[str], values: dict[str, Any]) -> type[Any]:
    """The config class that the group of settings under these keys belongs to."""
    found: type[Any] = Config
    for key in keys:
        values = values[key]
        hint = get_type_hints(found)[key]
        options = get_args(hint) or (hint,)
        found = next(o for o in options if getattr(o, "kind", None) == values.get("kind"))
    return found
