"""Backbones beside `nano`, and the up path as a neck, in an exported file."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from cn2.export.agreement import SCORE_TOLERANCE
from cn2.trainer.model_config import DLAUpConfig, EfficientNetLiteConfig
from exported import Exported, canvases, export_to, lively_detector
from factories import tiny_config

DLA_UP = replace(
    tiny_config().model,
    neck=DLAUpConfig(levels=(2,), channels=8),
    first_stage=replace(
        tiny_config().model.first_stage,
        sizes_of_interest=((0.0, 1e6),),
        deformable=True,
        prior=0.5,  # while `lively_detector` looks at the second stage, it multiplies
        regression_bias=0.05,  # these two biases, here by some eighty
    ),
    second_stage=replace(tiny_config().model.second_stage, levels=(2,)),
)
MODELS = {  # parts in place of the tiny detector's
    "lite": replace(tiny_config().model, backbone=EfficientNetLiteConfig()),
    "dla-up": DLA_UP,
}


@pytest.fixture(scope="module", params=MODELS)
def exported(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Exported:
    """The tiny detector with other parts."""
    config = replace(tiny_config(), model=MODELS[request.param])
    return export_to(tmp_path_factory.mktemp(request.param), lively_detector(config), config)


@pytest.mark.slow  # an export of its own
@pytest.mark.parametrize(("batch", "height", "width"), [(1, 64, 96), (3, 160, 96)])
def test_the_file_finds_what_torch_finds(
    exported: Exported, batch: int, height: int, width: int
) -> None:
    """Other sizes than that of the export, so uneven borders and offsets are in the graph."""
    images, sizes = canvases(batch, height, width, seed=batch)
    expected = exported.torch_run(images, sizes)
    found = exported.backend.infer(images, sizes)
    assert expected.num_detections.min() >= 1
    np.testing.assert_array_equal(found.num_detections, expected.num_detections)
    np.testing.assert_array_equal(found.classes, expected.classes)
    np.testing.assert_allclose(found.boxes, expected.boxes, atol=0.01, rtol=0)
    np.testing.assert_allclose(found.scores, expected.scores, atol=SCORE_TOLERANCE, rtol=0)
