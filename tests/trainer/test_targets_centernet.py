"""First-stage targets against slow loops, at the borders, and under permutation and flips."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from cn2.trainer.model_config import CenterNetConfig, ExtraPositivesConfig
from cn2.trainer.structures import Target
from cn2.trainer.targets.centernet import (
    FirstStageTargets,
    assign_regression,
    centernet_targets,
    objects_on_levels,
    positive_cells,
    render_heatmaps,
    squared_radius,
)
from cn2.trainer.targets.extra_positives import extra_positives
from cn2.trainer.targets.grid import PyramidGrid, pyramid_grid
from reference.targets_reference import (
    class_heatmap_loops,
    extra_positives_loops,
    heatmap_loops,
    objects_from,
    positives_loops,
    regression_loops,
)

SIZES = ((9, 13), (5, 7), (3, 4))  # ceilings of a canvas of 72 x 104
STRIDES = (8, 16, 32)
RANGES = ((0.0, 24.0), (16.0, 48.0), (32.0, 1e6))
CPU = torch.device("cpu")
CONFIG = CenterNetConfig(sizes_of_interest=RANGES)

CASES = {
    "no object": [],
    "one": [(20, 12, 60, 50)],
    "one pixel": [(33, 17, 34, 18)],
    "a fraction of a pixel, no location inside": [(33, 17, 33.25, 17.25)],
    "a fraction of a pixel around a location": [(35.75, 19.75, 36.25, 20.25)],
    "no area": [(40, 40, 40, 40)],
    "the whole canvas": [(0, 0, 104, 72)],
    "far larger than the canvas": [(-1000, -1000, 1200, 1100)],
    "touches each side": [(0, 20, 9, 33), (95, 20, 104, 33), (40, 0, 52, 7), (40, 61, 52, 72)],
    "centre on the far corner": [(100, 68, 108, 76)],
    "centre outside": [(-30, -20, -2, -4), (104, 72, 160, 120)],
    "side on a location, so not strictly inside": [(4, 4, 20, 20)],
    "the same box twice": [(20, 12, 60, 50), (20, 12, 60, 50)],
    "one centre, two sizes": [(10, 10, 50, 50), (22, 22, 38, 38)],
    "equal d^2 / r^2 between the two": [(0, 0, 16, 16), (16, 0, 32, 16)],
    "long and flat": [(0, 30, 104, 31), (50, 0, 51, 72)],
    "ends of a range are inclusive": [(10, 10, 39, 10 + 48 * 0.8), (20, 20, 48.8, 58.4)],
}


def random_boxes(seed: int, count: int) -> list[tuple[float, ...]]:
    """Boxes on quarter pixels of all sizes, many overlapping, some outside."""
    generator = torch.Generator().manual_seed(seed)
    centres = torch.rand(count, 2, generator=generator) * torch.tensor([112.0, 80.0]) - 4
    sides = 2 ** (torch.rand(count, 2, generator=generator) * 8 - 2)
    corners = torch.cat([centres - sides / 2, centres + sides / 2], dim=1)
    boxes = (corners * 4).round() / 4
    return [tuple(box) for box in boxes.tolist()]


CASES |= {f"random {seed}": random_boxes(seed, 3 * seed + 2) for seed in range(8)}
BOXES = pytest.mark.parametrize("boxes", CASES.values(), ids=CASES.keys())


def grid() -> PyramidGrid:
    return pyramid_grid(SIZES, STRIDES, CPU)


def target(boxes: list[tuple[float, ...]]) -> Target:
    tensor = torch.tensor(boxes, dtype=torch.float32).reshape(-1, 4)
    return Target(boxes=tensor, classes=torch.zeros(len(boxes), dtype=torch.int64))


def targets_of(*pictures: list[tuple[float, ...]]) -> FirstStageTargets:
    return centernet_targets([target(boxes) for boxes in pictures], grid(), CONFIG)


def test_grid_locations_are_half_strides_level_by_level() -> None:
    cells = grid()
    assert cells.locations.shape == (9 * 13 + 5 * 7 + 3 * 4, 2)
    assert cells.offsets.tolist() == [0, 117, 152]
    assert cells.locations[[0, 1, 13, 117, 163]].tolist() == [
        [4, 4],
        [12, 4],
        [4, 12],
        [8, 8],
        [112, 80],
    ]


def test_grid_refuses_a_missing_stride() -> None:
    with pytest.raises(ValueError, match="expected 3 strides, got 2"):
        pyramid_grid(SIZES, STRIDES[:2], CPU)


@BOXES
def test_heatmap_equals_the_loops(boxes: list[tuple[float, ...]]) -> None:
    expected = torch.tensor(heatmap_loops(objects_from(boxes), SIZES, STRIDES))
    heatmap = targets_of(boxes).heatmap
    torch.testing.assert_close(heatmap, expected, atol=1e-6, rtol=1e-5)
    assert torch.equal(heatmap == 1, expected == 1)
    assert torch.equal(heatmap > 0, expected > 0)


@BOXES
def test_class_heatmaps_equal_the_loops(boxes: list[tuple[float, ...]]) -> None:
    some = Target(boxes=target(boxes).boxes, classes=torch.arange(len(boxes)) * 7 % 3)
    found = centernet_targets([some, some], grid(), CONFIG, channels=3)
    rows = class_heatmap_loops(objects_from(boxes), some.classes.tolist(), 3, SIZES, STRIDES)
    expected = torch.tensor(rows).reshape(-1, 3)
    one, two = found.heatmap.reshape(2, -1, 3)
    torch.testing.assert_close(one, expected, atol=1e-6, rtol=1e-5)
    assert torch.equal(one == 1, expected == 1)
    assert torch.equal(one, two)
    assert (found.heatmap[found.positives] == 1).all()
    cells = targets_of(boxes, boxes)  # positives of one channel for all
    assert torch.equal(found.positives // 3, cells.positives)
    assert torch.equal(found.regression.indices, cells.regression.indices)


def predicted_ltrb(boxes: list[tuple[float, ...]], noise: float, seed: int = 0) -> Tensor:
    """(M, 4) distances in strides of every cell to an object's sides, more or less wrong."""
    generator, cells = torch.Generator().manual_seed(seed), grid()
    strides = torch.cat([torch.full((h * w,), s) for (h, w), s in zip(SIZES, STRIDES, strict=True)])
    sides = torch.tensor(boxes or [(0, 0, 1, 1)], dtype=torch.float32)[0]
    ltrb = torch.cat([cells.locations - sides[:2], sides[2:] - cells.locations], dim=1)
    wrong = 1 + noise * torch.randn(len(ltrb), 4, generator=generator)
    return (ltrb / strides[:, None] * wrong).clamp(min=0)


