"""Several processes, or several parts of a step, see together what one process would see."""

from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from cn2.trainer.config import Config
from cn2.trainer.data.batch import Batch
from cn2.trainer.data.coco import CocoDataset, Picture, load_coco
from cn2.trainer.data.loader import train_batches, validation_batches
from cn2.trainer.data.order import PartOrder, SampleOrder
from cn2.trainer.train_config import ResizeCropConfig
from factories import coco_annotations, short_edges, tiny_config, with_training, write_dataset

SIZES = [(64, 96), (96, 64), (50, 80), (64, 70), (10, 90), (90, 33), (61, 97), (100, 100)]
BOXES = [[(1 + 2 * (i % 2), [3.0 + i, 4.0, 20.0, 5.0]), (7, [1, 1, 9, 9])] for i in range(8)]
MULTI_SCALE = short_edges(32, 96)
CROPS = ResizeCropConfig(size=64, scale=(0.3, 2.0))


@pytest.fixture
def data(tmp_path: Path) -> CocoDataset:
    return load_coco(*write_dataset(tmp_path, coco_annotations(SIZES, BOXES)))


def config_of(**values: object) -> Config:
    """Eight pictures a step, five steps, both flips."""
    return with_training(tiny_config(), steps=5, batch=8, flip_vertical=0.5, **values)


def assert_same(one: Batch, shares: list[Batch]) -> None:
    """Bit for bit: canvas, pixels, sizes, targets, pictures, numbers."""
    assert torch.equal(one.images, torch.cat([b.images for b in shares]))
    assert torch.equal(one.image_sizes, torch.cat([b.image_sizes for b in shares]))
    targets = [target for b in shares for target in b.targets]
    for a, b in zip(one.targets, targets, strict=True):
        assert torch.equal(a.boxes, b.boxes)
        assert torch.equal(a.classes, b.classes)
        assert a.image_id == b.image_id
    assert [p.image_id for p in one.pictures] == [p.image_id for b in shares for p in b.pictures]
    assert one.numbers == [number for b in shares for number in b.numbers]
    assert one.broken == [broken for b in shares for broken in b.broken]


@pytest.mark.parametrize("torn", [False, True])
@pytest.mark.parametrize("rule", [MULTI_SCALE, CROPS])
@pytest.mark.parametrize(("world", "accumulate"), [(2, 1), (4, 1), (2, 2), (1, 2)])
def test_ranks_see_together_what_one_process_with_the_part_sees(
    data: CocoDataset, rule: object, world: int, accumulate: int, torn: bool
) -> None:
    if torn:
        data.pictures[3].path.write_bytes(b"torn")
    config = config_of(resize=rule, accumulate=accumulate)
    parts = list(train_batches(data, config))
    assert len(parts) == 5 * accumulate
    assert any(part.broken for part in parts) == torn
    shares = [list(train_batches(data, config, rank=r, world=world)) for r in range(world)]
    for part, *of_ranks in zip(parts, *shares, strict=True):
        assert {len(share.numbers) for share in of_ranks} == {8 // world // accumulate}
        assert_same(part, of_ranks)


def test_a_share_alone_would_have_a_smaller_canvas(data: CocoDataset) -> None:
    """What the planned canvas is for: shares whose own pictures would have needed less."""
    config = config_of(resize=MULTI_SCALE)
    smaller = 0
    for rank in range(4):
        for share in train_batches(data, config, rank=rank, world=4):
            largest = share.image_sizes.max(dim=0).values
            needed = (largest + 31) // 32 * 32
            smaller += int((needed < torch.tensor(share.images.shape[1:3])).any())
    assert smaller >= 5


def test_parts_of_a_step_are_its_slices(data: CocoDataset) -> None:
    whole = list(train_batches(data, config_of(resize=MULTI_SCALE)))
    parts = list(train_batches(data, config_of(resize=MULTI_SCALE, accumulate=4)))
    for step, batch in enumerate(whole):
        of_step = parts[4 * step : 4 * step + 4]
        assert [n for part in of_step for n in part.numbers] == batch.numbers
        assert torch.equal(torch.cat([p.image_sizes for p in of_step]), batch.image_sizes)


def test_a_batch_that_cannot_be_shared_is_refused_before_anything_starts(
    data: CocoDataset,
) -> None:
    config = config_of(accumulate=2)
    with pytest.raises(ValueError, match=r"train\.batch: expected a multiple of 6 .* got 8"):
        train_batches(data, config, world=3)


@settings(deadline=None)  # a busy machine stalls
@given(
    share=st.integers(1, 4),
    world=st.integers(1, 4),
    accumulate=st.integers(1, 3),
    portraits=st.lists(st.booleans(), min_size=1, max_size=30),
    first_step=st.integers(0, 9),
)
def test_every_sample_of_every_step_is_seen_by_one_rank(
    share: int, world: int, accumulate: int, portraits: list[bool], first_step: int
) -> None:
    pictures = [fake_picture(i, portrait) for i, portrait in enumerate(portraits)]
    batch = share * world * accumulate
    config = with_training(tiny_config(), steps=9, batch=batch, accumulate=accumulate)
    expected = [key for step in SampleOrder(pictures, config.train, first_step) for key in step]
    orders = [list(PartOrder(pictures, config, first_step, r, world)) for r in range(world)]
    found = [p for parts in zip(*orders, strict=True) for part in parts for p in part.samples]
    assert [(p.number, p.index) for p in found] == expected
    assert [n for n, _ in expected] == list(range(first_step * batch, 9 * batch))
    for parts in zip(*orders, strict=True):
        assert len({part.canvas for part in parts}) == 1


def fake_picture(index: int, portrait: bool) -> Picture:
    """A picture without a file."""
    height, width = (90 + index, 60) if portrait else (60, 90 + index)
    boxes = torch.empty(0, 4).numpy()
    classes = torch.empty(0, dtype=torch.int64).numpy()
    return Picture(
        image_id=index, path=Path("none"), height=height, width=width, boxes=boxes, classes=classes
    )


def test_squares_are_not_grouped_by_shape(data: CocoDataset) -> None:
    by_shape = SampleOrder(data.pictures, config_of(resize=MULTI_SCALE).train, 0)
    assert by_shape.portrait.sum() == 2
    assert SampleOrder(data.pictures, config_of(resize=CROPS).train, 0).portrait.sum() == 0
    for batch in train_batches(data, config_of(resize=CROPS)):
        assert batch.images.shape == (8, 64, 64, 3)


@pytest.mark.parametrize("world", [1, 2, 3, 20])
def test_validation_is_shared_batch_by_batch(data: CocoDataset, world: int) -> None:
    whole = list(validation_batches(data, tiny_config(), batch=2))
    for rank in range(world):
        share = list(validation_batches(data, tiny_config(), batch=2, rank=rank, world=world))
        assert len(share) == len(whole[rank::world])
        for one, other in zip(whole[rank::world], share, strict=True):
            assert_same(one, [other])
    assert sorted(n for batch in whole for n in batch.numbers) == list(range(8))
