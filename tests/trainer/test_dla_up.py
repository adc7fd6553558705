"""DLA's up path: shapes, what joins what, bilinear at the start, channels that cannot be."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from cn2.trainer.build import build_neck
from cn2.trainer.model_config import DLAUpConfig
from cn2.trainer.necks.dla_up import DLAUp, Join, Upsample


@pytest.mark.parametrize("finest", [2, 3, 4])
@torch.no_grad()
def test_one_level_of_the_finest_features_shape(finest: int) -> None:
    channels = (4, 6, 8, 10)
    neck = build_neck(DLAUpConfig(levels=(finest,), channels=channels[finest - 2]), channels)  # type: ignore[arg-type]
    features = [
        torch.randn(2, c, 64 // s, 96 // s) for c, s in zip(channels, (4, 8, 16, 32), strict=True)
    ]
    (level,) = neck(features)
    assert level.shape == features[finest - 2].shape


class Note(nn.Module):
    """In place of a join: writes down what came, as text, and gives a text back."""

    def forward(self, coarser: str, finer: str) -> str:
        return f"({coarser}+{finer})"


def test_what_joins_what() -> None:
    """Fig. 3 f of the paper, then the iterative aggregation of its results."""
    neck = DLAUp((4, 6, 8, 10))
    for aggregation in (*neck.rounds, neck.last):
        aggregation.joins = nn.ModuleList(Note() for _ in aggregation.joins)  # type: ignore[union-attr, arg-type]
    features: Any = ["2", "3", "4", "5"]
    fourth = "(5+4)"
    third = f"({fourth}+(4+3))"
    second = f"({third}+((4+3)+(3+2)))"
    assert neck(features) == [f"({fourth}+({third}+{second}))"]


def test_factors_of_the_published_network() -> None:
    with torch.device("meta"):
        neck = DLAUp((64, 128, 256, 512))
    joins = {name: layer for name, layer in neck.named_modules() if isinstance(layer, Join)}
    factors = {name: layer.up.stride[0] for name, layer in joins.items()}
    assert factors == {
        "rounds.0.joins.0": 2,
        "rounds.1.joins.0": 2,
        "rounds.1.joins.1": 2,
        "rounds.2.joins.0": 2,
        "rounds.2.joins.1": 2,
        "rounds.2.joins.2": 2,
        "last.joins.0": 2,
        "last.joins.1": 4,
    }


@pytest.mark.parametrize("factor", [2, 4])
@torch.no_grad()
def test_upsampling_starts_bilinear(factor: int) -> None:
    x = torch.randn(1, 3, 5, 6)
    found: Tensor = Upsample(3, factor)(x)
    expected = F.interpolate(x, scale_factor=factor, mode="bilinear")
    inside = (..., slice(factor, -factor), slice(factor, -factor))  # zeros come in at the border
    assert found.shape == expected.shape
    torch.testing.assert_close(found[inside], expected[inside])


def test_channels_that_the_backbone_has_not() -> None:
    with pytest.raises(ValueError, match=r"neck.channels: expected 6, .* level P3, got 64"):
        build_neck(DLAUpConfig(levels=(3,)), (4, 6, 8, 10))
