"""Each fixture through `cn2 convert`, as every kind of file that holds it: the same tensors."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor

from cn2.trainer.checkpoint import load_checkpoint, save_checkpoint
from command_line import Ran, cn2
from conformance.official import FIXTURES, converted, fixture_weights, load_fixture, require_same

Capture = pytest.CaptureFixture[str]
Arrays = dict[str, NDArray[Any]]
SMALLEST = "CenterNet2_DLA-BiFPN-P3_4x"  # the variants are tried on


@pytest.fixture(scope="module")
def arrays(shared: Path) -> Arrays:
    return fixture_weights(shared, load_fixture(shared, SMALLEST))


def tensors(arrays: Arrays) -> dict[str, Tensor]:
    return {name: torch.from_numpy(value) for name, value in arrays.items()}


def convert(capfd: Capture, source: Path) -> Ran:
    """Convert and throw the source away: these are large."""
    ran = cn2(capfd, "convert", source, "-o", source.parent / "ours.safetensors")
    source.unlink()
    assert ran.errors == [], ran
    assert ran.code == 0
    return ran


def check(path: Path, arrays: Arrays) -> None:
    """The tensors of a converted file are those of the official one; the file goes."""
    require_same(path, arrays, levels=3)
    path.unlink()


@pytest.mark.parametrize("name", FIXTURES)
def test_every_tensor_of_a_fixture(name: str, shared: Path) -> None:
    fixture = load_fixture(shared, name)
    _, config, metadata = load_checkpoint(converted(shared, fixture))  # compares every tensor
    assert config == fixture.config
    assert metadata["cn2.provenance"].startswith(f"converted from {name}.pth (SHA-256 ")


def save_bare(path: Path, arrays: Arrays) -> None:
    torch.save(tensors(arrays), path)


def save_wrapped(path: Path, arrays: Arrays) -> None:
    torch.save({"model": {f"module.{name}": v for name, v in tensors(arrays).items()}}, path)


def save_legacy(path: Path, arrays: Arrays) -> None:
    torch.save({"model": tensors(arrays)}, path, _use_new_zipfile_serialization=False)


def save_training(path: Path, arrays: Arrays) -> None:
    """As detectron2's trainer: momentum, a schedule with numpy's numbers, an iteration, means."""
    parameter = torch.nn.Parameter(torch.ones(7, 9))
    optimizer = torch.optim.SGD([parameter], lr=0.1, momentum=0.9)
    parameter.sum().backward()
    optimizer.step()
    content = {
        "model": tensors(arrays)
        | {
            "pixel_mean": torch.tensor([[[103.53]], [[116.28]], [[123.675]]]),
            "pixel_std": torch.ones(3, 1, 1),
        },
        "ema_state": {name: torch.zeros(()).expand(v.shape) for name, v in arrays.items()},
        "optimizer": optimizer.state_dict(),
        "scheduler": {"last_epoch": np.int64(9), "base_lrs": [np.float64(0.1)], "x": np.arange(3)},
        "iteration": np.int64(89_999),
    }
    torch.save(content, path)


def save_pickle(path: Path, arrays: Arrays, protocol: int = pickle.DEFAULT_PROTOCOL) -> None:
    content = {"model": arrays, "__author__": "nobody", "matching_heuristics": True}
    with path.open("wb") as file:
        pickle.dump(content, file, protocol)


def save_old_pickle(path: Path, arrays: Arrays) -> None:
    """Protocol 2: numpy's data are texts in it."""
    save_pickle(path, arrays, protocol=2)


def save_new_pickle(path: Path, arrays: Arrays) -> None:
    save_pickle(path, arrays, protocol=5)


VARIANTS: dict[str, Callable[[Path, Arrays], None]] = {
    "bare.pth": save_bare,
    "module.pth": save_wrapped,
    "legacy.pth": save_legacy,
    "training.pth": save_training,
    "zoo.pkl": save_pickle,
    "old.pkl": save_old_pickle,
    "new.pkl": save_new_pickle,
}


@pytest.mark.parametrize("file", VARIANTS)
def test_every_kind_of_file(file: str, arrays: Arrays, tmp_path: Path, capfd: Capture) -> None:
    VARIANTS[file](tmp_path / file, arrays)
    ran = convert(capfd, tmp_path / file)
    not_needed = 2 if file == "training.pth" else 0
    assert f"361 used, 0 missing, {not_needed} not needed, 0 left over" in ran.out
    assert ("those of ema_state were not used (--ema takes them)" in ran.out) == (not_needed == 2)
    check(tmp_path / "ours.safetensors", arrays)


def test_half_precision_becomes_single(arrays: Arrays, tmp_path: Path, capfd: Capture) -> None:
    half = {
        name: value.astype(np.float16) if value.dtype == np.float32 else value
        for name, value in arrays.items()
    }
    save_bare(tmp_path / "half.pth", half)
    convert(capfd, tmp_path / "half.pth")
    widened = {n: v.astype(np.float32) if v.dtype == np.float16 else v for n, v in half.items()}
    check(tmp_path / "ours.safetensors", widened)


def test_loading_and_saving_changes_no_bit(arrays: Arrays, tmp_path: Path, capfd: Capture) -> None:
    save_bare(tmp_path / "bare.pth", arrays)
    convert(capfd, tmp_path / "bare.pth")
    path, again = tmp_path / "ours.safetensors", tmp_path / "again.safetensors"
    model, config, metadata = load_checkpoint(path)
    license, provenance = metadata["cn2.license"], metadata["cn2.provenance"]
    save_checkpoint(again, model, config, license=license, provenance=provenance)
    assert again.read_bytes() == path.read_bytes()
    assert "bare.pth (SHA-256 " in provenance
    assert "non-commercial" in license
    for made in (path, again):
        made.unlink()
