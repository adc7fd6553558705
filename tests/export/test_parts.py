"""Parts with deformable convolutions in ONNX Runtime: what torch gives, at two sizes."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from cn2.trainer.backbones.res2net import SplitBottleneck
from cn2.trainer.backbones.resnet import Bottleneck
from cn2.trainer.deformable import OFFSETS, DeformableConv2d
from cn2.trainer.first_stage.centernet import CenterNetHead
from cn2.trainer.layers import OffsetConv2d
from cn2.trainer.necks.dla_up import DLAUp
from onnx_sessions import Run, through_onnx


def lively(module: nn.Module) -> nn.Module:
    """In eval mode, with offsets of some cells."""
    for layer in module.modules():
        if isinstance(layer, OffsetConv2d):
            nn.init.normal_(layer.weight, std=0.4)
    return module.eval()


def assert_close(run: Run, module: Callable[..., Tensor], *inputs: Tensor) -> None:
    with torch.no_grad():
        expected = module(*inputs).numpy()
    (found,) = run(*inputs)
    assert found.shape == expected.shape
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    ("stride", "groups", "bias", "offset_bias"),
    [(1, 1, True, True), (2, 2, False, True), (1, 4, False, False), (2, 1, True, False)],
)
def test_convolution(stride: int, groups: int, bias: bool, offset_bias: bool) -> None:
    torch.manual_seed(0)
    layer = DeformableConv2d(4, 8, stride, groups=groups, bias=bias, offset_bias=offset_bias)
    lively(layer)
    run, nodes = through_onnx(layer, (torch.rand(2, 4, 8, 10),), ((0, 2, 3),))
    assert "DeformConv" in nodes
    for size in ((1, 4, 7, 9), (3, 4, 12, 5)):
        x = torch.randn(size)
        assert layer.offset(x)[:, :OFFSETS].abs().max() > 2  # cells
        assert_close(run, layer, x)


def split_block(inputs: int, outputs: int) -> SplitBottleneck:
    return SplitBottleneck(inputs, 4, outputs, 1 + (inputs != outputs), splits=4, deformable=True)


@pytest.mark.parametrize(
    "make",
    [
        partial(Bottleneck, 6, 8, 12, 2, "3x3", groups=4, deformable=True),
        partial(split_block, 6, 6),
        partial(split_block, 6, 10),
    ],
)
def test_block(make: Callable[[], nn.Module]) -> None:
    torch.manual_seed(0)
    block = lively(make())
    run, nodes = through_onnx(block, (torch.rand(2, 6, 8, 10),), ((0, 2, 3),))
    assert nodes.count("DeformConv") == sum(isinstance(m, OffsetConv2d) for m in block.modules())
    assert_close(run, block, torch.randn(1, 6, 7, 9))
    assert_close(run, block, torch.randn(3, 6, 12, 5))


def test_tower() -> None:
    torch.manual_seed(0)
    tower = CenterNetHead(
        8, convs=2, norm_groups=2, levels=1, regression_bias=1.0, deformable=True
    ).tower
    lively(tower)
    run, _ = through_onnx(tower, (torch.rand(2, 8, 8, 10),), ((0, 2, 3),))
    assert_close(run, tower, torch.randn(1, 8, 7, 9))
    assert_close(run, tower, torch.randn(3, 8, 12, 5))


class UpPath(nn.Module):
    """The up path over a feature and what remains of it at a half and at a quarter of its size."""

    def __init__(self) -> None:
        super().__init__()
        self.neck = DLAUp((4, 4, 4))

    def forward(self, x: Tensor) -> Tensor:
        level: Tensor = self.neck([x, F.avg_pool2d(x, 2), F.avg_pool2d(x, 4)])[0]
        return level


def test_up_path() -> None:
    torch.manual_seed(0)
    path = lively(UpPath())
    run, nodes = through_onnx(path, (torch.rand(2, 4, 16, 24),), ((0, 2, 3),))
    assert nodes.count("ConvTranspose") == 4
    assert_close(run, path, torch.randn(1, 4, 12, 20))
    assert_close(run, path, torch.randn(3, 4, 20, 8))
