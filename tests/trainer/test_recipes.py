"""Named schedules and sizes: the published numbers, and what a batch does to them."""

from __future__ import annotations

from dataclasses import replace

import pytest

from cn2.trainer.config import Config
from cn2.trainer.presets import PRESETS
from cn2.trainer.recipes import RESIZES, SCHEDULES, with_resize, with_schedule
from cn2.trainer.schedule import learning_rate
from cn2.trainer.train_config import ResizeCropConfig, ShortEdgeConfig
from factories import with_training


def r50(batch: int = 16) -> Config:
    return with_training(PRESETS["r50-fpn"](), batch=batch)


@pytest.mark.parametrize(
    ("preset", "schedule"),
    [("r50-fpn", "1x"), ("dla34-bifpn-p3", "4x")],
)
def test_presets_have_the_schedule_of_their_published_model(preset: str, schedule: str) -> None:
    config = PRESETS[preset]()
    assert with_schedule(config, schedule) == config


def test_the_self_trained_preset_is_as_long_as_16x() -> None:
    config = PRESETS["dla34-bifpn-p5"]()
    assert with_schedule(config, "16x").train.steps == config.train.steps == 360_000
    assert with_schedule(config, "1x").train.schedule == "cosine"


@pytest.mark.parametrize(
    ("name", "steps", "drops"),
    [
        ("1x", 90_000, (60_000, 80_000)),  # Base-CenterNet2
        ("2x", 180_000, (120_000, 160_000)),  # CenterNet2_X101-DCN_2x
        ("4x", 360_000, (300_000, 340_000)),  # CenterNet2_DLA-BiFPN-P3_4x
        ("8x", 720_000, (480_000, 640_000)),  # nuImages_..._8x: 180 000 of 64 pictures
        ("16x", 1_440_000, (960_000, 1_280_000)),
    ],
)
def test_steps_and_drops_for_16_pictures(name: str, steps: int, drops: tuple[int, int]) -> None:
    train = with_schedule(r50(), name).train
    assert train.steps == steps
    rates = [learning_rate(step, train) for drop in drops for step in (drop - 1, drop)]
    assert rates == pytest.approx([0.02, 0.002, 0.002, 0.0002])


def test_the_long_schedule_repeats_the_4x_six_times_at_half_the_rate() -> None:
    train = with_schedule(r50(), "long").train
    assert train.steps == 6 * 360_000
    for cycle in range(6):
        begin = cycle * 360_000
        if cycle:  # the first one warms up
            assert learning_rate(begin, train) == pytest.approx(0.01)
        assert learning_rate(begin + 299_999, train) == pytest.approx(0.01)
        assert learning_rate(begin + 300_000, train) == pytest.approx(0.001)
        assert learning_rate(begin + 340_000, train) == pytest.approx(0.0001)
        assert learning_rate(begin + 359_999, train) == pytest.approx(0.0001)


@pytest.mark.parametrize("name", SCHEDULES)
@pytest.mark.parametrize("batch", [1, 8, 48, 64])
def test_as_many_pictures_whatever_the_batch(name: str, batch: int) -> None:
    few, usual = with_schedule(r50(batch), name).train, with_schedule(r50(), name).train
    assert few.steps * batch == pytest.approx(usual.steps * 16, abs=batch)
    half_way = few.steps // (2 * few.cycles) + 1  # no drop so far, the warm-up is over
    expected = usual.base_lr * batch / 16
    assert learning_rate(half_way, replace(few, warmup_steps=1)) == pytest.approx(expected)


def test_only_the_schedule_changes() -> None:
    config = PRESETS["dla34-bifpn-p3"]()
    changed = with_schedule(config, "8x")
    same = {"steps": config.train.steps, "milestones": config.train.milestones}
    assert with_training(changed, **same) == config


@pytest.mark.parametrize(
    ("preset", "resize"),
    [("r50-fpn", "640-800"), ("dla34-bifpn-p3", "256-608"), ("dla34-bifpn-p5", "crop-640")],
)
def test_presets_have_the_sizes_of_their_published_model(preset: str, resize: str) -> None:
    config = PRESETS[preset]()
    assert with_resize(config, resize) == config


def test_sizes() -> None:
    config = PRESETS["nano"]()
    short_edges = ("640-800", "480-960", "256-608")
    for name in RESIZES:
        changed = with_resize(config, name)
        resize = changed.train.resize
        assert with_training(changed, resize=config.train.resize) == config
        if name in short_edges:
            assert isinstance(resize, ShortEdgeConfig)
            assert f"{resize.smallest}-{resize.largest}" == name
        else:
            assert isinstance(resize, ResizeCropConfig)
            assert (f"crop-{resize.size}", resize.scale) == (name, (0.1, 2.0))
    assert RESIZES["480-960"].step == 1  # any size of the range, as MIN_SIZE_TRAIN_SAMPLING: range
    assert RESIZES["256-608"].long_edge == 900


def test_an_unknown_name_lists_the_known_ones() -> None:
    with pytest.raises(ValueError, match="did you mean '16x'") as error:
        with_schedule(r50(), "16")
    assert str(error.value).startswith("schedule: expected one of 1x, 2x, 4x, 8x, 16x, long, got")
    with pytest.raises(ValueError, match=r"^resize: expected one of 640-800, 480-960, .*got 'x'$"):
        with_resize(r50(), "x")
