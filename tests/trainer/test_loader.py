"""Batches: what lies on the canvas, and an order that only seed and step decide."""

from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from cn2.trainer.config import Config, Rounding
from cn2.trainer.data.batch import Batch, Sample, collate
from cn2.trainer.data.coco import CocoDataset, load_coco
from cn2.trainer.data.loader import train_batches, validation_batches
from cn2.trainer.data.order import Planned
from cn2.trainer.data.plan import draw_view
from cn2.trainer.data.samples import TrainSamples
from factories import coco_annotations, short_edges, tiny_config, with_training, write_dataset

SIZES = [(64, 96), (96, 64), (50, 80), (64, 96), (10, 90)]
BOXES = [
    [(1, [10.0, 8.0, 30.0, 20.0]), (7, [0.0, 0.0, 96.0, 64.0])],
    [(3, [4.0, 40.0, 20.0, 50.0])],
    [],
    [(7, [50.0, 30.0, 40.0, 30.0])],
    [(1, [80.0, 2.0, 8.0, 8.0])],
]


@pytest.fixture
def data(tmp_path: Path) -> CocoDataset:
    return load_coco(*write_dataset(tmp_path, coco_annotations(SIZES, BOXES)))


def load(data: CocoDataset, config: Config, number: int, index: int) -> Sample:
    """The sample of this number, of this picture."""
    picture = data.pictures[index]
    view = draw_view(config.train, number, (picture.height, picture.width))
    return TrainSamples(data.pictures, config).load(Planned(number, index, view))


def same(one: Batch, other: Batch) -> bool:
    return (
        torch.equal(one.images, other.images)
        and torch.equal(one.image_sizes, other.image_sizes)
        and all(
            torch.equal(a.boxes, b.boxes) and torch.equal(a.classes, b.classes)
            for a, b in zip(one.targets, other.targets, strict=True)
        )
        and [p.image_id for p in one.pictures] == [p.image_id for p in other.pictures]
    )


def test_pictures_lie_at_the_top_left_of_one_canvas(data: CocoDataset) -> None:
    chosen = [load(data, tiny_config(), 0, 0), load(data, tiny_config(), 1, 2)]
    batch = collate(chosen, (64, 96), [4, 5])
    assert batch.images.shape == (2, 64, 96, 3)
    assert batch.images.dtype == torch.uint8
    assert batch.image_sizes.tolist() == [[64, 96], [60, 96]]
    for image, (height, width), sample in zip(
        batch.images, [(64, 96), (60, 96)], chosen, strict=True
    ):
        np.testing.assert_array_equal(image[:height, :width], sample.pixels)
        assert image[height:].sum() == 0
    assert batch.targets[0].image_id == 10
    assert batch.targets[0].classes.tolist() == [0, 2]
    assert batch.targets[1].boxes.shape == (0, 4)
    assert batch.targets[1].classes.dtype == torch.int64
    assert (batch.numbers, batch.broken) == ([4, 5], [])


def test_no_picture_makes_an_empty_batch() -> None:
    batch = collate([], (64, 96), [])
    assert batch.images.shape == (0, 64, 96, 3)
    assert batch.image_sizes.shape == (0, 2)
    assert (batch.targets, batch.pictures) == ([], [])


def test_a_flip_moves_the_boxes_with_the_pixels(data: CocoDataset) -> None:
    straight = load(data, with_training(tiny_config(), flip=0.0), 3, 0)
    flipped = load(data, with_training(tiny_config(), flip=1.0), 3, 0)
    upended = load(data, with_training(tiny_config(), flip=0.0, flip_vertical=1.0), 3, 0)
    np.testing.assert_array_equal(straight.pixels, flipped.pixels[:, ::-1])
    np.testing.assert_array_equal(straight.boxes[0], [10, 8, 40, 28])
    np.testing.assert_array_equal(flipped.boxes[0], [56, 8, 86, 28])
    np.testing.assert_array_equal(straight.pixels, upended.pixels[::-1])
    np.testing.assert_array_equal(upended.boxes[0], [10, 36, 40, 56])


