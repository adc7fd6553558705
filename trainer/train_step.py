"""One step of gradient descent, and what it needs: optimizer, precision, device."""

from __future__ import annotations

import math
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from cn2.runtime.errors import BackendUnavailableError

from .config import TrainConfig
from .data.loader import Batch
from .detector import TwoStageDetector
from .training_losses import DetectorLosses


def train_step(
    model: TwoStageDetector,
    optimizer: torch.optim.Optimizer,
    losses_of: DetectorLosses,
    batch: Batch,
    train: TrainConfig,
) -> tuple[dict[str, float], float]:
    """Move the weights once, at the optimizer's rate.

    Without a finite loss and gradient they stay as they are, and so do BatchNorm's statistics.

    Returns:
        The losses by name, and the gradient's norm before clipping: nan where it was not computed.
    """
    place = next(model.parameters()).device
    images, sizes = batch.images.to(place, non_blocking=True), batch.image_sizes.to(place)
    targets = [
        replace(target, boxes=target.boxes.to(place), classes=target.classes.to(place))
        for target in batch.targets
    ]
    buffers = [buffer.clone() for buffer in model.buffers()]
    with _precision(train, place):
        losses = losses_of(model, images, sizes, targets)
    terms = torch.stack([loss.float() for loss in losses.values()])
    values = dict(zip(losses, terms.tolist(), strict=True))  # one transfer from the device
    optimizer.zero_grad(set_to_none=True)
    norm = math.nan
    if all(math.isfinite(value) for value in values.values()):
        terms.sum().backward()  # type: ignore[no-untyped-call]
        norm = float(nn.utils.clip_grad_norm_(model.parameters(), train.clip_norm))
    if math.isfinite(norm):
        optimizer.step()
    else:
        _restore(model, buffers)
    return values, norm


@torch.no_grad()
def _restore(model: nn.Module, buffers: list[Tensor]) -> None:
    for buffer, before in zip(model.buffers(), buffers, strict=True):
        buffer.copy_(before)


def _precision(train: TrainConfig, place: torch.device) -> AbstractContextManager[Any]:
    """bf16 lowers convolutions and matrix products; weights, losses and boxes stay fp32."""
    if pick_precision(train, place) == "fp32":
        return nullcontext()
    return torch.autocast(place.type, torch.bfloat16)


def pick_precision(train: TrainConfig, place: torch.device) -> str:
    """The precision of convolutions; "auto" is bf16 where the device computes in it, else fp32.

    A CPU without bf16 instructions emulates them: `nano` then trains seven times slower.
    """
    if train.precision != "auto":
        return train.precision
    if place.type == "cuda":
        return "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "fp32"
    capabilities = getattr(torch.cpu, "get_capabilities", dict)()  # an older torch has none
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


def pick_device(device: str) -> torch.device:
    """The device to train on; "auto" takes the GPU where torch sees one.

    Raises:
        BackendUnavailableError: CUDA was asked for by name and is not here.
        ValueError: not a device name.
    """
    if device == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        place = torch.device(device)
    except RuntimeError:
        raise ValueError(f"device: expected auto, cpu or cuda, got {device!r}") from None
    if place.type == "cuda" and not torch.cuda.is_available():
        raise BackendUnavailableError(f"device {device}: torch sees no GPU; use --device cpu")
    return place
