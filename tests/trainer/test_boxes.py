"""Box arithmetic: known values, round trips, borders, empty boxes."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import Tensor

from cn2.trainer.boxes import (
    box_areas,
    box_ious,
    clip_boxes,
    decode_deltas,
    decode_ltrb,
    encode_deltas,
)
from reference import ops_reference as reference

WEIGHTS = (10.0, 10.0, 5.0, 5.0)


def random_boxes(count: int, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    start = torch.rand(count, 2, generator=generator) * 80 - 10
    return torch.cat([start, start + torch.rand(count, 2, generator=generator) * 60 + 2], dim=1)


@pytest.mark.parametrize(
    ("ltrb", "box"),
    [
        ([4.0, 3.0, 2.0, 1.0], [6.0, 17.0, 12.0, 21.0]),
        ([40.0, 0.0, 0.0, 90.0], [-30.0, 20.0, 10.0, 110.0]),  # leaves the picture: not clipped
        ([0.0, 0.0, 0.0, 0.0], [10.0, 20.0, 10.01, 20.01]),  # empty: widened to 0.01 px
    ],
)
def test_decode_ltrb(ltrb: list[float], box: list[float]) -> None:
    decoded = decode_ltrb(torch.tensor([10.0, 20.0]), torch.tensor(ltrb))
    torch.testing.assert_close(decoded, torch.tensor(box))


def test_decode_ltrb_of_nothing() -> None:
    assert decode_ltrb(torch.zeros(0, 2), torch.zeros(0, 4)).shape == (0, 4)


def test_decode_deltas_by_hand() -> None:
    box = torch.tensor([10.0, 20.0, 30.0, 60.0])  # 20 x 40 around (20, 40)
    deltas = torch.tensor([1.0, -0.5, 5 * math.log(2.0), 5 * math.log(0.5)])
    decoded = decode_deltas(box, deltas, WEIGHTS)  # centre +2, -2; width * 2; height / 2
    torch.testing.assert_close(decoded, torch.tensor([2.0, 28.0, 42.0, 48.0]))


def test_a_side_grows_at_most_by_1000_over_16_and_shrinks_freely() -> None:
    box = torch.tensor([0.0, 0.0, 16.0, 16.0])
    decoded = decode_deltas(box, torch.tensor([0.0, 0.0, 1e4, -1e4]), WEIGHTS)
    assert decoded[2] - decoded[0] == pytest.approx(1000.0, rel=1e-5)
    assert decoded[3] - decoded[1] == 0.0


def test_deltas_round_trip() -> None:
    boxes, targets = random_boxes(200, seed=1), random_boxes(200, seed=2)
    deltas = encode_deltas(boxes, targets, WEIGHTS)
    torch.testing.assert_close(decode_deltas(boxes, deltas, WEIGHTS), targets, atol=1e-3, rtol=1e-5)


def test_equal_boxes_need_no_deltas() -> None:
    boxes = random_boxes(20)
    assert encode_deltas(boxes, boxes, WEIGHTS).abs().max() == 0.0


def test_deltas_do_not_depend_on_place_or_scale() -> None:
    boxes, targets = random_boxes(50, seed=1), random_boxes(50, seed=2)
    deltas = encode_deltas(boxes, targets, WEIGHTS)
    moved = encode_deltas(boxes * 3 + 7, targets * 3 + 7, WEIGHTS)
    torch.testing.assert_close(moved, deltas, atol=1e-3, rtol=1e-4)


def test_clip_boxes_to_each_pictures_own_size() -> None:
    boxes = torch.tensor([-5.0, -5.0, 500.0, 500.0]).expand(2, 3, 4)
    clipped = clip_boxes(boxes, torch.tensor([[30, 50], [64, 1]], dtype=torch.int32))
    assert clipped[0].tolist() == [[0.0, 0.0, 50.0, 30.0]] * 3
    assert clipped[1].tolist() == [[0.0, 0.0, 1.0, 64.0]] * 3


def test_clipping_twice_changes_nothing() -> None:
    boxes, sizes = random_boxes(40)[None], torch.tensor([[40, 50]])
    once = clip_boxes(boxes, sizes)
    assert torch.equal(clip_boxes(once, sizes), once)
    assert (once[..., 2:] >= once[..., :2]).all()


def test_ious_against_loops() -> None:
    first, second = random_boxes(12, seed=3), random_boxes(9, seed=4)
    expected = [[reference.iou(a, b) for b in second.numpy()] for a in first.numpy()]
    np.testing.assert_allclose(box_ious(first, second).numpy(), expected, atol=1e-5)


@pytest.mark.parametrize(
    ("first", "second", "iou"),
    [
        ([0.0, 0.0, 4.0, 4.0], [0.0, 0.0, 4.0, 4.0], 1.0),
        ([0.0, 0.0, 4.0, 4.0], [4.0, 0.0, 8.0, 4.0], 0.0),  # they touch
        ([0.0, 0.0, 4.0, 4.0], [0.0, 0.0, 2.0, 4.0], 0.5),
        ([1.0, 1.0, 1.0, 1.0], [1.0, 1.0, 1.0, 1.0], 0.0),  # both empty
    ],
)
def test_known_ious(first: list[float], second: list[float], iou: float) -> None:
    assert box_ious(torch.tensor([first]), torch.tensor([second])).item() == iou


def test_ious_of_nothing() -> None:
    assert box_ious(torch.zeros(0, 4), random_boxes(3)).shape == (0, 3)
    assert box_areas(torch.zeros(0, 4)).shape == (0,)
