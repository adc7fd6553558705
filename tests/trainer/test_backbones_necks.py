"""Backbones and pyramids: shapes, borders between flavours, frozen parts, fusion by hand."""

from __future__ import annotations

import copy
from collections.abc import Callable
from functools import partial

import pytest
import torch
from torch import Tensor

from cn2.trainer.backbones.dla import DLA34
from cn2.trainer.backbones.efficientnet_lite import EfficientNetLite, SameConv2d
from cn2.trainer.backbones.frozen import Backbone
from cn2.trainer.backbones.nano import NanoBackbone
from cn2.trainer.backbones.res2net import Res2Net
from cn2.trainer.backbones.resnet import Bottleneck, ResNet
from cn2.trainer.layers import FrozenBatchNorm2d
from cn2.trainer.necks.bifpn import BiFPN, Flavour, FusionNode, Node, plan_nodes
from cn2.trainer.necks.fpn import FPN


def shapes(features: list[Tensor]) -> list[tuple[int, ...]]:
    return [tuple(feature.shape) for feature in features]


def tiny_nano(frozen_stages: int = 0) -> NanoBackbone:
    return NanoBackbone((8, 8, 16, 24, 32), (8, 8, 8, 8), (1, 1, 1, 1), frozen_stages)


BACKBONES: list[Callable[[int], Backbone]] = [
    tiny_nano,
    DLA34,
    EfficientNetLite,
    partial(ResNet, 50),
    partial(ResNet, 50, stride_in="3x3"),
    partial(ResNet, 50, groups=8, group_width=8, deformable_stages=(4, 5)),
    partial(Res2Net, 50, deformable_stages=(4, 5)),
]


