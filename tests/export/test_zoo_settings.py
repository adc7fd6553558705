"""Settings of official models that no fixture's file has, kept by an exported one.

Blue first over an RGB mean (R2-101-DCN), sides that are cut off (the 1560 model), 300 detections
(LVIS, Objects365).
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from cn2.export.onnx_file import export_onnx
from cn2.runtime.backends.onnxruntime import OnnxRuntimeBackend
from cn2.runtime.detector import Detector
from cn2.trainer.build import build_detector
from cn2.trainer.config import Config
from cn2.trainer.model_config import ProposalFilter
from exported import canvases, lively_detector
from factories import picture, tiny_config

MEAN, STD = (123.675, 116.28, 103.53), (58.395, 57.12, 57.375)  # RGB's numbers


@pytest.fixture(scope="module")
def config() -> Config:
    tiny = tiny_config()
    first_stage = replace(
        tiny.model.first_stage, test_filter=ProposalFilter(pre_nms=80, post_nms=128)
    )
    second_stage = tiny.model.second_stage
    assert second_stage is not None
    second_stage = replace(second_stage, detections=300, nms_iou=0.95, score_threshold=0.02)
    return replace(
        tiny,
        input=replace(
            tiny.input,
            color_order="BGR",
            pixel_mean=MEAN,
            pixel_std=STD,
            short_edge=90,
            long_edge=90,
            rounding="down",
        ),
        model=replace(tiny.model, first_stage=first_stage, second_stage=second_stage),
    )


@pytest.fixture(scope="module")
def path(config: Config, tmp_path_factory: pytest.TempPathFactory, quick_export: None) -> Path:
    path = tmp_path_factory.mktemp("zoo") / "tiny.onnx"
    export_onnx(lively_detector(config), config, path)
    return path


def test_blue_is_first_and_the_mean_is_not_turned(config: Config, path: Path) -> None:
    """An RGB network of the same weights sees in a turned picture what this one sees."""
    rgb = build_detector(replace(config, input=replace(config.input, color_order="RGB"))).eval()
    rgb.load_state_dict(lively_detector(config).state_dict())
    images, sizes = canvases(2, 64, 96)
    found = OnnxRuntimeBackend.open(path, device="cpu").infer(images, sizes)
    with torch.no_grad():
        turned, same = (
            rgb(torch.from_numpy(np.ascontiguousarray(pixels)), torch.from_numpy(sizes))
            for pixels in (images[..., ::-1], images)
        )
    np.testing.assert_array_equal(found.num_detections, turned.num_detections)
    np.testing.assert_allclose(found.scores, turned.scores, atol=1e-5)
    np.testing.assert_allclose(found.boxes, turned.boxes, atol=1e-3)
    assert np.abs(found.scores - same.scores.numpy()).max() > 1e-3


def test_three_hundred_detections(path: Path) -> None:
    images, sizes = canvases(2, 128, 160)
    found = OnnxRuntimeBackend.open(path, device="cpu").infer(images, sizes, 0.0)
    assert found.boxes.shape == (2, 300, 4)
    assert found.num_detections.min() > 100


@pytest.mark.parametrize(
    ("height", "width", "expected"),
    [(100, 151, (59, 90)), (151, 100, (90, 59)), (45, 90, (45, 90)), (64, 96, (60, 90))],
)
def test_sides_are_cut_off(path: Path, height: int, width: int, expected: tuple[int, int]) -> None:
    """59.6 pixels become 59, where the other models have 60; boxes scale back by what was done."""
    with Detector.open(path, device="cpu") as detector:
        assert detector.manifest.canvas.resized_size(height, width) == expected
        found = detector(picture(height, width), score_threshold=0.02)
    assert len(found.boxes) > 0
    assert (found.boxes[:, 2:] <= [width, height]).all()
