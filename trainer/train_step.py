"""One step of gradient descent, and what it needs: optimizer, precision, several processes."""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from .data.loader import Batch
from .detector import AnyDetector
from .distributed import Ranks
from .mean_weights import MeanWeights
from .structures import Target
from .train_config import TrainConfig
from .training_losses import DetectorLosses


class StepResult(NamedTuple):
    """What became of a step; the same in every process."""

    losses: dict[str, float]  # by name, of all the step's pictures
    norm: float  # of the gradient, before clipping
    good: bool  # losses and gradient were finite, or only fp16's scale was too large


class LossModule(nn.Module):
    """Pictures and targets to losses as one module, the form in which torch's DDP takes it."""

    def __init__(self, detector: AnyDetector, losses: DetectorLosses) -> None:
        super().__init__()
        self.detector = detector
        self.losses = losses

    def forward(
        self, images: Tensor, image_sizes: Tensor, targets: Sequence[Target]
    ) -> dict[str, Tensor]:
        """The named losses of a batch; see `DetectorLosses`."""
        return self.losses(self.detector, images, image_sizes, targets)


class Stepper:
    """Moves the weights of one detector."""

    def __init__(
        self, model: AnyDetector, losses: DetectorLosses, train: TrainConfig, ranks: Ranks
    ) -> None:
        """Take the detector on its device, and wrap it where several processes train."""
        self.model, self.train, self.ranks = model, train, ranks
        self.optimizer = build_optimizer(model, train)
        self.precision = pick_precision(train, ranks.device)
        self.scaler = torch.amp.GradScaler(ranks.device.type, enabled=self.precision == "fp16")
        self.mean = MeanWeights(model, train.ema_decay) if train.ema_decay else None
        self.module: nn.Module = LossModule(model, losses)
        if ranks.world > 1:
            self.module = DistributedDataParallel(self.module)

    def step(self, parts: Sequence[Batch], rate: float) -> StepResult:
        """Move the weights once.

        Without a finite loss and gradient they stay as they are, and so do BatchNorm's statistics.

        Args:
            parts: this process's pictures, in the parts that are computed one after another; the
                gradient is the mean of theirs.
            rate: the learning rate.
        """
        set_rate(self.optimizer, rate)
        buffers = [buffer.clone() for buffer in self.model.buffers()]
        self.optimizer.zero_grad(set_to_none=True)
        sums: dict[str, float] = {}
        for index, part in enumerate(parts):
            last = index == len(parts) - 1
            for name, value in self._add_gradient(part, 1 / len(parts), exchange=last).items():
                sums[name] = sums.get(name, 0.0) + value
        means = self.ranks.sum([value / self.ranks.world for value in sums.values()])
        losses = dict(zip(sums, means, strict=True))
        norm = self._clipped_norm()
        finite = all(math.isfinite(value) for value in losses.values())
        if finite and math.isfinite(norm):
            self._move()
            return StepResult(losses, norm, good=True)
        self._restore(buffers)
        scale_was_large = self._lower_scale()
        return StepResult(losses, norm, good=finite and scale_was_large)

    def _add_gradient(self, batch: Batch, weight: float, *, exchange: bool) -> dict[str, float]:
        """Add a part's gradient and return its weighted losses; `exchange` averages gradients."""
        place = self.ranks.device
        images, sizes = batch.images.to(place, non_blocking=True), batch.image_sizes.to(place)
        targets = [
            replace(
                target,
                boxes=target.boxes.to(place),
                classes=target.classes.to(place),
                seed=_roi_seed(self.train.seed, number),
            )
            for target, number in zip(batch.targets, batch.numbers, strict=True)
        ]
        with self._exchanged(exchange):
            with self._lowered():
                losses = self.module(images, sizes, targets)
            terms = torch.stack([loss.float() for loss in losses.values()]) * weight
            # Also where a loss is not finite: the other processes wait for our gradient.
            self.scaler.scale(terms.sum()).backward()  # type: ignore[no-untyped-call]
        return dict(zip(losses, terms.tolist(), strict=True))  # one transfer from the device

    def _exchanged(self, exchange: bool) -> AbstractContextManager[Any]:
        if exchange or not isinstance(self.module, DistributedDataParallel):
            return nullcontext()
        context: AbstractContextManager[Any] = self.module.no_sync()
        return context

    def _lowered(self) -> AbstractContextManager[Any]:
        """Lowers convolutions and matrix products; weights, losses and boxes stay fp32."""
        if self.precision == "fp32":
            return nullcontext()
        dtype = torch.bfloat16 if self.precision == "bf16" else torch.float16
        return torch.autocast(self.ranks.device.type, dtype)

    def _clipped_norm(self) -> float:
        """Clip the gradient, as a whole and then value by value; its norm before."""
        self.scaler.unscale_(self.optimizer)
        parameters = list(self.model.parameters())
        norm = float(nn.utils.clip_grad_norm_(parameters, self.train.clip_norm or math.inf))
        if self.train.clip_value:
            nn.utils.clip_grad_value_(parameters, self.train.clip_value)
        return norm

    def _move(self) -> None:
        self.scaler.step(self.optimizer)
        self.scaler.update()
        if self.mean is not None:
            self.mean.update(self.model)

    @torch.no_grad()
    def _restore(self, buffers: list[Tensor]) -> None:
        for buffer, before in zip(self.model.buffers(), buffers, strict=True):
            buffer.copy_(before)

    def _lower_scale(self) -> bool:
        """Let fp16's scale of the gradient fall; False where it cannot be what was wrong."""
        if not self.scaler.is_enabled():
            return False
        scale = self.scaler.get_scale()
        self.scaler.update()
        return scale > 1


def _roi_seed(seed: int, number: int) -> int:
    """Of a sample's RoIs, from the run's seed and the sample's number; torch takes 32 bits."""
    return random.Random(f"rois/{seed}/{number}").getrandbits(32)


def pick_precision(train: TrainConfig, place: torch.device) -> str:
    """The precision of convolutions; "auto" is bf16 where the device computes in it, else fp32.

    A CPU without bf16 instructions emulates them: `nano` then trains seven times slower.
    """
    if train.precision != "auto":
        return train.precision
    if place.type == "cuda":
        return "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "fp32"
    # An older torch cannot tell, and gets fp32.
    capabilities: dict[str, Any] = getattr(torch.cpu, "get_capabilities", dict)()
    return "bf16" if capabilities.get("avx512_bf16") else "fp32"


def build_optimizer(model: nn.Module, train: TrainConfig) -> torch.optim.SGD:
    """SGD with momentum; no weight decay on norms, biases and single scales."""
    parameters = [p for p in model.parameters() if p.requires_grad]
    groups: list[dict[str, list[Tensor] | float]] = [
        {"params": [p for p in parameters if p.ndim > 1], "weight_decay": train.weight_decay},
        {"params": [p for p in parameters if p.ndim <= 1], "weight_decay": 0.0},
    ]
    return torch.optim.SGD(groups, lr=train.base_lr, momentum=train.momentum, fused=True)


def set_rate(optimizer: torch.optim.Optimizer, rate: float) -> None:
    """Set the learning rate of every group of parameters."""
    for group in optimizer.param_groups:
        group["lr"] = rate
