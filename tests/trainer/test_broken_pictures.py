"""Pictures that cannot be read: replaced in training, left out in validation, always named."""

import os
from pathlib import Path

import pytest

from cn2.runtime.errors import PictureError
from cn2.trainer.data.coco import CocoDataset, load_coco
from cn2.trainer.data.loader import train_batches, validation_batches
from cn2.trainer.data.plan import draw_view
from cn2.trainer.data.samples import TrainSamples
from factories import coco_annotations, short_edges, tiny_config, with_training, write_dataset

SIZES = [(64, 96), (96, 64), (50, 80), (64, 96), (10, 90)]
ONE_BOX = [[(1, [2.0, 1.0, 8.0, 8.0])]] * 5


@pytest.fixture
def data(tmp_path: Path) -> CocoDataset:
    return load_coco(*write_dataset(tmp_path, coco_annotations(SIZES, ONE_BOX)))


def tear(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:100])


@pytest.mark.parametrize("workers", [0, 1])
def test_a_torn_picture_is_replaced_and_named_in_one_line(data: CocoDataset, workers: int) -> None:
    path = data.pictures[1].path
    tear(path)
    config = with_training(tiny_config(), steps=6, workers=workers)
    batches = list(train_batches(data, config))
    broken = [broken for batch in batches for broken in batch.broken]
    assert len(broken) >= 2  # once an epoch of three steps; perhaps as a replacement again
    assert {b.path for b in broken} == {path}
    for reason in {b.reason for b in broken}:
        assert "cannot be read as a picture" in reason
        assert str(path) not in reason
        assert "\n" not in reason
    assert [len(batch.pictures) for batch in batches] == [2] * 6
    assert all(picture.path != path for batch in batches for picture in batch.pictures)
    assert [batch.numbers for batch in batches] == [[2 * i, 2 * i + 1] for i in range(6)]


def test_the_replacement_follows_from_seed_number_and_attempt(data: CocoDataset) -> None:
    samples = TrainSamples(data.pictures, tiny_config())
    drawn = [samples.replacement(7, attempt, (96, 96)) for attempt in range(1, 30)]
    assert drawn == [samples.replacement(7, attempt, (96, 96)) for attempt in range(1, 30)]
    assert {planned.index for planned in drawn} == set(range(5))
    other_seed = TrainSamples(data.pictures, with_training(tiny_config(), seed=1))
    assert drawn != [other_seed.replacement(7, attempt, (96, 96)) for attempt in range(1, 30)]


def test_a_replacement_too_big_for_the_canvas_is_scaled_less(data: CocoDataset) -> None:
    samples = TrainSamples(data.pictures, with_training(tiny_config(), flip=0.0))
    view = draw_view(samples.train, 0, (96, 64))
    assert view.size == (96, 64)
    small = [samples.replacement(0, attempt, (64, 96)) for attempt in range(1, 40)]
    portrait = next(planned for planned in small if planned.index == 1)
    assert portrait.view.size == portrait.view.scaled == (64, 42)  # 96 x 64, two thirds of it
    landscape = next(planned for planned in small if planned.index == 0)
    assert landscape.view.size == (64, 96)
    sample = samples.load(portrait)
    assert sample.pixels.shape == (64, 42, 3)
    assert sample.boxes[0].tolist() == pytest.approx([2 * 42 / 64, 2 / 3, 10 * 42 / 64, 6])


def test_a_run_sees_the_same_replacements_again(data: CocoDataset) -> None:
    tear(data.pictures[0].path)
    tear(data.pictures[2].path)
    config = with_training(tiny_config(), steps=8, resize=short_edges(32, 64))
    whole = [[p.image_id for p in b.pictures] for b in train_batches(data, config)]
    rest = [[p.image_id for p in b.pictures] for b in train_batches(data, config, first_step=5)]
    assert whole[5:] == rest


@pytest.mark.parametrize("workers", [0, 1])
def test_nothing_but_broken_pictures_is_an_error_of_one_line(
    data: CocoDataset, workers: int
) -> None:
    for picture in data.pictures:
        tear(picture.path)
    config = with_training(tiny_config(), workers=workers)
    with pytest.raises(PictureError, match="the last of 21 pictures") as caught:
        list(train_batches(data, config))
    assert "\n" not in str(caught.value)


def test_validation_leaves_broken_pictures_out(data: CocoDataset) -> None:
    tear(data.pictures[0].path)  # 64 x 96, with picture 3 on one canvas
    tear(data.pictures[1].path)  # 96 x 64, alone on its canvas
    batches = list(validation_batches(data, tiny_config(), batch=2))
    assert sorted(n for batch in batches for n in batch.numbers) == [2, 3, 4]
    assert sorted(p.image_id for batch in batches for p in batch.pictures) == [12, 13, 14]
    broken = {b.path for batch in batches for b in batch.broken}
    assert broken == {data.pictures[0].path, data.pictures[1].path}
    (empty,) = [batch for batch in batches if not batch.pictures]
    assert empty.images.shape[0] == len(empty.targets) == 0


def test_a_picture_of_another_size_than_annotated_is_refused(data: CocoDataset) -> None:
    os.replace(data.pictures[1].path, data.pictures[0].path)  # 96 x 64 instead of 64 x 96
    batches = list(validation_batches(data, tiny_config(), batch=1))
    reasons = {b.path: b.reason for batch in batches for b in batch.broken}
    expected = (
        "expected 96x64 pixels as the annotations say, got 64x96; was it rotated or replaced?"
    )
    assert reasons[data.pictures[0].path] == expected
    assert "No such file" in reasons[data.pictures[1].path]
