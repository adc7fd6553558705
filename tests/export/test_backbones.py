"""Backbones beside `nano` in an exported file."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from cn2.export.agreement import SCORE_TOLERANCE
from cn2.trainer.model_config import EfficientNetLiteConfig
from exported import Exported, canvases, export_to, lively_detector
from factories import tiny_config


@pytest.fixture(scope="module")
def lite(tmp_path_factory: pytest.TempPathFactory) -> Exported:
    """EfficientNet-Lite0 under the tiny detector's neck and heads."""
    config = tiny_config()
    model = replace(config.model, backbone=EfficientNetLiteConfig())
    config = replace(config, model=model)
    return export_to(tmp_path_factory.mktemp("lite"), lively_detector(config), config)


@pytest.mark.slow  # an export of its own
@pytest.mark.parametrize(("batch", "height", "width"), [(1, 64, 96), (3, 160, 96)])
def test_efficientnet_lite_finds_what_torch_finds(
    lite: Exported, batch: int, height: int, width: int
) -> None:
    """Other sizes than that of the export, so the uneven borders at stride 2 are in the graph."""
    images, sizes = canvases(batch, height, width, seed=batch)
    expected = lite.torch_run(images, sizes)
    found = lite.backend.infer(images, sizes)
    assert expected.num_detections.min() >= 1
    np.testing.assert_array_equal(found.num_detections, expected.num_detections)
    np.testing.assert_array_equal(found.classes, expected.classes)
    np.testing.assert_allclose(found.boxes, expected.boxes, atol=0.01, rtol=0)
    np.testing.assert_allclose(found.scores, expected.scores, atol=SCORE_TOLERANCE, rtol=0)
