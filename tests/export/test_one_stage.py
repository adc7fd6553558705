"""A detector without a second stage as a file: what torch finds, its manifest, its verification."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from cn2.export.agreement import MARGIN
from cn2.export.describe import describe
from cn2.export.reference import Reference, undecided_pairs
from cn2.export.torch_backend import TorchBackend
from cn2.export.verify import bundled_pictures, require_agreement, verify
from cn2.runtime.canvas import CanvasRule
from cn2.runtime.detector import Detector
from cn2.runtime.preprocess import place_picture
from cn2.trainer.checkpoint import save_checkpoint
from exported import Exported, canvases
from factories import picture, tiny_one_stage_config
from native_agreement import assert_native_agrees
from native_libraries import needs_library


@pytest.mark.parametrize(
    ("batch", "height", "width"),
    [(1, 64, 96), (2, 96, 64), (8, 160, 128)],  # EXAMPLE sizes are others
)
def test_the_file_finds_what_torch_finds(
    one_stage: Exported, batch: int, height: int, width: int
) -> None:
    images, sizes = canvases(batch, height, width, seed=batch + width)
    for threshold in (None, 0.0, 0.3):
        expected = one_stage.torch_run(images, sizes, threshold)
        found = one_stage.backend.infer(images, sizes, threshold)
        np.testing.assert_array_equal(found.num_detections, expected.num_detections)
        np.testing.assert_array_equal(found.classes, expected.classes)
        np.testing.assert_allclose(found.scores, expected.scores, atol=1e-5)
        np.testing.assert_allclose(found.boxes, expected.boxes, atol=1e-3)
        assert expected.num_detections.min() >= 1


def test_the_default_threshold_is_the_configs(one_stage: Exported) -> None:
    images, sizes = canvases(2, 64, 96)
    default, same = (one_stage.backend.infer(images, sizes, t) for t in (None, 0.05))
    np.testing.assert_array_equal(default.scores, same.scores)
    assert default.scores[default.scores > 0].min() > 0.05
    lowest = one_stage.backend.infer(images, sizes, 0.0)
    assert lowest.num_detections.tolist() == [16, 16]


def test_nothing_found_is_zeros(one_stage: Exported) -> None:
    images, sizes = canvases(3, 96, 64)
    found = one_stage.backend.infer(images, sizes, 1.0)
    assert found.num_detections.tolist() == [0, 0, 0]
    assert not any(output.any() for output in found)


def test_manifest() -> None:
    manifest = describe(tiny_one_stage_config())
    assert (manifest.proposals, manifest.detections) == (None, 16)
    assert (manifest.score_rule, manifest.score_threshold) == ("heatmap", 0.05)
    with pytest.raises(ValueError, match="as this detector has no second stage, got 5"):
        describe(tiny_one_stage_config(), proposals=5)


def test_verification_agrees(one_stage: Exported) -> None:
    result = verify(one_stage.path, one_stage.model, one_stage.config, bundled_pictures())
    require_agreement(result)
    assert result.agreement.detections >= 20


def test_a_checkpoint_runs_in_torch_as_in_the_file(one_stage: Exported, tmp_path: Path) -> None:
    path = tmp_path / "one.safetensors"
    save_checkpoint(path, one_stage.model, one_stage.config, license="", provenance="")
    image = picture(60, 90)
    with Detector.open(one_stage.path, device="cpu") as detector:
        expected = detector(image)
    with Detector(TorchBackend.open(path, device="cpu")) as detector:
        found = detector(image)
    np.testing.assert_array_equal(found.class_ids, expected.class_ids)
    np.testing.assert_allclose(found.boxes, expected.boxes, atol=0.01)
    assert len(found.class_ids) >= 1


def test_open_pairs_are_at_the_cut_of_their_level(one_stage: Exported) -> None:
    """With equal scores everywhere each level's cut is open, and all that is equal to it."""
    rule = CanvasRule(short_edge=64, long_edge=96, divisor=32, interpolation="linear")
    place = place_picture(picture(48, 64), rule)
    model = one_stage.model
    weight = model.first_stage.head.class_heatmaps.weight.detach().clone()
    with torch.no_grad():
        model.first_stage.head.class_heatmaps.weight.zero_()
        found = Reference(model).open_proposals(place)
        model.first_stage.head.class_heatmaps.weight.copy_(weight)
    # 40 pairs of each level are kept; P5 has 2 x 3 cells of 3 classes, so no cut.
    assert found.boxes.shape == (len(found.scores), 4)
    assert found.scores.shape[1] == 3
    assert len(found.scores) >= 2 * 41
    assert ((found.scores > 0).sum(axis=1) == 1).all()


def test_undecided_pairs_are_of_one_class() -> None:
    boxes = torch.tensor([[0.0, 0, 100, 10], [0, 0, 60, 10], [0, 0, 50, 10], [0, 0, 60, 10]])
    closed = torch.zeros(4, dtype=torch.bool)
    classes = torch.tensor([0, 0, 0, 1])
    # 1 overlaps 0 by exactly 0.6; 2 overlaps 0 by 0.5 and 1 by 0.83; 3 is of another class
    assert undecided_pairs(boxes, classes, closed, 0.6).tolist() == [1, 2]
    assert undecided_pairs(boxes, classes, closed, 0.6 + 2 * MARGIN).tolist() == []
    first = torch.tensor([True, False, False, False])
    assert undecided_pairs(boxes, classes, first, 0.55).tolist() == [0, 1]


@needs_library("cn2")
def test_libcn2_finds_the_same(one_stage: Exported) -> None:
    assert_native_agrees(one_stage.path)
