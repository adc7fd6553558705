"""ImageNet weights of other projects, held against what those projects compute with them."""

from __future__ import annotations

import json
import re
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
import torchvision
from safetensors.torch import save_file
from torch import Tensor, nn

from cn2.runtime.errors import ModelFormatError
from cn2.trainer.backbones.dla import DLA34
from cn2.trainer.backbones.efficientnet_lite import EfficientNetLite
from cn2.trainer.backbones.nano import NanoBackbone
from cn2.trainer.backbones.resnet import ResNet
from cn2.trainer.config import apply_overrides
from cn2.trainer.presets import PRESETS
from cn2.trainer.pretrained import load_backbone, settings_for_pretrained
from reference.make_backbone_goldens import GOLDENS, fill, picture, spread

LITE_HEAD = [
    *("_bn1.bias", "_bn1.running_mean", "_bn1.running_var", "_bn1.weight"),
    *("_conv_head.weight", "_fc.bias", "_fc.weight"),
]


def saved(folder: Path, tensors: dict[str, Tensor], name: str = "weights.pth") -> Path:
    path = folder / name
    torch.save(tensors, path)
    return path


@cache
def _filled(kind: str) -> dict[str, Tensor]:
    return fill(json.loads(GOLDENS.read_text())[kind]["shapes"])


def filled(kind: str) -> dict[str, Tensor]:
    return dict(_filled(kind))


def torchvision_features(model: Any, x: Tensor) -> list[Tensor]:
    x = model.maxpool(model.relu(model.bn1(model.conv1(x))))
    found = []
    for layer in (model.layer1, model.layer2, model.layer3, model.layer4):
        x = layer(x)
        found.append(x)
    return found


@torch.no_grad()
def test_resnet_50_of_torchvision(tmp_path: Path) -> None:
    with torch.device("meta"):
        theirs = torchvision.models.resnet50().eval()
    shapes = {name: list(value.shape) for name, value in theirs.state_dict().items()}
    weights = fill(shapes)
    for name in weights:
        if re.search(r"bn3\.weight|downsample\.1\.weight", name):
            weights[name] = weights[name] * 0.5  # the sum of a block and its shortcut stays calm
    theirs.load_state_dict(weights, assign=True)
    ours = ResNet(50, 2, "3x3").eval()
    assert load_backbone(ours, saved(tmp_path, weights)) == ["fc.bias", "fc.weight"]
    for mine, expected in zip(
        ours(picture()), torchvision_features(theirs, picture()), strict=True
    ):
        assert expected.abs().max() > 0.1
        torch.testing.assert_close(mine, expected, rtol=1e-4, atol=1e-4 * float(expected.std()))


def test_names_of_resnet_101(tmp_path: Path) -> None:
    with torch.device("meta"):
        theirs = torchvision.models.resnet101().state_dict()
    tensors = {name: torch.tensor(0.5).expand(value.shape) for name, value in theirs.items()}
    backbone = ResNet(101, stride_in="3x3")
    assert load_backbone(backbone, saved(tmp_path, tensors)) == ["fc.bias", "fc.weight"]
    assert all((value == 0.5).all() for value in backbone.state_dict().values())


def test_resnext_101_leaves_offsets_at_zero(tmp_path: Path) -> None:
    with torch.device("meta"):
        theirs = torchvision.models.resnext101_32x8d().state_dict()
    tensors = {name: torch.tensor(0.5).expand(value.shape) for name, value in theirs.items()}
    backbone = ResNet(101, 0, "3x3", groups=32, group_width=8, deformable_stages=(4, 5))
    assert load_backbone(backbone, saved(tmp_path, tensors)) == ["fc.bias", "fc.weight"]
    values = {name: value.unique().tolist() for name, value in backbone.state_dict().items()}
    offsets = {name for name in values if ".offset." in name}
    assert len(offsets) == 2 * (23 + 3)
    assert all(value == ([0.0] if name in offsets else [0.5]) for name, value in values.items())


@pytest.mark.parametrize(
    ("kind", "make", "left"),
    [
        ("dla34", DLA34, ["fc.bias", "fc.weight"]),
        (
            "efficientnet-lite0",
            EfficientNetLite,
            LITE_HEAD,
        ),
    ],
)
@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
@torch.no_grad()
def test_features_of_other_projects(
    kind: str, make: type[nn.Module], left: list[str], suffix: str, tmp_path: Path
) -> None:
    backbone = make().eval()
    path = tmp_path / f"weights{suffix}"
    (torch.save if suffix == ".pth" else save_file)(filled(kind), path)
    assert load_backbone(backbone, path) == left
    golden = json.loads(GOLDENS.read_text())[kind]["features"]
    for feature, expected in zip(backbone(picture())[1:], golden, strict=True):
        values = torch.tensor(expected)
        found = torch.tensor(spread(feature))
        torch.testing.assert_close(found, values, rtol=1e-4, atol=1e-4 * float(values.std()))


def test_every_tensor_is_replaced(tmp_path: Path) -> None:
    """Also running statistics; but for projections that no file need have and nothing uses."""
    backbone = DLA34()
    before = {name: value.clone() for name, value in backbone.state_dict().items()}
    load_backbone(backbone, saved(tmp_path, filled("dla34")))
    same = [name for name, value in backbone.state_dict().items() if value.equal(before[name])]
    kept = [name for name in same if "num_batches" not in name]
    assert {name.partition(".project.")[0] for name in kept} == {"trees.1", "trees.2"}


