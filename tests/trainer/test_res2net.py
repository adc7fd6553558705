"""Res2Net's blocks against a loop over the splits, and where its convolutions are deformable."""

from __future__ import annotations

from functools import partial

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from cn2.trainer.backbones.res2net import Res2Net, SplitBottleneck
from cn2.trainer.deformable import DeformableConv2d
from cn2.trainer.layers import FrozenBatchNorm2d
from reference import convolution_reference as reference
from reference.convolution_reference import Array


def lively_block(inputs: int, outputs: int, stride: int, deformable: bool) -> SplitBottleneck:
    torch.manual_seed(0)
    block = SplitBottleneck(inputs, 3, outputs, stride, splits=4, deformable=deformable)
    for value in block.state_dict().values():
        nn.init.uniform_(value, 0.5, 1.5) if value.ndim == 1 else nn.init.normal_(value, std=0.3)
    return block


def through(layer: nn.Module, x: Array) -> Array:
    found: Tensor = layer(torch.from_numpy(x).float()[None])
    return found[0].double().numpy()


@pytest.mark.parametrize("deformable", [False, True])
@pytest.mark.parametrize(("inputs", "stride"), [(8, 1), (5, 1), (5, 2)])
@torch.no_grad()
def test_block_by_hand(inputs: int, stride: int, deformable: bool) -> None:
    """8 channels go out: 8 in keep the channels, so splits add; 5 in take the pooled shortcut."""
    block = lively_block(inputs, 8, stride, deformable)
    x = np.random.default_rng(0).normal(size=(inputs, 7, 9))
    middle = np.maximum(through(block.conv1, x), 0)
    splits = [middle[3 * k : 3 * k + 3] for k in range(4)]
    convolutions = [partial(through, conv) for conv in block.convs]
    joined = np.concatenate(reference.split_block(splits, convolutions, adds=inputs == 8))
    shortcut = x
    if inputs != 8:
        assert isinstance(block.shortcut, nn.Sequential)
        shortcut = through(block.shortcut[1:], reference.pool_shortcut(x, stride))
    expected = np.maximum(through(block.conv3, joined) + shortcut, 0)
    assert expected.shape == (8, -(-7 // stride), -(-9 // stride))
    np.testing.assert_allclose(through(block, x), expected, rtol=1e-4, atol=1e-4)


def test_deformable_stages() -> None:
    with torch.device("meta"):
        backbone = Res2Net(50, deformable_stages=(4, 5))
    found = [
        sum(isinstance(layer, DeformableConv2d) for layer in stage.modules())
        for stage in backbone.stages
    ]
    assert found == [0, 0, 3 * 6, 3 * 3]
    offsets = [name for name in backbone.state_dict() if ".offset." in name]
    assert all(name.endswith("weight") for name in offsets)  # no bias


def test_norms_are_frozen_and_the_stem_is_three_convolutions() -> None:
    with torch.device("meta"):
        backbone = Res2Net(101)
    assert not any(isinstance(layer, nn.BatchNorm2d) for layer in backbone.modules())
    assert sum(isinstance(layer, FrozenBatchNorm2d) for layer in backbone.stem.modules()) == 3
    shapes = [tuple(conv[0].weight.shape) for conv in backbone.stem]  # type: ignore[index]
    assert shapes == [(32, 3, 3, 3), (32, 32, 3, 3), (64, 32, 3, 3)]
