"""The loop: what a run writes, what it refuses, and what one step does."""

import json
import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

import cn2.trainer.run as run_module
from cn2.runtime.errors import (
    AnnotationError,
    BackendUnavailableError,
    OutputError,
    PictureError,
)
from cn2.trainer.build import build_detector
from cn2.trainer.checkpoint import load_checkpoint, save_checkpoint
from cn2.trainer.data.datasets import DataSource
from cn2.trainer.data.loader import Batch
from cn2.trainer.distributed import Ranks
from cn2.trainer.model_config import ModelConfig
from cn2.trainer.run import inherited_license
from cn2.trainer.train import RunFiles, TrainingError, train
from cn2.trainer.train_step import Stepper, build_optimizer
from cn2.trainer.training_losses import DetectorLosses
from factories import coco_annotations, picture, tiny_config, with_training, write_dataset

BOXES = [
    [(1, [10.0, 8.0, 30.0, 20.0]), (7, [50.0, 20.0, 24.0, 40.0])],
    [],  # a picture without an object
    [(3, [0.0, 0.0, 40.0, 30.0])],
    [(1, [60.0, 30.0, 36.0, 34.0]), (3, [4.0, 30.0, 20.0, 20.0])],
]
SIZES = [(64, 96), (64, 96), (96, 64), (50, 80)]
HERE = Ranks(device=torch.device("cpu"))


@pytest.fixture
def files(tmp_path: Path) -> RunFiles:
    """Four small pictures to train and score on, and an empty run folder."""
    annotations, pictures = write_dataset(tmp_path, coco_annotations(SIZES, BOXES))
    return RunFiles(
        train=(DataSource(annotations=annotations, images=pictures),),
        val=DataSource(annotations=annotations, images=pictures),
        out=tmp_path / "run",
        license="CC0-1.0",
    )


def batch_of(images: Tensor) -> Batch:
    return Batch(
        images=images, image_sizes=torch.zeros(1), targets=[], pictures=[], numbers=[], broken=[]
    )


def log_rows(files: RunFiles, kind: str) -> list[dict[str, Any]]:
    lines = (files.out / "log.jsonl").read_text().splitlines()
    return [row for row in map(json.loads, lines) if row["kind"] == kind]


def test_a_run_writes_config_log_checkpoints_and_state(files: RunFiles) -> None:
    metrics = train(with_training(tiny_config(), steps=3), files)
    assert set(metrics) >= {"AP", "AP50", "per_class", "images"}
    assert metrics["images"] == 4
    rows = log_rows(files, "train")
    assert [row["step"] for row in rows] == [1, 2, 3]
    assert len(rows[0]["losses"]) == 9
    assert [row["step"] for row in log_rows(files, "validation")] == [3]
    model, config, metadata = load_checkpoint(files.out / "last.safetensors")
    assert config.class_names == ("disc", "box", "star")
    assert config.category_ids == (1, 3, 7)
    assert metadata["cn2.license"] == "CC0-1.0"
    assert not model.training
    assert (files.out / "best.safetensors").is_file()
    states = sorted(path.name for path in (files.out / "states").iterdir())
    assert states == ["00000002.safetensors", "00000003.safetensors"]  # the last two
    assert json.loads((files.out / "config.json").read_text())["preset"] == "tiny"


def test_the_licence_goes_on_with_the_weights(files: RunFiles, tmp_path: Path) -> None:
    assert inherited_license(None, None) == "unspecified"
    assert inherited_license(tmp_path / "none.safetensors", None) == "unspecified"
    weights = tmp_path / "free.safetensors"
    for path, license in ((weights, "CC0-1.0"), (tmp_path / "last.safetensors", "MIT")):
        model = build_detector(tiny_config())
        save_checkpoint(path, model, tiny_config(), license=license, provenance="a test")
    assert inherited_license(weights, None) == "CC0-1.0"
    assert inherited_license(weights, tmp_path) == "MIT"  # of the run that goes on


def test_classes_come_from_the_training_annotations(files: RunFiles) -> None:
    annotations = coco_annotations(SIZES, [[], [], [], []])
    annotations["categories"] = [{"id": 9, "name": "late"}, {"id": 4, "name": "early"}]
    files.val.annotations.write_text(json.dumps(annotations))
    train(with_training(tiny_config(), steps=1), files)  # no object in any picture: legal
    _, config, _ = load_checkpoint(files.out / "last.safetensors")
    assert config.class_names == ("early", "late")
    assert config.category_ids == (4, 9)


