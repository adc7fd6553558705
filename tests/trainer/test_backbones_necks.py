"""Backbones and pyramids: shapes, borders between flavours, frozen parts, fusion by hand."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from cn2.trainer.backbones.dla import DLA34
from cn2.trainer.backbones.nano import NanoBackbone
from cn2.trainer.backbones.resnet import ResNet
from cn2.trainer.layers import FrozenBatchNorm2d
from cn2.trainer.necks.bifpn import BiFPN, Flavour, FusionNode, Node, plan_nodes
from cn2.trainer.necks.fpn import FPN


def shapes(features: list[Tensor]) -> list[tuple[int, ...]]:
    return [tuple(feature.shape) for feature in features]


@pytest.mark.parametrize(
    "backbone",
    [NanoBackbone((8, 8, 16, 24, 32), (8, 8, 8, 8), (1, 1, 1, 1)), DLA34(), ResNet(50, 2)],
)
@torch.no_grad()
def test_strides_and_channels(backbone: nn.Module) -> None:
    features = backbone.eval()(torch.zeros(2, 3, 64, 96))
    expected = [
        (2, c, 64 // s, 96 // s) for c, s in zip(backbone.channels, (8, 16, 32), strict=True)
    ]
    assert shapes(features) == expected


@pytest.mark.parametrize(("frozen", "expected"), [(0, 0), (1, 1), (2, 1 + 10), (5, 53)])
def test_frozen_stages_of_resnet(frozen: int, expected: int) -> None:
    backbone = ResNet(50, frozen)
    assert sum(not parameter.requires_grad for parameter in backbone.parameters()) == expected


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
