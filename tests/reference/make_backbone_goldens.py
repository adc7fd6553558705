"""Writes backbone_goldens.json: names, shapes and features of other projects' backbones.

    pip install --target /tmp/foreign --no-deps timm huggingface_hub efficientnet-lite-pytorch
    PYTHONPATH=/tmp/foreign:tests python -m reference.make_backbone_goldens

Their weights are replaced by `fill`, so that a test needs neither the packages nor any weights.
"""

from __future__ import annotations

import json
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

GOLDENS = Path(__file__).with_name("backbone_goldens.json")
INPUT_SIZE = (64, 96)
VALUES = 32  # of each feature that are kept, evenly spread


def fill(shapes: dict[str, list[int]]) -> dict[str, Tensor]:
    """Weights that depend on nothing but names and shapes, and keep activations near 1."""
    return {name: _filled(name, tuple(shape)) for name, shape in shapes.items()}


def _filled(name: str, shape: tuple[int, ...]) -> Tensor:
    rng = np.random.default_rng(zlib.crc32(name.encode()))
    if name.endswith("num_batches_tracked"):
        return torch.tensor(7)
    if len(shape) > 1:
        values = rng.standard_normal(shape, np.float32) * np.sqrt(2 / np.prod(shape[1:]))
    elif name.endswith(("running_var", "weight")):
        values = rng.uniform(0.5, 1.5, shape)
    else:
        values = rng.normal(0, 0.1, shape)
    return torch.from_numpy(values.astype(np.float32))


def picture() -> Tensor:
    """(1, 3, H, W) noise."""
    rng = np.random.default_rng(0)
    return torch.from_numpy(rng.normal(0, 1, (1, 3, *INPUT_SIZE)).astype(np.float32))


def spread(feature: Tensor) -> list[float]:
    """Some values of a feature, from its begin to its end."""
    flat = feature.flatten()
    places = torch.linspace(0, flat.numel() - 1, VALUES).round().long()
    return [float(value) for value in flat[places]]


def main() -> None:
    """Build both networks, fill them, run them."""
    from efficientnet_lite_pytorch import EfficientNet
    from timm.models.dla import dla34

    goldens = {
        "dla34": golden(dla34(), dla_features),
        "efficientnet-lite0": golden(EfficientNet.from_name("efficientnet-lite0"), lite_features),
    }
    GOLDENS.write_text(json.dumps(goldens, separators=(",", ":")) + "\n")


def golden(model: nn.Module, features: Any) -> dict[str, Any]:
    """Shapes by name, and values of the features of strides 8, 16 and 32."""
    shapes = {name: list(value.shape) for name, value in model.state_dict().items()}
    model.load_state_dict(fill(shapes))
    with torch.no_grad():
        found = features(model.eval(), picture())
    return {"shapes": shapes, "features": [spread(feature) for feature in found]}


def dla_features(model: Any, x: Tensor) -> list[Tensor]:
    """Of levels 3, 4 and 5."""
    x = model.level1(model.level0(model.base_layer(x)))
    found = []
    for level in (model.level2, model.level3, model.level4, model.level5):
        x = level(x)
        found.append(x)
    return found[1:]


def lite_features(model: Any, x: Tensor) -> list[Tensor]:
    """Behind blocks 4, 10 and 15, the last ones of their strides."""
    x = model._swish(model._bn0(model._conv_stem(x)))
    found = []
    for block in model._blocks:
        x = block(x)
        found.append(x)
    return [found[index] for index in (4, 10, 15)]


if __name__ == "__main__":
    main()