@BOXES
@pytest.mark.parametrize("noise", [0.01, 0.05, 2.0])  # all cells are right, some, hardly any
def test_extra_positives_equal_the_loops(boxes: list[tuple[float, ...]], noise: float) -> None:
    config = replace(CONFIG, extra_positives=ExtraPositivesConfig())
    predicted = predicted_ltrb(boxes, noise)
    some = Target(boxes=target(boxes).boxes, classes=torch.arange(len(boxes)) * 7 % 3)
    pairs = extra_positives_loops(
        objects_from(boxes), predicted.tolist(), SIZES, STRIDES, RANGES, 0.2, 9
    )
    cells = len(predicted)
    for channels in (1, 3):
        found = extra_positives(
            [some, some], torch.stack([predicted] * 2), grid(), config, channels
        )
        labels = some.classes if channels > 1 else torch.zeros_like(some.classes)
        one = [cell * channels + int(labels[number]) for cell, number in pairs]
        expected = [*one, *(index + cells * channels for index in one)]
        assert sorted(found.tolist()) == sorted(expected)
    plain = set(targets_of(boxes).positives.tolist())
    assert plain <= {cell for cell, _ in pairs}  # the centres are among them


def test_centres_stay_positive_where_all_predictions_are_perfect() -> None:
    boxes = [(20.0, 12.0, 60.0, 50.0)]
    found = extra_positives(
        [target(boxes)],
        predicted_ltrb(boxes, 0.0)[None],
        grid(),
        replace(CONFIG, extra_positives=ExtraPositivesConfig()),
        1,
    )
    assert set(targets_of(boxes).positives.tolist()) <= set(found.tolist())