def test_boxes_scale_with_their_picture(data: CocoDataset) -> None:
    config = with_training(tiny_config(), flip=0.0, resize=short_edges(32))
    sample = load(data, config, 0, 1)  # 96 x 64 becomes 48 x 32
    assert sample.pixels.shape == (48, 32, 3)
    np.testing.assert_array_equal(sample.boxes, [[2, 20, 12, 45]])


def test_short_edges_and_flips_are_drawn_per_sample(data: CocoDataset) -> None:
    config = with_training(tiny_config(), resize=short_edges(32, 64))
    heights = [load(data, config, number, 0).pixels.shape[0] for number in range(60)]
    assert set(heights) == {32, 48, 64}
    lefts = [load(data, config, number, 0).boxes[0, 0] for number in range(60)]
    whole = [left * 64 / height for left, height in zip(lefts, heights, strict=True)]
    assert 15 < sum(left < 20 for left in whole) < 45  # about half are flipped


@pytest.mark.parametrize("workers", [0, 2])
def test_a_run_continued_at_a_step_sees_what_it_would_have_seen(
    data: CocoDataset, workers: int
) -> None:
    config = with_training(tiny_config(), steps=7, batch=2, resize=short_edges(48, 64))
    whole = list(train_batches(data, config))
    assert len(whole) == 7
    rest = list(train_batches(data, with_training(config, workers=workers), first_step=4))
    assert len(rest) == 3
    assert [batch.numbers for batch in rest] == [[8, 9], [10, 11], [12, 13]]
    for one, other in zip(whole[4:], rest, strict=True):
        assert same(one, other)


def test_workers_start_where_opencv_threads_have_run(data: CocoDataset) -> None:
    threads = cv2.getNumThreads()
    cv2.setNumThreads(4)
    cv2.resize(np.zeros((2000, 2000, 3), np.uint8), (999, 999))  # starts the threads
    try:
        config = with_training(tiny_config(), steps=3, workers=1)
        assert len(list(train_batches(data, config))) == 3
    finally:
        cv2.setNumThreads(threads)


def test_loading_leaves_the_global_random_state_alone(data: CocoDataset) -> None:
    torch.manual_seed(5)
    before = torch.get_rng_state()
    list(train_batches(data, with_training(tiny_config(), workers=1)))
    list(validation_batches(data, tiny_config(), batch=2))
    assert torch.equal(before, torch.get_rng_state())


def test_another_seed_gives_another_order(data: CocoDataset) -> None:
    config = with_training(tiny_config(), steps=5)
    orders = [
        [
            p.image_id
            for b in train_batches(data, with_training(config, seed=seed))
            for p in b.pictures
        ]
        for seed in (0, 1)
    ]
    assert orders[0] != orders[1]


@pytest.mark.parametrize(("rounding", "height"), [("nearest", 41), ("down", 40)])
def test_validation_rounds_as_the_input_says(
    data: CocoDataset, rounding: Rounding, height: int
) -> None:
    input = replace(tiny_config().input, short_edge=61, long_edge=61, rounding=rounding)
    batches = validation_batches(data, replace(tiny_config(), input=input), batch=1)
    sizes = {tuple(batch.image_sizes[0].tolist()) for batch in batches}
    assert (height, 61) in sizes  # 64 x 96: 40.67 high


def test_validation_shows_every_picture_once_and_no_canvas_is_padded_for_another(
    data: CocoDataset,
) -> None:
    batches = list(validation_batches(data, tiny_config(), batch=2))
    ids = [picture.image_id for batch in batches for picture in batch.pictures]
    assert sorted(ids) == [10, 11, 12, 13, 14]
    for batch in batches:
        assert len(batch.pictures) <= 2
        for height, width in batch.image_sizes.tolist():
            canvas = (-(-height // 32) * 32, -(-width // 32) * 32)
            assert batch.images.shape[1:3] == canvas
