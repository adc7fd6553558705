"""The whole detector: normalisation, masking, fixed shapes, batches, and that it exports."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor

from cn2.trainer.build import build_detector
from cn2.trainer.detector import Normalizer, TwoStageDetector
from factories import picture, tiny_config


def detector(seed: int = 0) -> TwoStageDetector:
    """A tiny detector whose scores differ from place to place."""
    torch.manual_seed(seed)
    model = build_detector(tiny_config())
    with torch.no_grad():
        model.first_stage.head.heatmap.weight.normal_(std=0.5)
        model.first_stage.head.heatmap.bias.zero_()
        for stage in model.second_stage.stages:
            stage.class_logits.weight.normal_(std=1.0)
    return model.eval()


def batch(count: int = 3) -> tuple[Tensor, Tensor]:
    images = np.stack([picture(seed=seed) for seed in range(count)])
    sizes = torch.tensor([[64, 96], [50, 90], [33, 65]][:count], dtype=torch.int32)
    return torch.from_numpy(images), sizes


@pytest.mark.parametrize("order", ["RGB", "BGR"])
def test_normalizer(order: str) -> None:
    images = torch.zeros(1, 2, 3, 3, dtype=torch.uint8)
    images[0, 0, 0] = torch.tensor([200, 100, 50], dtype=torch.uint8)
    normalizer = Normalizer(order, mean=(10.0, 20.0, 30.0), std=(2.0, 4.0, 5.0))  # type: ignore[arg-type]
    x = normalizer(images, torch.tensor([[1, 2]]))
    assert x.shape == (1, 3, 2, 3)
    first = [95.0, 20.0, 4.0] if order == "RGB" else [20.0, 20.0, 34.0]
    assert x[0, :, 0, 0].tolist() == first
    assert x[0, :, 0, 1].tolist() == [-5.0, -5.0, -6.0]  # black, inside the picture
    assert not x[0, :, 1, :].any()  # below it
    assert not x[0, :, :, 2].any()  # right of it


@torch.no_grad()
def test_fixed_shapes_and_types() -> None:
    found = detector()(*batch())
    assert [tuple(x.shape) for x in found] == [(3,), (3, 100, 4), (3, 100), (3, 100)]
    assert [x.dtype for x in found] == [torch.int32, torch.float32, torch.float32, torch.int32]
    assert (found.num_detections > 0).all()
    assert int(found.classes.max()) < 3


@torch.no_grad()
def test_pixels_outside_the_picture_do_not_matter() -> None:
    model, (images, sizes) = detector(), batch()
    noisy = images.clone()
    for index, (height, width) in enumerate(sizes.tolist()):
        noisy[index, height:] = 255
        noisy[index, :, width:] = 13
    for plain, other in zip(model(images, sizes), model(noisy, sizes), strict=True):
        assert torch.equal(plain, other)


@torch.no_grad()
def test_batch_equals_single_pictures_in_any_order() -> None:
    model, (images, sizes) = detector(), batch()
    together = model(images, sizes)
    reverse = model(images.flip(0), sizes.flip(0))
    for index in range(3):
        alone = model(images[index : index + 1], sizes[index : index + 1])
        for whole, backwards, one in zip(together, reverse, alone, strict=True):
            torch.testing.assert_close(whole[index], one[0], atol=1e-4, rtol=0)
            torch.testing.assert_close(backwards[2 - index], one[0], atol=1e-4, rtol=0)


@torch.no_grad()
def test_a_picture_of_one_pixel_and_a_threshold_nothing_passes() -> None:
    images, _ = batch(2)
    found = detector()(images, torch.tensor([[1, 1], [64, 96]]), torch.tensor(1.0))
    assert found.num_detections.tolist() == [0, 0]
    assert not found.boxes.any()
    found = detector()(images, torch.tensor([[1, 1], [64, 96]]), torch.tensor(0.0))
    assert found.boxes[0].max() <= 1.0


def test_runs_in_training_mode_and_backward_reaches_every_part() -> None:
    model, (images, sizes) = detector().train(), batch()
    features = model.features(images, sizes)
    output = model.first_stage(features)
    proposals = model.first_stage.propose(output, model.test_filter)
    loss = sum((x.square().mean() for x in (*output.logits, *output.regressions)), torch.zeros(()))
    pooled = model.second_stage.pool(features, list(proposals.boxes))
    for stage in model.second_stage.stages:
        logits, deltas = stage(pooled)
        loss = loss + logits.square().mean() + deltas.square().mean()
    loss.backward()
    without = [name for name, p in model.named_parameters() if p.grad is None]
    assert without == []


def test_same_seed_same_weights() -> None:
    for one, other in zip(detector(3).parameters(), detector(3).parameters(), strict=True):
        assert torch.equal(one, other)


@torch.no_grad()
def test_exports_with_dynamic_batch_and_canvas() -> None:
    """No branch depends on data or on the example's size; cn2.export relies on it."""
    model, (images, sizes) = detector(), batch()
    batch_size = torch.export.Dim("batch", min=1, max=16)
    height = 32 * torch.export.Dim("height", min=1, max=16)
    width = 32 * torch.export.Dim("width", min=1, max=16)
    program = torch.export.export(
        model,
        (images, sizes, torch.tensor(0.1)),
        dynamic_shapes=({0: batch_size, 1: height, 2: width}, {0: batch_size}, None),
        strict=False,
    )
    larger = torch.from_numpy(np.stack([picture(128, 160, seed) for seed in range(2)]))
    sizes = torch.tensor([[120, 150], [128, 100]], dtype=torch.int32)
    expected = model(larger, sizes, torch.tensor(0.2))
    exported = program.module()(larger, sizes, torch.tensor(0.2))
    for ours, theirs in zip(expected, exported, strict=True):
        assert torch.equal(ours, theirs)


def test_other_classes_make_another_detector() -> None:
    config = tiny_config()
    wider = replace(config, class_names=("a", "b", "c", "d"), category_ids=(1, 2, 3, 4))
    assert build_detector(wider).second_stage.stages[0].class_logits.out_features == 5
