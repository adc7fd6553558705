"""Checkpoints: what was written comes back; what is not ours is refused in one line."""

import json
import os
from dataclasses import replace
from pathlib import Path

import pytest
import safetensors.torch
import torch

from cn2.runtime.errors import ModelFormatError, OutputError
from cn2.trainer.build import build_detector
from cn2.trainer.checkpoint import (
    load_checkpoint,
    load_weights,
    read_checkpoint,
    save_checkpoint,
)
from cn2.trainer.config import config_to_dict
from cn2.trainer.detector import TwoStageDetector
from cn2.trainer.safetensors_file import write_tensors
from cn2.trainer.train_config import ShortEdgeConfig
from factories import tiny_config


@pytest.fixture(scope="module")
def model() -> TwoStageDetector:
    torch.manual_seed(3)
    return build_detector(tiny_config())


@pytest.fixture
def path(tmp_path: Path, model: TwoStageDetector) -> Path:
    path = tmp_path / "model.safetensors"
    save_checkpoint(path, model, tiny_config(), license="CC0-1.0", provenance="a test")
    return path


def test_what_was_written_comes_back(path: Path, model: TwoStageDetector) -> None:
    loaded, config, metadata = load_checkpoint(path)
    assert config == tiny_config()
    assert metadata["cn2.license"] == "CC0-1.0"
    assert metadata["cn2.provenance"] == "a test"
    assert metadata["cn2.format_version"] == "2"
    assert not loaded.training
    for name, value in model.state_dict().items():
        assert torch.equal(loaded.state_dict()[name], value), name


def test_weights_are_fp32_whatever_they_were(path: Path, tmp_path: Path) -> None:
    half = build_detector(tiny_config()).to(torch.bfloat16).to(memory_format=torch.channels_last)
    save_checkpoint(tmp_path / "half", half, tiny_config(), license="", provenance="")
    _, _, tensors = read_checkpoint(tmp_path / "half")
    assert {value.dtype for value in tensors.values()} <= {torch.float32, torch.int64}
    assert all(value.is_contiguous() for value in tensors.values())


@pytest.mark.parametrize("size", [0, 4, 200, -1])
def test_a_torn_file_is_refused(path: Path, size: int) -> None:
    path.write_bytes(path.read_bytes()[:size])
    with pytest.raises(ModelFormatError) as caught:
        load_checkpoint(path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def rewrite(path: Path, metadata: dict[str, str]) -> None:
    tensors = safetensors.torch.load_file(path)
    path.write_bytes(safetensors.torch.save(tensors, metadata))


def test_a_foreign_or_newer_file_is_refused(path: Path) -> None:
    _, metadata, _ = read_checkpoint(path)
    rewrite(path, {})
    with pytest.raises(ModelFormatError, match=r"no cn2\.config"):
        load_checkpoint(path)
    rewrite(path, metadata | {"cn2.format_version": "3"})
    with pytest.raises(ModelFormatError, match="format version 3"):
        load_checkpoint(path)
    values = config_to_dict(tiny_config()) | {"surprise": 1}
    rewrite(path, metadata | {"cn2.config": json.dumps(values)})
    with pytest.raises(ModelFormatError, match="surprise"):
        load_checkpoint(path)
    rewrite(path, metadata | {"cn2.config": "{"})
    with pytest.raises(ModelFormatError, match="config cannot be read"):
        load_checkpoint(path)
    with pytest.raises(ModelFormatError, match="no such file"):
        load_checkpoint(path.with_name("missing.safetensors"))


def test_loading_is_strict(path: Path, model: TwoStageDetector) -> None:
    _, metadata, tensors = read_checkpoint(path)
    name = "first_stage.head.heatmap.weight"
    for changed, words in (
        ({k: v for k, v in tensors.items() if k != name}, f"missing {name}"),
        (tensors | {"extra": torch.zeros(1)}, "unknown extra"),
        (tensors | {name: torch.zeros(2, 8, 3, 3)}, r"expected shape \(1, 8, 3, 3\)"),
    ):
        write_tensors(path, changed, metadata)
        with pytest.raises(ModelFormatError, match=words):
            load_checkpoint(path)


@pytest.mark.parametrize(
    "names",
    [("one",), ("box", "disc", "star")],  # another count; as many, in another order
)
def test_other_classes_leave_only_the_classifiers_fresh(path: Path, names: tuple[str, ...]) -> None:
    config = replace(tiny_config(), class_names=names, category_ids=tuple(range(len(names))))
    model = build_detector(config)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    fresh = load_weights(model, path, names)
    assert sorted(fresh) == sorted(
        f"second_stage.stages.{k}.class_logits.{part}"
        for k in range(3)
        for part in ("weight", "bias")
    )
    _, _, tensors = read_checkpoint(path)
    for name, value in model.state_dict().items():
        assert torch.equal(value, before[name] if name in fresh else tensors[name]), name


def test_the_same_classes_keep_the_classifiers(path: Path, model: TwoStageDetector) -> None:
    other = build_detector(tiny_config())
    assert load_weights(other, path, tiny_config().class_names) == []
    for name, value in other.state_dict().items():
        assert torch.equal(value, model.state_dict()[name]), name


def test_weights_of_another_detector_are_refused(path: Path) -> None:
    config = tiny_config()
    second_stage = replace(config.model.second_stage, fc_channels=(12, 16))
    other = replace(config, model=replace(config.model, second_stage=second_stage))
    with pytest.raises(ModelFormatError, match="another preset"):
        load_weights(build_detector(other), path, config.class_names)


def test_a_failing_write_leaves_the_old_file(
    path: Path, model: TwoStageDetector, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = path.read_bytes()

    def full_disk(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full_disk)
    with pytest.raises(OutputError, match="No space left"):
        save_checkpoint(path, model, tiny_config(), license="", provenance="")
    assert path.read_bytes() == before
    assert os.listdir(path.parent) == [path.name]


def test_a_checkpoint_of_format_1_is_read(path: Path) -> None:
    _, metadata, _ = read_checkpoint(path)
    values = json.loads(metadata["cn2.config"])
    for key in ("accumulate", "lr_batch", "resize", "cycles"):
        del values["train"][key]
    values["train"] |= {"short_edges": [288, 320, 352], "long_edge": 576, "batch": 8}
    rewrite(path, metadata | {"cn2.format_version": "1", "cn2.config": json.dumps(values)})
    _, config, _ = load_checkpoint(path)
    assert config.train.resize == ShortEdgeConfig(smallest=288, largest=352, long_edge=576)
    assert config.train.lr_batch == 8  # the rate was for the batch then
    assert config.model == tiny_config().model