def test_extra_positives_are_fewer_than_their_rank() -> None:
    """An object of one level that all cells around it predict well: the eight best, not nine."""
    boxes = [(20.0, 12.0, 60.0, 50.0)]
    found = extra_positives(
        [target(boxes)],
        predicted_ltrb(boxes, 0.02)[None],
        grid(),
        replace(CONFIG, extra_positives=ExtraPositivesConfig()),
        1,
    )
    assert len(found) == 8


@BOXES
def test_positives_equal_the_loops(boxes: list[tuple[float, ...]]) -> None:
    expected = positives_loops(objects_from(boxes), SIZES, STRIDES, RANGES)
    assert targets_of(boxes).positives.tolist() == expected


@BOXES
def test_regression_equals_the_loops(boxes: list[tuple[float, ...]]) -> None:
    expected = regression_loops(objects_from(boxes), SIZES, STRIDES, RANGES)
    regression = targets_of(boxes).regression
    assert regression.indices.tolist() == list(expected)
    assert regression.ltrb_strides.tolist() == list(expected.values())


@BOXES
def test_targets_are_finite_and_of_legal_range(boxes: list[tuple[float, ...]]) -> None:
    found = targets_of(boxes)
    assert ((found.heatmap >= 0) & (found.heatmap <= 1)).all()
    assert found.regression.ltrb_strides.isfinite().all()
    assert (found.regression.ltrb_strides > 0).all()
    assert (found.heatmap[found.positives] == 1).all()


def test_a_hand_worked_object() -> None:
    """A 16 x 16 box on a cell's location: r^2 is at its floor, 16, and half the diagonal 11.3."""
    found = targets_of([(28, 28, 44, 44)])  # centre (36, 36) = location of cell (4, 4) at stride 8
    level = found.heatmap[:117].reshape(9, 13)
    assert level[4, 4] == 1
    assert level[4, 5].item() == pytest.approx(0.01831564)  # exp(-64 / 16)
    assert level[5, 5].item() == pytest.approx(0.00033546, rel=1e-4)  # exp(-128 / 16)
    assert level[4, 6] == 0  # exp(-16) is below 1e-4
    assert found.positives.tolist() == [4 * 13 + 4]
    # The neighbours lie on the box's sides +-8: not strictly inside, so one cell alone learns.
    assert found.regression.indices.tolist() == [4 * 13 + 4]
    assert found.regression.ltrb_strides.tolist() == [[1.0, 1.0, 1.0, 1.0]]


def test_an_object_in_two_ranges_is_positive_on_both_levels() -> None:
    found = targets_of([(30, 20, 60, 45)])  # half diagonal 19.5, in 0..24 and 16..48
    assert found.positives.tolist() == [4 * 13 + 5, 117 + 2 * 7 + 2]
    assert {int(index >= 117) for index in found.regression.indices} == {0, 1}


def test_a_tie_goes_to_the_earlier_object() -> None:
    """Two boxes share the centre cell, where both cost 0."""
    small, large = (22, 22, 38, 38), (16, 16, 44, 44)
    cell = 3 * 13 + 3
    for boxes in ([small, large], [large, small]):
        regression = targets_of(boxes).regression
        row = regression.indices.tolist().index(cell)
        left = regression.ltrb_strides[row, 0].item()
        assert left == pytest.approx((28 - boxes[0][0]) / 8)


def test_two_objects_in_one_cell_count_as_two_positives() -> None:
    assert targets_of([(22, 22, 38, 38), (24, 24, 36, 36)]).positives.tolist() == [42, 42]


