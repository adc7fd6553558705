"""Detectors with weights that find something, their exported files, canvases of noise."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from cn2.export.describe import Origin
from cn2.export.onnx_file import export_onnx
from cn2.runtime.backends.base import RawDetections
from cn2.runtime.backends.onnxruntime import OnnxRuntimeBackend
from cn2.runtime.manifest import OperatorForm, Precision
from cn2.trainer.build import build_detector
from cn2.trainer.config import Config
from cn2.trainer.deformable import OFFSETS
from cn2.trainer.detector import AnyDetector, TwoStageDetector
from cn2.trainer.layers import OffsetConv2d

ORIGIN = Origin(checkpoint_sha256="ab" * 32, license="CC0-1.0", provenance="seed 0")


@dataclass(frozen=True, kw_only=True)
class Exported:
    """A detector and the file made of it."""

    model: AnyDetector
    config: Config
    path: Path

    @property
    def backend(self) -> OnnxRuntimeBackend:
        return OnnxRuntimeBackend.open(self.path, device="cpu")

    def opened(self, *, fused: bool) -> OnnxRuntimeBackend:
        """By the kernels of fused operators, or by their bodies."""
        return OnnxRuntimeBackend.open(self.path, device="cpu", fused=fused)

    def torch_run(
        self, images: NDArray[np.uint8], sizes: NDArray[np.int32], threshold: float | None = None
    ) -> RawDetections:
        """What torch finds on the same canvases."""
        value = None if threshold is None else torch.tensor(threshold)
        with torch.inference_mode():
            found = self.model(torch.from_numpy(images), torch.from_numpy(sizes), value)
        return RawDetections(*(output.numpy() for output in found))


def lively_detector(config: Config, seed: int = 0) -> AnyDetector:
    """A fresh detector whose output layers are scaled so that logits and boxes vary."""
    torch.manual_seed(seed)
    model = build_detector(config).eval()
    _stir_offsets(model)
    head = model.first_stage.head
    _spread_at_first_call(head.regression, 1.5)
    two_stages = isinstance(model, TwoStageDetector)
    name = next(name for name in ("heatmap", "class_heatmaps", "logits") if hasattr(head, name))
    _spread_at_first_call(getattr(head, name), 1.5 if two_stages else 2.0)
    if two_stages:
        for stage in model.second_stage.stages:
            _spread_at_first_call(stage.class_logits, 2.0)
            _spread_at_first_call(stage.deltas, 2.0)
    images, sizes = canvases(1, 192, 256)
    with torch.no_grad():
        model(torch.from_numpy(images), torch.from_numpy(sizes))
    return model


def _stir_offsets(model: nn.Module) -> None:
    """Give deformable convolutions offsets, and masks near 1: at 1/2 each, nothing is left."""
    for layer in model.modules():
        if isinstance(layer, OffsetConv2d):
            nn.init.normal_(layer.weight, std=0.1)
            if layer.bias is not None:
                nn.init.constant_(layer.bias[OFFSETS:], 3.0)


def _spread_at_first_call(layer: nn.Module, spread: float) -> None:
    """Scale a layer's weight so that what it adds to its bias deviates by `spread`."""

    def scale(module: nn.Module, _: Any, output: Tensor) -> Tensor:
        handle.remove()
        factor = spread / output.std()
        module.weight.mul_(factor)  # type: ignore[operator, union-attr]
        return output * factor

    handle = layer.register_forward_hook(scale)


def export_to(
    folder: Path,
    model: AnyDetector,
    config: Config,
    ops: OperatorForm = "standard",
    precision: Precision = "fp32",
) -> Exported:
    """Export to a file of the preset's name, any canvas, any batch."""
    path = folder / f"{config.preset}-{ops}-{precision}.onnx"
    export_onnx(model, config, path, origin=ORIGIN, ops=ops, precision=precision)
    return Exported(model=model, config=config, path=path)


def canvases(
    batch: int, height: int, width: int, seed: int = 0
) -> tuple[NDArray[np.uint8], NDArray[np.int32]]:
    """Different pictures of different sizes on one canvas; outside them any values."""
    rng = np.random.default_rng(seed)
    coarse = rng.integers(0, 256, (batch, height // 8, width // 8, 3))
    images = coarse.repeat(8, axis=1).repeat(8, axis=2) * 0.7 + rng.integers(
        0, 76, (batch, height, width, 3)
    )
    heights = rng.integers(height // 2, height + 1, batch)
    widths = rng.integers(width // 2, width + 1, batch)
    return images.astype(np.uint8), np.stack([heights, widths], axis=1).astype(np.int32)