@torch.no_grad()
def test_idle_projections_are_taken_where_a_file_has_them(tmp_path: Path) -> None:
    tensors = filled("dla34")
    names = ("weight", "bias", "running_mean", "running_var")
    extra: dict[str, list[int]] = {}
    for level, inputs, outputs in ((3, 64, 128), (4, 128, 256)):
        extra[f"level{level}.project.0.weight"] = [outputs, inputs, 1, 1]
        extra |= {f"level{level}.project.1.{name}": [outputs] for name in names}
    tensors |= fill(extra)
    backbone = DLA34()
    assert load_backbone(backbone, saved(tmp_path, tensors)) == ["fc.bias", "fc.weight"]
    loaded = backbone.state_dict()["trees.2.project.1.running_var"]
    torch.testing.assert_close(loaded, tensors["level4.project.1.running_var"])


def test_a_training_checkpoint_around_the_weights(tmp_path: Path) -> None:
    path = tmp_path / "checkpoint.pt"
    torch.save({"epoch": 3, "state_dict": filled("dla34")}, path)
    backbone = DLA34(frozen_stages=2)
    assert load_backbone(backbone, path) == ["fc.bias", "fc.weight"]
    torch.testing.assert_close(
        backbone.stem[1].running_var, filled("dla34")["base_layer.1.running_var"]
    )
    assert not backbone.stem[0].weight.requires_grad  # type: ignore[union-attr]


def test_half_precision_becomes_that_of_the_backbone(tmp_path: Path) -> None:
    tensors = {n: v.half() if v.is_floating_point() else v for n, v in filled("dla34").items()}
    backbone = DLA34()
    load_backbone(backbone, saved(tmp_path, tensors))
    assert {parameter.dtype for parameter in backbone.parameters()} == {torch.float32}
    expected = tensors["level0.0.weight"].float()
    torch.testing.assert_close(backbone.level0[0].weight, expected)


def broken(change: str) -> dict[str, Any]:
    tensors: dict[str, Any] = filled("dla34")
    match change:
        case "missing":
            del tensors["level3.tree1.root.bn.running_mean"]
        case "shape":
            tensors["level0.0.weight"] = torch.zeros(16, 16, 5, 5)
        case "another network":
            tensors = filled("efficientnet-lite0")
        case "no table":
            return {"weights": [1, 2]}
    return tensors


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("missing", "missing level3.tree1.root.bn.running_mean; is it of another network?"),
        ("shape", "level0.0.weight: expected shape (16, 16, 3, 3), got (16, 16, 5, 5)"),
        ("another network", "missing base_layer.0.weight, base_layer.1.weight, base_layer.1.bias"),
        ("no table", "expected a table of tensors by name, got dict; save model.state_dict()"),
    ],
)
def test_what_does_not_fit_is_named(change: str, message: str, tmp_path: Path) -> None:
    path = saved(tmp_path, broken(change))
    backbone = DLA34()
    before = {name: value.clone() for name, value in backbone.state_dict().items()}
    with pytest.raises(ModelFormatError) as error:
        load_backbone(backbone, path)
    assert str(error.value).startswith(f"{path}: ")
    assert message in str(error.value)
    assert "\n" not in str(error.value)
    assert all(value.equal(before[name]) for name, value in backbone.state_dict().items())


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("none.pth", None, "no such file"),
        ("none.safetensors", None, "no such file"),
        (
            "weights.pkl",
            b"no pickle at all",
            "expected weights by torch.save or a pickle of arrays",
        ),
        ("torn.pth", b"PK\x03\x04 and no more", "expected weights by torch.save or a pickle"),
        ("empty.pth", b"", "got an empty file"),
        (
            "code.pth",
            b"\x80\x02cos\nsystem\nq\x00X\x04\x00\x00\x00trueq\x01\x85q\x02Rq\x03.",
            "refused, as it asks for 'os.system'",
        ),
        ("torn.safetensors", b"\x00\x01", "expected a safetensors file"),
    ],
)
def test_files_of_another_kind(
    name: str, content: bytes | None, message: str, tmp_path: Path
) -> None:
    path = tmp_path / name
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(ModelFormatError) as error:
        load_backbone(DLA34(), path)
    assert str(error.value).startswith(f"{path}: ")
    assert message in str(error.value)
    assert "\n" not in str(error.value)


def test_a_backbone_without_published_weights(tmp_path: Path) -> None:
    nano = NanoBackbone((8, 8, 8, 8, 8), (8, 8, 8, 8), (1, 1, 1, 1))
    with pytest.raises(ValueError, match=r"expected ResNet, DLA-34 or EfficientNet-Lite, got Nano"):
        load_backbone(nano, tmp_path / "weights.pth")


@pytest.mark.parametrize(
    ("preset", "changes"),
    [
        ("dla34-bifpn-p5", 0),
        ("lite0-fpn", 0),
        ("nano", 0),
        ("dla34-bifpn-p3", 3),  # BGR, its mean, a std of 1
        ("r50-fpn", 4),  # and the stride in the 1x1
    ],
)
def test_settings_that_go_with_the_weights(preset: str, changes: int) -> None:
    config = PRESETS[preset]()
    settings = settings_for_pretrained(config)
    assert len(settings) == changes
    assert not any(" " in setting for setting in settings)
    assert settings_for_pretrained(apply_overrides(config, settings)) == []


def test_settings_by_hand() -> None:
    assert settings_for_pretrained(PRESETS["r50-fpn"]()) == [
        "input.color_order=RGB",
        "input.pixel_mean=[123.675,116.28,103.53]",
        "input.pixel_std=[58.395,57.12,57.375]",
        "model.backbone.stride_in=3x3",
    ]
