"""The cache: the same pixels filled or not, no more memory than allowed, gone at the end."""

import os
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from cn2.runtime.errors import PictureError
from cn2.trainer.config import Config
from cn2.trainer.data import cache as cache_module
from cn2.trainer.data.cache import NO_ROOM, PictureCache, cached_size, open_cache
from cn2.trainer.data.coco import CocoDataset, load_coco
from cn2.trainer.data.loader import train_batches
from cn2.trainer.data.memory import SharedBytes, free_memory
from cn2.trainer.data.transforms import read_picture
from cn2.trainer.train_config import ResizeCropConfig
from factories import (
    coco_annotations,
    picture,
    short_edges,
    tiny_config,
    with_training,
    write_dataset,
)

SIZES = [(64, 96), (96, 64), (250, 403), (64, 96), (10, 90)]
BOXES = [[(1, [2.0, 1.0, 8.0, 8.0])]] * 5


@pytest.fixture
def data(tmp_path: Path) -> CocoDataset:
    """Five pictures, one of them a JPEG far bigger than it is shown."""
    annotations = coco_annotations(SIZES, BOXES)
    annotations["images"][2]["file_name"] = "big.jpg"
    return load_coco(*write_dataset(tmp_path, annotations))


def config_of(**values: Any) -> Config:
    return with_training(tiny_config(), steps=9, **values)


def seen(data: CocoDataset, config: Config) -> list[torch.Tensor]:
    return [batch.images for batch in train_batches(data, config)]