@pytest.mark.parametrize("seed", range(4))
def test_the_order_of_objects_does_not_matter(seed: int) -> None:
    """Continuous coordinates, so no ties except at shared centre cells, which are left out."""
    generator = torch.Generator().manual_seed(seed)
    cells = torch.randperm(9 * 13, generator=generator)[:12]  # different cells at stride 8
    corners = torch.stack([cells % 13, cells // 13], dim=1) * 8.0
    centres = corners + 8 * torch.rand(12, 2, generator=generator)
    sides = 4 + 60 * torch.rand(12, 2, generator=generator)
    boxes = torch.cat([centres - sides / 2, centres + sides / 2], dim=1)
    order = torch.randperm(12, generator=generator)
    ranges = ((0.0, 1e6), (-2.0, -1.0), (-2.0, -1.0))  # all objects on the finest level
    radius2 = squared_radius(boxes, 0.8, 4.0)
    on_level = objects_on_levels(boxes, ranges)
    first = assign_regression(boxes, radius2, on_level, grid())
    second = assign_regression(boxes[order], radius2[order], on_level[order], grid())
    assert torch.equal(first.indices, second.indices)
    assert torch.equal(first.ltrb_strides, second.ltrb_strides)
    assert len(first.indices) > 12
    labels = torch.arange(12) % 3
    heat = render_heatmaps(boxes, labels, 3, radius2, grid())
    turned = render_heatmaps(boxes[order], labels[order], 3, radius2[order], grid())
    assert torch.equal(heat, turned)
    positives, objects = positive_cells(boxes[order], on_level[order], grid())
    expected, _ = positive_cells(boxes, on_level, grid())
    assert torch.equal(positives.sort().values, expected.sort().values)
    assert torch.equal(order[objects][positives.argsort()], expected.argsort())


@pytest.mark.parametrize("seed", range(4))
def test_a_flipped_picture_has_flipped_targets(seed: int) -> None:
    """On a canvas of whole cells, with centres off the cell borders."""
    sizes = ((8, 12), (4, 6))
    cells = pyramid_grid(sizes, (8, 16), CPU)
    generator = torch.Generator().manual_seed(seed)
    centres = torch.rand(6, 2, generator=generator) * torch.tensor([96.0, 64.0])
    sides = 4 + 40 * torch.rand(6, 2, generator=generator)
    boxes = torch.cat([centres - sides / 2, centres + sides / 2], dim=1)
    flipped = torch.stack([96 - boxes[:, 2], boxes[:, 1], 96 - boxes[:, 0], boxes[:, 3]], dim=1)
    config = CenterNetConfig(sizes_of_interest=((0, 24), (16, 1e6)))
    one, other = (
        centernet_targets([Target(boxes=some, classes=torch.zeros(6).long())], cells, config)
        for some in (boxes, flipped)
    )
    torch.testing.assert_close(_flip(one.heatmap, sizes), other.heatmap, atol=1e-5, rtol=1e-4)
    mirrored = _flip(_dense(one, len(cells.locations)), sizes)[:, [2, 1, 0, 3]]
    torch.testing.assert_close(mirrored, _dense(other, len(cells.locations)), atol=1e-4, rtol=1e-5)


def _dense(found: FirstStageTargets, cells: int) -> Tensor:
    ltrb = torch.zeros(cells, 4)
    ltrb[found.regression.indices] = found.regression.ltrb_strides
    return ltrb


def _flip(values: Tensor, sizes: tuple[tuple[int, int], ...]) -> Tensor:
    levels = torch.split(values, [height * width for height, width in sizes])
    flipped = [
        level.reshape(*size, -1).flip(1).reshape(level.shape)
        for level, size in zip(levels, sizes, strict=True)
    ]
    return torch.cat(flipped)


def test_a_batch_is_its_pictures_one_after_the_other() -> None:
    first, second = CASES["random 4"], CASES["random 5"]
    batch, cells = targets_of(first, [], second), len(grid().locations)
    alone = [targets_of(boxes) for boxes in (first, [], second)]
    assert torch.equal(batch.heatmap, torch.cat([some.heatmap for some in alone]))
    shifted = [some.positives + index * cells for index, some in enumerate(alone)]
    assert torch.equal(batch.positives, torch.cat(shifted))
    shifted = [some.regression.indices + index * cells for index, some in enumerate(alone)]
    assert torch.equal(batch.regression.indices, torch.cat(shifted))
    ltrb = [some.regression.ltrb_strides for some in alone]
    assert torch.equal(batch.regression.ltrb_strides, torch.cat(ltrb))


def test_ten_thousand_objects_fit_and_give_what_chunks_give(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    boxes = random_boxes(0, 10_000)
    whole = targets_of(boxes)
    monkeypatch.setattr("cn2.trainer.targets.centernet.CHUNK_ELEMENTS", 164 * 999)
    chunked = targets_of(boxes)
    assert torch.equal(whole.heatmap, chunked.heatmap)
    assert len(whole.regression.indices) <= len(grid().locations)
