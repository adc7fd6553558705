"""Deformable convolution against a slow loop; its start, its gradient, its precision."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from cn2.trainer.deformable import OFFSETS, DeformableConv2d
from cn2.trainer.first_stage.centernet import CenterNetHead
from cn2.trainer.layers import OffsetConv2d, initialise_convolutions
from reference import convolution_reference as reference


def lively(spread: float = 0.5, **options: object) -> DeformableConv2d:
    """4 channels in, 6 out; offsets of up to a few cells, beyond the border too."""
    torch.manual_seed(0)
    layer = DeformableConv2d(4, 6, **options)  # type: ignore[arg-type]
    for parameter in layer.parameters():
        nn.init.normal_(parameter, std=spread)
    return layer


@pytest.mark.parametrize(("stride", "groups"), [(1, 1), (2, 1), (1, 2), (2, 2)])
@pytest.mark.parametrize("bias", [False, True])
@torch.no_grad()
def test_it_is_the_loop(stride: int, groups: int, bias: bool, device: torch.device) -> None:
    layer = lively(stride=stride, groups=groups, bias=bias, offset_bias=bias)
    x = torch.randn(2, 4, 5, 8)
    found = layer.to(device)(x.to(device)).cpu()
    predicted = layer.cpu().offset(x).double().numpy()
    assert abs(predicted[:, :OFFSETS]).max() > 2  # cells
    for picture in range(2):
        expected = reference.deformable_convolution(
            x[picture].double().numpy(),
            layer.weight.double().numpy(),
            torch.zeros(6).numpy() if layer.bias is None else layer.bias.double().numpy(),
            predicted[picture, :OFFSETS],
            1 / (1 + torch.from_numpy(-predicted[picture, OFFSETS:]).exp().numpy()),
            stride,
            groups,
        )
        torch.testing.assert_close(
            found[picture].double(), torch.from_numpy(expected), rtol=1e-4, atol=1e-4
        )


@pytest.mark.parametrize("stride", [1, 2])
@torch.no_grad()
def test_it_starts_as_half_a_plain_convolution(stride: int) -> None:
    layer = DeformableConv2d(4, 6, stride, groups=2, bias=True)
    initialise_convolutions(layer)
    nn.init.normal_(layer.bias)  # type: ignore[arg-type]
    x = torch.randn(2, 4, 7, 9)
    plain = F.conv2d(x, layer.weight / 2, layer.bias, stride, 1, groups=2)
    torch.testing.assert_close(layer(x), plain)


def test_initialising_moves_the_weight_and_leaves_the_offsets() -> None:
    for module in (
        nn.Sequential(DeformableConv2d(4, 6)),
        CenterNetHead(8, convs=2, norm_groups=2, levels=1, regression_bias=1.0, deformable=True),
    ):
        initialise_convolutions(module)
        offsets = [layer for layer in module.modules() if isinstance(layer, OffsetConv2d)]
        assert len(offsets) == 1
        assert not any(parameter.any() for parameter in offsets[0].parameters())
    assert all(
        layer.weight.any()
        for layer in module.modules()
        if isinstance(layer, nn.Conv2d) and layer is not offsets[0]
    )


def test_gradients_reach_every_parameter_and_are_right() -> None:
    """Compared with differences; offsets of about a quarter stay clear of the kinks at cells."""
    layer = lively(spread=0.02, bias=True)
    nn.init.uniform_(layer.offset.bias, 0.2, 0.3)  # type: ignore[arg-type]
    layer = layer.double()
    x = torch.randn(1, 4, 3, 4, dtype=torch.float64, requires_grad=True)
    parameters = tuple(layer.parameters())

    def run(x: Tensor, *_: Tensor) -> Tensor:
        return layer(x)

    assert torch.autograd.gradcheck(run, (x, *parameters), atol=1e-6, fast_mode=True)
    layer(x).square().sum().backward()
    assert all(p.grad is not None and p.grad.abs().max() > 0 for p in parameters)


@torch.no_grad()
def test_under_autocast_it_computes_in_fp32(device: torch.device) -> None:
    layer = lively().to(device)
    x = torch.randn(1, 4, 6, 5, device=device).bfloat16()
    with torch.autocast(device.type, torch.bfloat16):
        found = layer(x)
    assert found.dtype == torch.bfloat16
    torch.testing.assert_close(found, layer(x.float()).bfloat16())


def test_only_the_last_convolution_of_the_tower_is_deformable() -> None:
    head = CenterNetHead(8, convs=3, norm_groups=2, levels=1, regression_bias=1.0, deformable=True)
    kinds = [type(layer) for layer in head.tower if isinstance(layer, nn.Conv2d)]
    assert kinds == [nn.Conv2d, nn.Conv2d, DeformableConv2d]
    assert isinstance(head.tower[6], DeformableConv2d)
    assert head.tower[6].bias is not None
