"""The detector without a second stage: shapes, ties, batches, losses, and that it learns."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from cn2.trainer.build import build_detector
from cn2.trainer.checkpoint import load_weights, save_checkpoint
from cn2.trainer.data.datasets import DataSource
from cn2.trainer.detector import OneStageDetector
from cn2.trainer.model_config import ModelConfig
from cn2.trainer.progress import group_losses
from cn2.trainer.structures import FirstStageOutput, Target
from cn2.trainer.train import RunFiles, train
from cn2.trainer.training_losses import DetectorLosses
from exported import lively_detector
from factories import (
    coco_annotations,
    picture,
    tiny_config,
    tiny_one_stage_config,
    with_training,
    write_dataset,
)

KEYS = {"heatmap_positive", "heatmap_negative", "regression"}


def detector() -> OneStageDetector:
    """A tiny detector whose scores differ from place to place."""
    model = lively_detector(tiny_one_stage_config())
    assert isinstance(model, OneStageDetector)
    return model


def batch(count: int = 3) -> tuple[Tensor, Tensor]:
    images = np.stack([picture(seed=seed) for seed in range(count)])
    sizes = torch.tensor([[64, 96], [50, 90], [33, 65]][:count], dtype=torch.int32)
    return torch.from_numpy(images), sizes


@torch.no_grad()
def test_fixed_shapes_and_types() -> None:
    found = detector()(*batch())
    assert [tuple(x.shape) for x in found] == [(3,), (3, 16, 4), (3, 16), (3, 16)]
    assert [x.dtype for x in found] == [torch.int32, torch.float32, torch.float32, torch.int32]
    assert (found.num_detections > 0).all()
    assert int(found.classes.max()) < 3


@torch.no_grad()
def test_a_batch_is_its_pictures_one_by_one() -> None:
    model, (images, sizes) = detector(), batch()
    together = model(images, sizes)
    for index in range(3):
        alone = model(images[index : index + 1], sizes[index : index + 1])
        for several, one in zip(together, alone, strict=True):
            torch.testing.assert_close(several[index : index + 1], one, atol=1e-4, rtol=0)


@torch.no_grad()
def test_boxes_are_clipped_and_scores_above_the_threshold() -> None:
    images, sizes = batch()
    found = detector()(images, sizes, torch.tensor(0.2))
    for picture_index in range(3):
        count, (height, width) = int(found.num_detections[picture_index]), sizes[picture_index]
        boxes = found.boxes[picture_index, :count]
        assert (boxes >= 0).all()
        assert (boxes <= torch.tensor([width, height, width, height])).all()
        scores = found.scores[picture_index]
        assert (scores[:count] > 0.2).all()
        assert not scores[count:].any()


def test_equal_scores_rank_by_level_then_cell_then_class() -> None:
    stage, config = detector().first_stage, tiny_one_stage_config().model.first_stage
    sizes = ((2, 3), (1, 2), (1, 1))
    heatmaps = [torch.zeros(1, 3, *size) for size in sizes]  # every score is 1/2
    heatmaps[0][0, 2, 0, 1] = 4.0  # but this one
    output = FirstStageOutput(heatmaps, [torch.full((1, 4, *size), 0.5) for size in sizes])
    boxes, scores, classes = stage.candidates(output, 5, torch.tensor(0.1))
    assert boxes.shape == (1, 15, 4)
    assert scores[0, 0] > 0.9
    assert classes[0, :5].tolist() == [2, 0, 1, 2, 0]  # cells 1, 0, 0, 0, 1
    assert boxes[0, :5, 0].tolist() == [8.0, 0.0, 0.0, 0.0, 8.0]
    assert classes[0, 10:].tolist() == [0, 1, 2, 0, 0]  # the third level has three pairs
    assert scores[0, 13:].tolist() == [0.0, 0.0]
    assert not boxes[0, 13:].any()
    found = stage.detect(output, config.test_filter, torch.tensor([[16, 24]]))
    assert found.classes[0, :4].tolist() == [2, 0, 1, 2]
    assert int(found.num_detections[0]) == 16


def target(boxes: list[tuple[float, ...]]) -> Target:
    tensor = torch.tensor(boxes, dtype=torch.float32).reshape(-1, 4)
    return Target(boxes=tensor, classes=torch.arange(len(boxes)) % 3)


def losses_of(
    model: OneStageDetector, targets: list[Target], config: ModelConfig
) -> dict[str, Tensor]:
    images, sizes = batch(len(targets))
    return DetectorLosses(config)(model, images, sizes, targets)


@pytest.mark.parametrize(
    "pictures",
    [
        [[(10, 8, 50, 44), (60.5, 20, 90, 63)], [(2, 2, 12, 12)]],
        [[], []],  # no object at all
        [[(5, 5, 5, 5)], [(0, 0, 0.01, 64)]],  # no area; a sliver on the border
        [[(-500, -500, 700, 700)], [(10, 8, 50, 44)] * 100],  # far larger; a crowd
    ],
)
def test_every_loss_is_finite_and_reaches_every_parameter(
    pictures: list[list[tuple[float, ...]]],
) -> None:
    model = detector().train()
    losses = losses_of(model, [target(some) for some in pictures], tiny_one_stage_config().model)
    assert losses.keys() == KEYS
    assert all(loss.isfinite() and loss >= 0 for loss in losses.values())
    torch.stack(list(losses.values())).sum().backward()  # type: ignore[no-untyped-call]
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.isfinite().all(), name


def test_a_class_map_learns_from_its_own_objects_only() -> None:
    """Objects of class 0 alone: the others' maps have no positive and are pushed down."""
    model = detector().train()
    some = replace(target([(10, 8, 50, 44)]), classes=torch.tensor([0]))
    config = tiny_one_stage_config().model
    losses = losses_of(model, [some], config)
    losses["heatmap_positive"].backward()
    gradient = model.first_stage.head.class_heatmaps.bias.grad
    assert gradient is not None
    assert gradient[0] < 0
    assert gradient[1:].tolist() == [0.0, 0.0]


