"""The federated loss: which classes count, how they are drawn, and where the weights come from."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from cn2.trainer.build import build_detector
from cn2.trainer.checkpoint import load_checkpoint, load_weights, save_checkpoint
from cn2.trainer.data.datasets import DataSource
from cn2.trainer.detector import TwoStageDetector, set_frequency_weights
from cn2.trainer.model_config import CascadeRCNNConfig, FederatedConfig
from cn2.trainer.structures import Target
from cn2.trainer.targets.federated import draw_ranks, federated_classes, frequency_weights
from cn2.trainer.train import RunFiles, train
from cn2.trainer.training_losses import DetectorLosses
from factories import (
    coco_annotations,
    tiny_config,
    tiny_federated_config,
    with_training,
    write_dataset,
)
from reference.losses_reference import federated_loops


@pytest.mark.parametrize("count", [1, 3, 5, 50])  # fewer than occur, as many, more, all there are
@pytest.mark.parametrize(
    "classes",
    [
        [],  # no RoI
        [12],  # background only, of 12 classes
        [0, 0, 12, 7],
        [3, 4, 5, 3, 4],  # no background
        list(range(13)),
    ],
)
def test_classes_equal_the_loops(classes: list[int], count: int) -> None:
    ranks = draw_ranks(torch.arange(12.0), torch.Generator().manual_seed(count))
    assert ranks[0] == 0  # a class without pictures is never drawn
    rois = torch.tensor(classes, dtype=torch.int64)
    found = federated_classes(rois, ranks, count)
    assert found.tolist() == federated_loops(classes, ranks.tolist(), count)


def test_equal_ranks_go_to_the_lower_class() -> None:
    found = federated_classes(torch.tensor([5, 6]), torch.ones(6), 4)
    assert found.nonzero().flatten().tolist() == [0, 1, 5]


def test_classes_are_drawn_in_proportion_to_their_weights() -> None:
    weights = torch.tensor([1.0, 2.0, 4.0, 0.0])
    generator = torch.Generator().manual_seed(0)
    draws = torch.stack([draw_ranks(weights, generator) for _ in range(4000)])
    first = torch.bincount(draws.argmax(dim=1), minlength=4) / 4000
    torch.testing.assert_close(first, weights / 7, atol=0.025, rtol=0)
    rest = draws[draws.argmax(dim=1) == 2]  # of what is left the second is drawn likewise
    second = torch.bincount(rest[:, :2].argmax(dim=1), minlength=2) / len(rest)
    torch.testing.assert_close(second, torch.tensor([1 / 3, 2 / 3]), atol=0.035, rtol=0)


def test_weights_are_a_power_of_the_counts() -> None:
    found = frequency_weights(torch.tensor([0, 1, 100]), 0.5)
    assert found.tolist() == [0.0, 1.0, 10.0]


def losses_of(seed: int | None, federated: FederatedConfig) -> dict[str, float]:
    config = tiny_federated_config()
    second = config.model.second_stage
    assert second is not None
    model = replace(config.model, second_stage=replace(second, federated=federated))
    torch.manual_seed(0)
    detector = build_detector(replace(config, model=model))
    images = torch.randint(0, 256, (1, 64, 96, 3), dtype=torch.uint8)
    boxes = torch.tensor([[10.0, 8, 50, 44]])
    target = Target(boxes=boxes, classes=torch.tensor([0]), seed=seed)
    found = DetectorLosses(model)(detector, images, torch.tensor([[64, 96]]), [target])
    return {name: loss.item() for name, loss in found.items()}


def test_a_picture_seed_repeats_the_draw_of_every_stage() -> None:
    two = FederatedConfig(classes=3)  # background, the object's class, and one drawn of two
    first, again = losses_of(4, two), losses_of(4, two)
    assert first == again
    every = losses_of(4, FederatedConfig(classes=4))
    assert all(first[f"class_{k}"] < every[f"class_{k}"] for k in range(3))
    others = [losses_of(seed, two) for seed in range(5, 11)]
    assert any(other["class_0"] != first["class_0"] for other in others)


def test_config_wants_sigmoids() -> None:
    with pytest.raises(ValueError, match="expected classifier sigmoid, got softmax"):
        CascadeRCNNConfig(levels=(3,), federated=FederatedConfig())


def test_a_fresh_sigmoid_starts_at_its_prior() -> None:
    detector = build_detector(tiny_federated_config())
    assert isinstance(detector, TwoStageDetector)
    for stage in detector.second_stage.stages:
        bias = stage.class_logits.bias
        torch.testing.assert_close(bias.sigmoid(), torch.full_like(bias, 0.01))


def test_setting_weights_refuses_what_does_not_fit() -> None:
    with pytest.raises(ValueError, match="expected a detector with a federated loss, got none"):
        set_frequency_weights(build_detector(tiny_config()), torch.ones(3))
    with pytest.raises(ValueError, match=r"expected \(3,\), one per class, got \(4,\)"):
        set_frequency_weights(build_detector(tiny_federated_config()), torch.ones(4))


def test_training_takes_the_weights_from_the_annotations(tmp_path: Path) -> None:
    """Kept in the checkpoint, in the mean weights and through a resume that draws as before."""
    boxes = [
        [(1, [10.0, 8.0, 30.0, 20.0]), (1, [40.0, 8.0, 30.0, 20.0])],
        [(1, [5.0, 5.0, 40.0, 40.0]), (7, [50.0, 20.0, 24.0, 40.0])],
        [],
    ]
    annotations, pictures = write_dataset(tmp_path, coco_annotations([(64, 96)] * 3, boxes))
    source = DataSource(annotations=annotations, images=pictures)
    files = RunFiles(train=(source,), val=source, out=tmp_path / "run")
    config = with_training(tiny_federated_config(), steps=4, milestones=(), ema_decay=0.5)
    train(config, files)
    model, _, _ = load_checkpoint(files.out / "last.safetensors")
    assert isinstance(model, TwoStageDetector)
    assert model.second_stage.freq_weight is not None
    expected = np.sqrt([2.0, 0.0, 1.0])  # pictures that show disc, box, star
    np.testing.assert_allclose(model.second_stage.freq_weight, expected)

    halves = replace(files, out=tmp_path / "halves")
    train(with_training(config, steps=2), halves)
    train(config, halves, resume=True)
    whole, resumed = (
        [json.loads(line) for line in (out / "log.jsonl").read_text().splitlines()]
        for out in (files.out, halves.out)
    )
    losses = [[row["loss"] for row in rows if row["kind"] == "train"] for rows in (whole, resumed)]
    assert losses[0] == pytest.approx(losses[1], rel=1e-6)


def test_other_classes_get_weights_of_their_own(tmp_path: Path) -> None:
    config = tiny_federated_config()
    torch.manual_seed(0)
    detector = build_detector(config)
    set_frequency_weights(detector, torch.tensor([3.0, 4.0, 5.0]))
    path = tmp_path / "three.safetensors"
    save_checkpoint(path, detector, config, license="", provenance="")
    other = replace(config, class_names=("a", "b"), category_ids=(1, 2))
    smaller = build_detector(other)
    fresh = load_weights(smaller, path, other.class_names)
    assert "second_stage.freq_weight" in fresh
    assert smaller.state_dict()["second_stage.freq_weight"].tolist() == [1.0, 1.0]