def test_crowds_are_scored_as_crowds(files: RunFiles) -> None:
    annotations = coco_annotations(SIZES, BOXES)
    for row in annotations["annotations"]:
        row["iscrowd"] = 1
    files.val.annotations.write_text(json.dumps(annotations))
    metrics = train(with_training(tiny_config(), steps=1), files)
    assert metrics["AP"] is None  # nothing but crowds: nothing to score on
    assert metrics["images"] == 4


class Spoiled:
    """The losses, but not numbers in chosen steps (counted from 0)."""

    bad_steps: tuple[int, ...] = ()
    calls = 0

    def __init__(self, config: ModelConfig, share: Callable[[float], float]) -> None:
        self.losses = DetectorLosses(config, share)
        Spoiled.calls = 0

    def __call__(self, *arguments: Any) -> dict[str, Tensor]:
        losses = self.losses(*arguments)
        if Spoiled.calls in self.bad_steps:
            losses["regression"] = losses["regression"] * float("nan")
        Spoiled.calls += 1
        return losses


def test_a_step_without_a_finite_loss_is_skipped_and_named(
    files: RunFiles, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(run_module, "DetectorLosses", Spoiled)
    monkeypatch.setattr(Spoiled, "bad_steps", (1, 2))
    train(with_training(tiny_config(), steps=5, max_bad_steps=3, log_every=5), files)
    skipped = log_rows(files, "skipped")
    assert [row["step"] for row in skipped] == [2, 3]
    assert skipped[0]["not_finite"] == ["regression"]
    assert all(Path(name).is_file() for name in skipped[0]["pictures"])
    assert "step 2 skipped: regression not finite" in capsys.readouterr().err
    (row,) = log_rows(files, "train")
    assert math.isfinite(row["loss"])  # the mean is over the good steps


def test_several_bad_steps_in_a_row_stop_the_run(
    files: RunFiles, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(run_module, "DetectorLosses", Spoiled)
    monkeypatch.setattr(Spoiled, "bad_steps", (0, 2, 3))
    config = with_training(tiny_config(), steps=9, max_bad_steps=2)
    with pytest.raises(TrainingError, match=r"2 steps in a row .*regression"):
        train(config, files)
    assert Spoiled.calls == 4


def test_a_bad_step_leaves_weights_and_statistics_alone() -> None:
    torch.manual_seed(0)
    config = tiny_config()
    model = build_detector(config)
    before = {name: value.clone() for name, value in model.state_dict().items()}

    def nan_losses(*_: Any) -> dict[str, Tensor]:
        features = model.features(images, torch.tensor([[64, 96]]))  # moves the statistics
        return {"regression": features[0].sum() * float("nan")}

    images = torch.from_numpy(picture())[None]
    mean = with_training(config, ema_decay=0.9).train
    stepper = Stepper(model, nan_losses, mean, HERE)  # type: ignore[arg-type]
    result = stepper.step([batch_of(images)], rate=0.1)
    assert math.isnan(result.losses["regression"])
    assert math.isnan(result.norm)
    assert not result.good
    assert stepper.mean is not None
    assert stepper.mean.updates == 0
    for name, value in model.state_dict().items():
        assert torch.equal(value, before[name]), name


def test_norms_biases_and_scales_are_not_decayed() -> None:
    model = build_detector(tiny_config())
    decayed, free = build_optimizer(model, tiny_config().train).param_groups
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    assert decayed["weight_decay"] == 1e-4
    assert free["weight_decay"] == 0.0
    assert {names[id(p)].rpartition(".")[2] for p in decayed["params"]} == {"weight"}
    for parameter in free["params"]:
        assert parameter.ndim <= 1
    assert "first_stage.head.level_scales" in {names[id(p)] for p in free["params"]}
    assert len(decayed["params"]) + len(free["params"]) == len(names)


def test_gradients_are_clipped_and_the_rate_is_the_schedules() -> None:
    torch.manual_seed(0)
    config = tiny_config()
    settings = replace(config.train, clip_norm=0.5, momentum=0.0, weight_decay=0.0)
    model = build_detector(config)
    before = [parameter.detach().clone() for parameter in model.parameters()]

    def loud(*_: Any) -> dict[str, Tensor]:
        return {"loss": 100 * model.first_stage.head.heatmap.bias.sum()}

    stepper = Stepper(model, loud, settings, HERE)  # type: ignore[arg-type]
    result = stepper.step([batch_of(torch.zeros(1))], rate=0.25)
    assert result.norm == pytest.approx(100.0)
    assert result.good
    moves = [(a.detach() - b).norm() for a, b in zip(model.parameters(), before, strict=True)]
    assert float(torch.stack(moves).norm()) == pytest.approx(0.5 * 0.25, rel=1e-4)


def test_bf16_lowers_layers_but_not_losses_or_weights(files: RunFiles) -> None:
    config = with_training(tiny_config(), steps=2, precision="bf16")
    train(config, files)
    rows = log_rows(files, "train")
    fp32 = replace(files, out=files.out.with_name("fp32"))
    train(with_training(config, precision="fp32"), fp32)
    exact = log_rows(fp32, "train")
    assert rows[0]["loss"] != exact[0]["loss"]
    assert rows[0]["loss"] == pytest.approx(exact[0]["loss"], rel=0.02)  # bf16 keeps 8 bits


def test_weights_start_a_run_and_other_classes_are_told(
    files: RunFiles, capsys: pytest.CaptureFixture[str]
) -> None:
    train(with_training(tiny_config(), steps=1), files)
    annotations = coco_annotations(SIZES, BOXES)
    annotations["categories"].append({"id": 8, "name": "moon"})
    files.val.annotations.write_text(json.dumps(annotations))
    second = replace(files, out=files.out.with_name("second"))
    last = files.out / "last.safetensors"
    still = with_training(tiny_config(), steps=1, base_lr=0.0)
    train(still, second, weights=last)
    told = [line for line in capsys.readouterr().err.splitlines() if "other classes" in line]
    assert len(told) == 1
    one, _, _ = load_checkpoint(last)
    two, _, _ = load_checkpoint(second.out / "last.safetensors")
    names = dict(two.named_parameters())
    assert torch.equal(one.neck.lateral[0].weight, names["neck.lateral.0.weight"])
    assert names["second_stage.stages.0.class_logits.weight"].shape == (5, 16)


def test_a_run_is_never_mixed_with_another(files: RunFiles) -> None:
    config = with_training(tiny_config(), steps=1)
    with pytest.raises(OutputError, match="start without --resume"):
        train(config, files, resume=True)
    train(config, files)
    with pytest.raises(OutputError, match="holds a run already"):
        train(config, files)
    wider = replace(config, input=replace(config.input, short_edge=32))
    with pytest.raises(ValueError, match="input differ"):
        train(wider, files, resume=True)


def test_bad_data_is_found_before_the_run_folder_is_made(files: RunFiles) -> None:
    with pytest.raises(AnnotationError, match="nowhere"):
        train(tiny_config(), replace(files, val=replace(files.val, images=Path("nowhere"))))
    assert not files.out.exists()


def tear_a_picture(files: RunFiles) -> tuple[Path, bytes]:
    """Cut off one picture's end; its path, and the whole bytes."""
    assert files.val.images is not None
    path = files.val.images / "picture_2.png"
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    return path, whole


def test_a_torn_picture_is_named_counted_and_skipped(
    files: RunFiles, capsys: pytest.CaptureFixture[str]
) -> None:
    path, _ = tear_a_picture(files)
    metrics = train(with_training(tiny_config(), steps=8, broken_limit=0.25), files)
    assert [row["step"] for row in log_rows(files, "train")] == list(range(1, 9))
    (row,) = log_rows(files, "broken")  # once, though it came in every epoch
    assert row["picture"] == str(path)
    assert "cannot be read" in row["reason"]
    assert f"{path}: {row['reason']}; skipped (1 of 4 so far)" in capsys.readouterr().err
    assert metrics["images"] == 4  # scored as a picture in which nothing was found


def test_too_many_torn_pictures_stop_the_run_and_nothing_is_lost(
    files: RunFiles, capsys: pytest.CaptureFixture[str]
) -> None:
    path, whole = tear_a_picture(files)
    config = with_training(tiny_config(), steps=8, save_every=100, broken_limit=0.2)
    with pytest.raises(PictureError, match=rf"1 of 4 .*broken_limit 0.2 .*{path.name}"):
        train(config, files)
    saved = log_rows(files, "broken")[0]["step"]
    assert f"saved at step {saved}; --resume continues there" in capsys.readouterr().err
    path.write_bytes(whole)
    train(config, files, resume=True)
    assert [row["step"] for row in log_rows(files, "train")] == list(range(1, 9))


def test_an_output_folder_that_cannot_be_written(files: RunFiles) -> None:
    assert files.val.images is not None
    blocked = files.val.images / "picture_0.png" / "run"  # below a file
    with pytest.raises(OutputError, match="cannot be written"):
        train(tiny_config(), replace(files, out=blocked))


@pytest.mark.parametrize("device", ["tpu9", "gpu", ""])
def test_unknown_devices_are_refused(files: RunFiles, device: str) -> None:
    with pytest.raises(ValueError, match="expected auto, cpu or cuda"):
        train(tiny_config(), files, device=device)


def test_cuda_asked_for_and_absent_is_an_error(
    files: RunFiles, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(BackendUnavailableError, match="--device cpu"):
        train(tiny_config(), files, device="cuda")