@pytest.mark.parametrize("make", BACKBONES)
@torch.no_grad()
def test_strides_and_channels(make: Callable[[int], Backbone]) -> None:
    backbone = make(0)
    features = backbone.eval()(torch.zeros(2, 3, 64, 96))
    expected = [
        (2, c, 64 // s, 96 // s) for c, s in zip(backbone.channels, (4, 8, 16, 32), strict=True)
    ]
    assert shapes(features) == expected


@pytest.mark.parametrize(("frozen", "expected"), [(0, 0), (1, 1), (2, 1 + 10), (5, 53)])
def test_frozen_stages_of_resnet(frozen: int, expected: int) -> None:
    backbone = ResNet(50, frozen)
    assert sum(not parameter.requires_grad for parameter in backbone.parameters()) == expected


@pytest.mark.parametrize("frozen", range(6))
@pytest.mark.parametrize("make", [tiny_nano, DLA34, EfficientNetLite])
def test_frozen_stages_stay_as_they_are(make: Callable[[int], Backbone], frozen: int) -> None:
    """In training mode: no gradient, running statistics that stand still; the others move."""
    torch.manual_seed(0)
    backbone = make(frozen).train()
    before = {name: value.clone() for name, value in backbone.state_dict().items()}
    features = backbone(torch.randn(2, 3, 64, 96))
    if frozen < 5:
        torch.stack([feature.square().sum() for feature in features]).sum().backward()
    else:
        assert not any(feature.requires_grad for feature in features)
    held = {name for name, parameter in backbone.named_parameters() if not parameter.requires_grad}
    assert {name for name, p in backbone.named_parameters() if p.grad is not None}.isdisjoint(held)
    after = backbone.state_dict()
    norms = [name for name in after if name.endswith("running_mean") and "1.project" not in name]
    norms = [name for name in norms if "trees.2.project" not in name]  # DLA never uses these two
    for name in norms:
        is_held = name.replace("running_mean", "weight") in held
        assert after[name].equal(before[name]) == is_held, name


STAGE_PREFIXES = {
    "nano": ["stem", "stages.0", "stages.1", "stages.2", "stages.3"],
    "resnet": ["stem", "stages.0", "stages.1", "stages.2", "stages.3"],
    "dla": [("stem", "level0", "level1"), "trees.0", "trees.1", "trees.2", "trees.3"],
    "lite": [("stem", "stages.0"), "stages.1", "stages.2", "stages.3", "stages.4"],
}


@pytest.mark.parametrize(
    ("make", "kind"),
    [
        (tiny_nano, "nano"),
        (DLA34, "dla"),
        (EfficientNetLite, "lite"),
        *((backbone, "resnet") for backbone in BACKBONES[3:]),
    ],
)
def test_which_stages_a_count_freezes(make: Callable[[int], Backbone], kind: str) -> None:
    for count in (0, 1, 3, 5):
        prefixes = tuple(
            prefix + "."
            for stage in STAGE_PREFIXES[kind][:count]
            for prefix in ((stage,) if isinstance(stage, str) else stage)
        )
        with torch.device("meta"):
            backbone = make(count)
        idle = ("trees.1.project.", "trees.2.project.") if kind == "dla" else ()  # never used
        for name, parameter in backbone.named_parameters():
            assert parameter.requires_grad != name.startswith((*prefixes, *idle)), (count, name)


def test_a_copy_is_frozen_too() -> None:
    """The mean weights of a training are kept in a deep copy."""
    twin = copy.deepcopy(tiny_nano(1)).train()
    assert not twin.stem.training
    assert twin.stages[0].training


@pytest.mark.parametrize("count", [-1, 6])
def test_frozen_stages_that_do_not_exist(count: int) -> None:
    with pytest.raises(ValueError, match=f"frozen_stages: expected 0 to 5, got {count}"):
        DLA34(count)


@torch.no_grad()
def test_stride_of_resnet_blocks() -> None:
    """A 1x1 convolution with a stride reads every second pixel only; a 3x3 one reads all."""
    x = torch.randn(1, 256, 8, 8)
    moved = x.clone()
    moved[..., 1::2, :] += 1.0  # rows that a stride of 2 in the first 1x1 leaves out
    for stride_in, same in (("1x1", True), ("3x3", False)):
        block = Bottleneck(256, 128, 512, 2, stride_in)  # type: ignore[arg-type]
        assert block(x).shape == (1, 512, 4, 4)
        assert block(x).equal(block(moved)) == same


@pytest.mark.parametrize("kernel", [3, 5])
@torch.no_grad()
def test_same_padding_by_hand(kernel: int) -> None:
    """TensorFlow's rule for an even size: k - 2 in all, the smaller half before."""
    conv = SameConv2d(2, 3, kernel, 2, 1)
    x = torch.randn(1, 2, 6, 8)
    padded = torch.zeros(1, 2, 6 + kernel - 2, 8 + kernel - 2)
    first = (kernel - 2) // 2
    padded[:, :, first : first + 6, first : first + 8] = x
    expected = torch.zeros(1, 3, 3, 4)
    for i in range(3):
        for j in range(4):
            window = padded[0, :, 2 * i : 2 * i + kernel, 2 * j : 2 * j + kernel]
            expected[0, :, i, j] = (conv.weight * window).sum(dim=(1, 2, 3))
    torch.testing.assert_close(conv(x), expected)


def test_frozen_norm_neither_learns_nor_moves() -> None:
    norm = FrozenBatchNorm2d(2).train()
    norm.running_mean.copy_(torch.tensor([1.0, -1.0]))
    norm.running_var.copy_(torch.tensor([4.0, 0.25]))
    norm.weight.copy_(torch.tensor([2.0, 1.0]))
    norm.bias.copy_(torch.tensor([0.5, 0.0]))
    y = norm(torch.full((1, 2, 1, 1), 3.0)).flatten()
    torch.testing.assert_close(y, torch.tensor([2.5, 8.0]), atol=1e-3, rtol=0)
    assert norm.running_mean.tolist() == [1.0, -1.0]
    assert list(norm.parameters()) == []


@pytest.mark.parametrize(
    ("size", "expected"),
    [
        ((64, 96), [(8, 12), (4, 6), (2, 3), (1, 2), (1, 1)]),
        ((160, 224), [(20, 28), (10, 14), (5, 7), (3, 4), (2, 2)]),  # ceilings above P5
    ],
)
@torch.no_grad()
def test_fpn_sizes(size: tuple[int, int], expected: list[tuple[int, int]]) -> None:
    features = [
        torch.randn(1, c, size[0] // s, size[1] // s) for c, s in ((4, 8), (6, 16), (8, 32))
    ]
    levels = FPN((4, 6, 8), channels=5, levels=5)(features)
    assert shapes(levels) == [(1, 5, *hw) for hw in expected]


def test_node_plans_of_the_published_detectors() -> None:
    assert plan_nodes(3) == [
        Node(1, (1, 2)),
        Node(0, (0, 3)),
        Node(1, (1, 3, 4)),
        Node(2, (2, 5)),
    ]
    assert plan_nodes(5) == [
        Node(3, (3, 4)),
        Node(2, (2, 5)),
        Node(1, (1, 6)),
        Node(0, (0, 7)),
        Node(1, (1, 7, 8)),
        Node(2, (2, 6, 9)),
        Node(3, (3, 5, 10)),
        Node(4, (4, 11)),
    ]


@pytest.mark.parametrize("flavour", ["efficientdet", "fcos"])
@pytest.mark.parametrize("levels", [3, 4, 5])
@torch.no_grad()
def test_bifpn_sizes(flavour: Flavour, levels: int) -> None:
    features = [torch.randn(2, c, 128 // s, 256 // s) for c, s in ((8, 8), (4, 16), (12, 32))]
    neck = BiFPN((8, 4, 12), 8, levels=levels, repeats=2, norm_groups=4, flavour=flavour)
    expected = [(2, 8, 128 // 2**i, 256 // 2**i) for i in range(3, 3 + levels)]
    assert shapes(neck(features)) == expected


@pytest.mark.parametrize(
    ("flavour", "laterals"),
    [
        ("efficientdet", ["1_0", "2_0", "1_2", "2_3"]),  # one per node
        ("fcos", ["1_1", "2_1", "2_2"]),  # one per level
    ],
)
def test_lateral_convolutions_only_where_widths_differ(
    flavour: Flavour, laterals: list[str]
) -> None:
    neck = BiFPN((8, 4, 12), 8, levels=3, repeats=2, norm_groups=4, flavour=flavour)
    assert list(neck.cells[0].laterals) == laterals  # type: ignore[arg-type]
    assert len(neck.cells[1].laterals) == 0  # type: ignore[arg-type]


@torch.no_grad()
def test_fusion_by_hand() -> None:
    node = FusionNode(3, 4, norm_groups=2, flavour="efficientdet")
    node.weights.copy_(torch.tensor([1.0, -2.0, 3.0]))  # a negative weight counts as 0
    same, coarser, finer = (
        torch.randn(1, 4, 4, 6),
        torch.randn(1, 4, 2, 3),
        torch.randn(1, 4, 8, 12),
    )
    pooled = finer.reshape(1, 4, 4, 2, 6, 2).amax(dim=(3, 5))
    fused = (same * 1.0 + pooled * 3.0) / (4.0 + 1e-4)
    expected = node.norm(node.conv(fused * torch.sigmoid(fused)))
    torch.testing.assert_close(node([same, coarser, finer], (0, 1, -1)), expected)
