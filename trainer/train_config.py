"""How a detector is trained, as frozen dataclasses."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated, Literal

from pydantic import Field

from .strict import Strict


@dataclass(frozen=True, kw_only=True)
class ShortEdgeConfig(Strict):
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
class ResizeCropConfig(Strict):
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
class TrainConfig(Strict):
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
