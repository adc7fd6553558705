"""A detector whose backbone, neck, towers and fully connected layers compute in fp16.

The types are torch's own, so the exported graph has them and nothing is changed afterwards. Islands
stay fp32: pixels before normalisation, GroupNorm, what gives heat maps, distances, class logits and
box deltas, and all that follows from those (docs/precision.md).
"""

from __future__ import annotations

import copy
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_weights

from cn2.runtime.errors import Cn2Error
from cn2.trainer.detector import AnyDetector, Normalizer, TwoStageDetector
from cn2.trainer.layers import FrozenBatchNorm2d
from cn2.trainer.necks.bifpn import FusionNode

LARGEST = torch.finfo(torch.float16).max  # 65504


class PrecisionError(Cn2Error):
    """The detector cannot be lowered, or changes more by it than the budget allows."""


def lower(model: AnyDetector) -> AnyDetector:
    """A copy for export in fp16; what comes in and out of it are the types of the original.

    Norms are folded into their convolutions before anything is rounded, so that each weight is
    rounded once.

    Raises:
        PrecisionError: a weight is beyond what fp16 holds.
    """
    lowered = copy.deepcopy(model).eval().requires_grad_(False)
    fold_norms(lowered)
    largest = {name: _largest(weight) for name, weight in lowered.named_parameters()}
    lowered.preprocess = _HalfPictures.of(model.preprocess)
    _lower(lowered.backbone)
    _lower(lowered.neck)
    _lower_head(lowered.first_stage.head)
    if isinstance(lowered, TwoStageDetector):
        for stage in lowered.second_stage.stages:
            _lower_head(stage)
    _require_range(lowered, largest)
    return lowered


def _lower_head(head: nn.Module) -> None:
    """Lower towers and lists of layers; a layer by itself gives what the head predicts."""
    for name, part in list(head.named_children()):
        if isinstance(part, nn.Conv2d):
            setattr(head, name, _InFp32(part))
        elif isinstance(part, nn.Linear):
            setattr(head, name, _Pointwise(part))
        else:
            _lower(part)


def fold_norms(model: nn.Module) -> None:
    """Make each BatchNorm part of the convolution before it, in place and in inference's sense.

    Raises:
        ValueError: one does not directly follow a convolution in a Sequential.
    """
    for sequence in list(model.modules()):
        if not isinstance(sequence, nn.Sequential):
            continue
        for (_, conv), (name, norm) in pairwise(list(sequence.named_children())):
            if isinstance(conv, nn.Conv2d) and isinstance(norm, _NORMS):
                _fold(conv, norm)
                setattr(sequence, name, nn.Identity())
    for name, module in model.named_modules():
        if isinstance(module, _NORMS):
            raise ValueError(f"{name}: expected a norm after a convolution, got one after another")


_NORMS = (nn.BatchNorm2d, FrozenBatchNorm2d)


def _fold(conv: nn.Conv2d, norm: nn.BatchNorm2d | FrozenBatchNorm2d) -> None:
    assert norm.running_mean is not None
    assert norm.running_var is not None
    exact = [
        None if tensor is None else tensor.detach().double()
        for tensor in (
            conv.weight,
            conv.bias,
            norm.running_mean,
            norm.running_var,
            norm.weight,
            norm.bias,
        )
    ]
    weight, bias, mean, var, scale, shift = exact
    folded = fuse_conv_bn_weights(weight, bias, mean, var, norm.eps, scale, shift)  # type: ignore[arg-type]
    conv.weight, conv.bias = (nn.Parameter(p.float(), requires_grad=False) for p in folded)


def _largest(weight: Tensor) -> float:
    return float(weight.abs().max()) if weight.numel() else 0.0


def _require_range(lowered: nn.Module, largest: dict[str, float]) -> None:
    """Look at the largest of each weight as it was, where it has become half."""
    for name, weight in lowered.named_parameters():
        if weight.dtype == torch.float16 and not largest[name] <= LARGEST:
            raise PrecisionError(
                f"fp16: expected weights up to {LARGEST:g}, got {largest[name]:.4g} in {name}; "
                f"export with --precision fp32"
            )


def _lower(module: nn.Module) -> None:
    """Make parameters half, in place; norms stay in fp32, and so do weights of a fusion.

    What a fusion multiplies its inputs with is computed from its weights, and rounded by torch when
    it meets the features.
    """
    for name, child in module.named_children():
        if isinstance(child, nn.GroupNorm):
            setattr(module, name, _InFp32AndBack(child))
        else:
            _lower(child)
    if isinstance(module, FusionNode):
        return
    for parameter in module.parameters(recurse=False):
        parameter.data = parameter.data.half()


class _HalfPictures(Normalizer):
    """The first step of the network, its result rounded."""

    @classmethod
    def of(cls, normalizer: Normalizer) -> _HalfPictures:
        mean, std = (tuple(b.flatten().tolist()) for b in (normalizer.mean, normalizer.std))
        return cls(normalizer.color_order, mean, std)

    def forward(self, images: Tensor, image_sizes: Tensor) -> Tensor:
        return super().forward(images, image_sizes).half()


class _InFp32(nn.Module):
    """A layer that takes and gives fp32, given features of fp16."""

    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.layer = layer

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.layer(x.float())
        return y


class _InFp32AndBack(_InFp32):
    """The same, its result rounded to fp16."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x).half()


class _Pointwise(nn.Module):
    """A fully connected layer in fp32, as a 1x1 convolution.

    TensorRT-RTX builds an fp32 convolution for every GPU, an fp32 matrix product not for sm_75.
    """

    def __init__(self, linear: nn.Linear) -> None:
        super().__init__()
        self.weight = nn.Parameter(linear.weight.detach()[:, :, None, None], requires_grad=False)
        self.bias = linear.bias

    def forward(self, x: Tensor) -> Tensor:
        """(R, F) -> (R, outputs)."""
        y = nn.functional.conv2d(x.float()[:, :, None, None], self.weight, self.bias)
        return y.flatten(1)