def test_the_loss_falls(tmp_path: Path) -> None:
    """Sixty steps on two pictures: heat maps end at a quarter, boxes at two thirds."""
    boxes = [[(1, [10.0, 8.0, 30.0, 20.0])], [(7, [50.0, 20.0, 24.0, 40.0])]]
    annotations, pictures = write_dataset(tmp_path, coco_annotations([(64, 96)] * 2, boxes))
    source = DataSource(annotations=annotations, images=pictures)
    files = RunFiles(train=(source,), val=source, out=tmp_path / "run")
    config = tiny_one_stage_config()
    first_stage = replace(config.model.first_stage, regression_bias=3.0)
    config = replace(config, model=replace(config.model, first_stage=first_stage))
    config = with_training(config, steps=60, base_lr=0.05, log_every=1, save_every=100)
    metrics = train(config, files)
    assert metrics["images"] == 2
    lines = (files.out / "log.jsonl").read_text().splitlines()
    rows = [row for row in map(json.loads, lines) if row["kind"] == "train"]
    assert len(rows) == 60
    steps = [group_losses(row["losses"]) for row in rows]
    for kind, factor in {"heatmap": 4.0, "regression": 1.5}.items():
        last = sum(step[kind] for step in steps[-5:]) / 5
        assert steps[0][kind] / last > factor, kind


def test_other_classes_start_with_fresh_heatmaps(tmp_path: Path) -> None:
    config = tiny_one_stage_config()
    path = tmp_path / "three.safetensors"
    save_checkpoint(path, build_detector(config), config, license="", provenance="")
    other = replace(config, class_names=("a", "b"), category_ids=(1, 2))
    fresh = load_weights(build_detector(other), path, other.class_names)
    expected = [f"first_stage.head.class_heatmaps.{part}" for part in ("weight", "bias")]
    assert sorted(fresh) == sorted(expected)


def test_a_class_tower_needs_no_second_stage() -> None:
    model = tiny_config().model
    with pytest.raises(ValueError, match="class_convs: expected 0 before a second stage"):
        replace(model, first_stage=replace(model.first_stage, class_convs=1))
