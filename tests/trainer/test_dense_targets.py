"""Which anchors and locations answer for which object: fixed thresholds, and ATSS's own."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from cn2.trainer.first_stage.coding import anchor_shapes, level_anchors
from cn2.trainer.first_stage_losses.anchors import draw_anchors
from cn2.trainer.targets import thresholds
from cn2.trainer.targets.adaptive import NOBODY, assign_adaptively
from cn2.trainer.targets.grid import PyramidGrid, pyramid_grid
from cn2.trainer.targets.thresholds import IGNORED, NEGATIVE, POSITIVE, match_anchors
from reference.anchors_reference import adaptive_loops, anchor_loops, threshold_loops

SIZES, STRIDES = ((8, 12), (4, 6), (2, 3)), (8, 16, 32)  # a canvas of 64 x 96
CPU = torch.device("cpu")
Boxes = list[tuple[float, ...]]


def grid() -> PyramidGrid:
    return pyramid_grid(SIZES, STRIDES, CPU)


def anchors(size: float, octaves: int, ratios: tuple[float, ...]) -> Tensor:
    cells = [height * width for height, width in SIZES]
    shapes = anchor_shapes(size, octaves, ratios)
    levels = zip(torch.split(grid().locations, cells), STRIDES, strict=True)
    return torch.cat([level_anchors(locations, shapes, stride) for locations, stride in levels])


def random_boxes(count: int, seed: int) -> Boxes:
    """Of all sizes, some past the border."""
    rng = np.random.default_rng(seed)
    centres = rng.uniform((-4, -4), (100, 68), (count, 2))
    sides = np.exp(rng.uniform(np.log(2), np.log(120), (count, 2)))
    rows = np.concatenate([centres - sides / 2, centres + sides / 2], axis=1)
    return [tuple(row) for row in rows.astype(np.float32).tolist()]


SCENES: dict[str, Boxes] = {
    "empty": [],
    "one": [(10, 8, 50, 44)],
    "tiny": [(30.2, 30.1, 30.4, 30.5), (5, 5, 6, 6)],
    "huge": [(-500, -500, 700, 700), (0, 0, 96, 64)],
    "off the canvas": [(200, 200, 240, 260)],
    "equal twice": [(10, 8, 50, 44)] * 2,
    "a crowd": random_boxes(60, 1) + random_boxes(20, 2) * 2,
    "on cells": [(0, 0, 16, 16), (8, 8, 24, 24), (16, 0, 48, 32), (0, 32, 32, 64)],  # ties
    **{f"random {seed}": random_boxes(7, seed) for seed in range(3, 9)},
}


@pytest.mark.parametrize(
    ("size", "octaves", "ratios"), [(4.0, 3, (0.5, 1.0, 2.0)), (8.0, 1, (1.0,)), (8.0, 1, (0.5, 2))]
)
def test_anchors_are_those_of_the_loops(
    size: float, octaves: int, ratios: tuple[float, ...]
) -> None:
    expected = torch.tensor(anchor_loops(SIZES, STRIDES, size, octaves, ratios))
    torch.testing.assert_close(anchors(size, octaves, ratios), expected)


def test_retinanets_anchors_by_hand() -> None:
    """Nine at the first cell of P3: 32 pixels and more, half as high as wide first."""
    found = anchors(4.0, 3, (0.5, 1.0, 2.0))[:9]
    sides = found[:, 2:] - found[:, :2]
    torch.testing.assert_close(
        sides.prod(dim=1).sqrt(), torch.tensor([32.0] * 3 + [40.3175] * 3 + [50.7968] * 3)
    )
    torch.testing.assert_close(sides[0], torch.tensor([45.2548, 22.6274]))
    torch.testing.assert_close((found[:, :2] + found[:, 2:]) / 2, torch.full((9, 2), 4.0))


@pytest.mark.parametrize("scene", SCENES)
@pytest.mark.parametrize(("positive", "negative"), [(0.5, 0.4), (0.7, 0.3), (0.5, 0.5)])
def test_thresholds_equal_the_loops(
    scene: str, positive: float, negative: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(thresholds, "CHUNK_PAIRS", 100)  # in several pieces
    objects, own = SCENES[scene], anchors(4.0, 1, (0.5, 1.0))
    boxes = torch.tensor(objects).reshape(-1, 4)
    found = match_anchors(own, boxes, positive, negative)
    kinds, owners = threshold_loops(own.tolist(), boxes.tolist(), positive, negative)
    assert found.kinds.tolist() == kinds
    counted = found.kinds == POSITIVE
    assert found.objects[counted].tolist() == [
        owner for owner, kind in zip(owners, kinds, strict=True) if kind == POSITIVE
    ]


def test_thresholds_by_hand() -> None:
    """Anchors of 10 x 10 against one object of 10 x 10: IoU 1, 2/3, 1/3, 0."""
    own = torch.tensor([[0, 0, 10, 10], [2, 0, 12, 10], [5, 0, 15, 10], [20, 0, 30, 10]]).float()
    found = match_anchors(own, torch.tensor([[0.0, 0, 10, 10]]), 0.7, 0.3)
    assert found.kinds.tolist() == [POSITIVE, IGNORED, IGNORED, NEGATIVE]
    found = match_anchors(own, torch.tensor([[0.0, 0, 10, 10]]), 0.5, 0.4)
    assert found.kinds.tolist() == [POSITIVE, POSITIVE, NEGATIVE, NEGATIVE]


def test_no_object_goes_without_an_anchor() -> None:
    """An object of IoU 1/3 at most has its best anchors, both of them, as both are as good."""
    own = torch.tensor([[0, 0, 10, 10], [10, 0, 20, 10], [40, 0, 50, 10]]).float()
    found = match_anchors(own, torch.tensor([[5.0, 0, 15, 10]]), 0.7, 0.3)
    assert found.kinds.tolist() == [POSITIVE, POSITIVE, NEGATIVE]
    far = match_anchors(own, torch.tensor([[500.0, 0, 510, 10]]), 0.7, 0.3)
    assert far.kinds.tolist() == [NEGATIVE] * 3  # one that nothing overlaps has none


def test_the_draw_of_anchors() -> None:
    kinds = torch.full((1000,), NEGATIVE, dtype=torch.int8)
    kinds[:300], kinds[900:] = POSITIVE, IGNORED
    drawn = draw_anchors(kinds, 256, 0.5, seed=1)
    assert [(drawn == kind).sum().item() for kind in (POSITIVE, NEGATIVE)] == [128, 128]
    assert ((drawn == kinds) | (drawn == IGNORED)).all()
    assert torch.equal(drawn, draw_anchors(kinds, 256, 0.5, seed=1))
    assert not torch.equal(drawn, draw_anchors(kinds, 256, 0.5, seed=2))
    few = kinds.clone()
    few[3:300] = NEGATIVE  # three positives: negatives fill the rest
    drawn = draw_anchors(few, 256, 0.5, seed=1)
    assert [(drawn == kind).sum().item() for kind in (POSITIVE, NEGATIVE)] == [3, 253]


@pytest.mark.parametrize("scene", SCENES)
@pytest.mark.parametrize("candidates", [9, 3])
def test_adaptive_assignment_equals_the_loops(scene: str, candidates: int) -> None:
    boxes = torch.tensor(SCENES[scene]).reshape(-1, 4)
    found = assign_adaptively(boxes, grid(), 8.0, candidates)
    assert found.dtype == torch.int64
    expected = adaptive_loops(boxes.double().tolist(), SIZES, STRIDES, 8.0, candidates)
    assert found.tolist() == expected


def test_adaptive_assignment_by_hand() -> None:
    """One level of 1 x 3 cells, anchors as large as cells: IoU 1/3, 1, 1/3 with the object."""
    one = pyramid_grid(((1, 3),), (8,), CPU)
    boxes = torch.tensor([[4.0, 0, 20, 8]])  # cells 0 to 2 are half, whole, half inside it
    found = assign_adaptively(boxes, one, anchor_size=1.0, candidates=3)
    # IoU 0.2, 0.5, 0.2: mean 0.3, deviation 0.173; 0.473 is reached by the middle alone.
    assert found.tolist() == [NOBODY, 0, NOBODY]
    # A second object, of which the middle cell is the best too, but with a smaller overlap.
    both = torch.cat([torch.tensor([[0.0, -8, 24, 16]]), boxes])
    assert assign_adaptively(both, one, 1.0, 3)[1] == 1
    alone = assign_adaptively(boxes, pyramid_grid(((1, 1),), (8,), CPU), 1.0, 9)
    assert alone.tolist() == [NOBODY]  # a single candidate, whose location is on the border
