"""Which level a box is pooled from, and that training pools as inference does."""

from __future__ import annotations

import pytest
import torch

from cn2.trainer.roi_pooling import assign_levels, pool_levels

STRIDES = (8, 16, 32, 64, 128)


@pytest.mark.parametrize(
    ("side", "level"),
    [
        (0.0, 0),  # empty
        (1.0, 0),
        (111.9, 0),  # 4 + log2(111.9 / 224) is just below 3, clamped to P3
        (112.1, 0),  # P3
        (223.9, 0),
        (224.0, 1),  # the canonical size: P4
        (447.9, 1),
        (448.0, 2),  # P5
        (896.0, 3),  # P6
        (1792.0, 4),  # P7
        (1e5, 4),  # larger than any level
    ],
)
def test_level_borders(side: float, level: int) -> None:
    box = torch.tensor([[0.0, 0.0, side, side]])
    assert assign_levels(box, STRIDES, 4, 224.0).tolist() == [level]


def test_level_depends_on_the_area_alone() -> None:
    boxes = torch.tensor([[5.0, 9.0, 5.0 + 448.0, 9.0 + 112.0], [0.0, 0.0, 112.0, 448.0]])
    assert assign_levels(boxes, STRIDES, 4, 224.0).tolist() == [1, 1]


def test_levels_are_clamped_to_those_there_are() -> None:
    box = torch.tensor([[0.0, 0.0, 1792.0, 1792.0]])
    assert assign_levels(box, (8, 16), 4, 224.0).tolist() == [1]


def test_gradient_reaches_only_the_level_of_the_box() -> None:
    features = [torch.randn(1, 2, 16 // 2**i, 24 // 2**i, requires_grad=True) for i in range(3)]
    rois = torch.tensor([[0.0, 0.0, 0.0, 20.0, 20.0], [0.0, 8.0, 8.0, 28.0, 28.0]])
    pooled = pool_levels(
        features,
        rois,
        strides=(8, 16, 32),
        canonical_level=4,
        canonical_size=64.0,
        output_size=7,
        sampling_ratio=0,
    )
    pooled.sum().backward()
    touched = [float(f.grad.abs().sum()) if f.grad is not None else 0.0 for f in features]
    assert touched[0] == pytest.approx(2 * 2 * 49, rel=1e-4)  # each pooled value has weight 1
    assert touched[1:] == [0.0, 0.0]