@pytest.mark.parametrize("rule", [short_edges(32, 64), ResizeCropConfig(size=64)])
def test_a_run_sees_the_same_whether_or_not_there_is_room(
    data: CocoDataset, rule: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nine batches of two of five pictures: each comes first unfilled and then filled."""
    cached = seen(data, config_of(resize=rule, cache_mb=1))
    monkeypatch.setattr(cache_module, "free_memory", lambda: 0)
    nothing_fits = seen(data, config_of(resize=rule, cache_mb=1))
    for one, other in zip(cached, nothing_fits, strict=True):
        assert torch.equal(one, other)


def test_pictures_no_bigger_than_shown_are_those_without_a_cache(data: CocoDataset) -> None:
    data.pictures.pop(2)
    config = config_of(resize=short_edges(32, 64))
    for one, other in zip(
        seen(data, config), seen(data, with_training(config, cache_mb=1)), strict=True
    ):
        assert torch.equal(one, other)


def test_workers_fill_one_cache(data: CocoDataset) -> None:
    config = config_of(resize=short_edges(32, 64), cache_mb=1)
    for one, other in zip(
        seen(data, config), seen(data, with_training(config, workers=2)), strict=True
    ):
        assert torch.equal(one, other)


def test_a_picture_is_decoded_once(data: CocoDataset) -> None:
    cache = PictureCache(data.pictures, config_of(), limit=10**6)
    first = cache.read(0).copy()
    data.pictures[0].path.unlink()
    np.testing.assert_array_equal(cache.read(0), first)
    np.testing.assert_array_equal(first, picture(64, 96, seed=0))
    with pytest.raises(ValueError, match="read-only"):
        cache.read(0)[0, 0, 0] = 1


def test_a_picture_without_its_flag_is_decoded_again(data: CocoDataset) -> None:
    """As a worker killed in the middle of the pixels leaves it."""
    cache = PictureCache(data.pictures, config_of(), limit=10**6)
    cache.memory.values[cache.starts[0] :][:1000] = 77
    np.testing.assert_array_equal(cache.read(0), picture(64, 96, seed=0))
    assert cache.memory.values[:5].tolist() == [1, 0, 0, 0, 0]


def test_broken_pictures_are_not_kept(data: CocoDataset) -> None:
    cache = PictureCache(data.pictures, config_of(), limit=10**6)
    whole = data.pictures[1].path.read_bytes()
    data.pictures[1].path.write_bytes(whole[:90])
    with pytest.raises(PictureError, match="cannot be read"):
        cache.read(1)
    data.pictures[1].path.write_bytes(whole)
    np.testing.assert_array_equal(cache.read(1), picture(96, 64, seed=1))


def test_a_picture_is_kept_at_the_largest_size_it_is_shown_at(data: CocoDataset) -> None:
    shown = [cached_size(p, short_edges(32, 48)) for p in data.pictures]
    assert shown == [(48, 72), (72, 48), (48, 77), (48, 72), (10, 90)]
    crops = ResizeCropConfig(size=100, scale=(0.1, 1.5))
    assert [cached_size(p, crops) for p in data.pictures] == [
        (64, 96),
        (96, 64),
        (93, 150),
        (64, 96),
        (10, 90),
    ]
    cache = PictureCache(data.pictures, config_of(resize=crops), limit=10**6)
    exact = Image.fromarray(read_picture(data.pictures[2].path)).resize((150, 93))
    assert np.abs(cache.read(2).astype(int) - np.asarray(exact)).mean() < 8  # grey levels of noise


def test_no_more_memory_than_allowed(data: CocoDataset) -> None:
    size = 64 * 96 * 3
    cache = PictureCache(data.pictures, config_of(), limit=5 + 2 * size + 100)
    assert cache.size == 5 + 2 * size
    assert cache.held == 2
    assert cache.starts.tolist() == [5, 5 + size, NO_ROOM, NO_ROOM, NO_ROOM]
    np.testing.assert_array_equal(cache.read(3), picture(64, 96, seed=3))
    assert cache.memory.values[:5].sum() == 0


@pytest.mark.parametrize(
    ("cache_mb", "free", "processes", "limit"),
    [
        (1, 10**9, 1, 2**20),  # as asked for
        (1, 2**20, 1, 2**19),  # half of what is free
        (1, 10**9, 4, 2**18),  # four processes on this machine
    ],
)
def test_the_limit_of_the_cache(
    data: CocoDataset,
    monkeypatch: pytest.MonkeyPatch,
    cache_mb: int,
    free: int,
    processes: int,
    limit: int,
) -> None:
    limits = []
    whole = PictureCache.__init__
    monkeypatch.setattr(cache_module, "free_memory", lambda: free)
    monkeypatch.setattr(
        PictureCache, "__init__", lambda *args: (limits.append(args[3]), whole(*args))[1]
    )
    monkeypatch.delenv("LOCAL_WORLD_SIZE", raising=False)
    assert open_cache(data.pictures, config_of(cache_mb=cache_mb), processes) is not None
    monkeypatch.setenv("LOCAL_WORLD_SIZE", str(processes))
    open_cache(data.pictures, config_of(cache_mb=cache_mb), world=99)
    assert limits == [limit, limit]
    assert open_cache(data.pictures, config_of(cache_mb=0)) is None


@pytest.mark.parametrize("names", ["v2", "v1"])
def test_free_memory_is_the_least_of_machine_and_container(tmp_path: Path, names: str) -> None:
    meminfo = tmp_path / "meminfo"
    meminfo.write_text("MemTotal:   9000 kB\nMemFree:   100 kB\nMemAvailable:   4000 kB\n")
    assert free_memory(meminfo, tmp_path) == 4000 * 1024
    group = tmp_path / "memory" if names == "v1" else tmp_path
    group.mkdir(exist_ok=True)
    limit, used, prefix = {
        "v2": ("memory.max", "memory.current", ""),
        "v1": ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_"),
    }[names]
    (group / used).write_text("700000\n")
    (group / "memory.stat").write_text(f"anon 5\n{prefix}inactive_file 100000\n")
    for text, free in [("1000000\n", 400_000), ("10\n", 0), (f"{2**63}\n", 4000 * 1024)]:
        (group / limit).write_text(text)
        assert free_memory(meminfo, tmp_path) == free
    if names == "v2":
        (group / limit).write_text("max\n")
        assert free_memory(meminfo, tmp_path) == 4000 * 1024


def test_free_memory_of_this_machine() -> None:
    assert 2**20 < free_memory() < 2**50
    assert 2**20 < free_memory(Path("nowhere"), Path("nowhere")) < 2**50  # not Linux


def write_seven(shared: SharedBytes) -> None:
    with shared.locked(3):
        shared.values[3] = 7


def test_bytes_are_shared_with_a_process_and_closed_with_the_object() -> None:
    before = len(os.listdir("/proc/self/fd"))
    shared = SharedBytes(4096)
    process = get_context("forkserver").Process(target=write_seven, args=(shared,))
    process.start()
    process.join()
    assert process.exitcode == 0
    assert shared.values.sum() == shared.values[3] == 7
    process.close()
    opened = len(os.listdir("/proc/self/fd"))
    del shared, process
    assert opened - len(os.listdir("/proc/self/fd")) == 2  # the file and its mapping
    assert len(os.listdir("/proc/self/fd")) <= before + 2  # the server of new processes stays
