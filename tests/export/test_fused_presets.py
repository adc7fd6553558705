"""Whole presets as files of fused operators: bodies and kernels find what torch finds."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest

from cn2.export.agreement import SCORE_TOLERANCE
from cn2.trainer.presets import PRESETS
from exported import canvases, export_to, lively_detector

# One of each kind of ending: a cascade, 1,203 sigmoid classes, one stage. Most others differ in
# their backbones, which hold no operator of ours; each takes minutes to export.
ENDINGS = ("dla34-bifpn-p3", "r50-fpn-lvis-fed", "centernet-r50-fpn")
BOX_ATOL_PX = 0.05  # deep networks of random weights round in their own ways


@pytest.mark.slow
@pytest.mark.parametrize("preset", ENDINGS)
def test_a_preset(preset: str, tmp_path: Path, operator_library: Path) -> None:
    config = PRESETS[preset]()
    exported = export_to(tmp_path, lively_detector(config), config, "fused")
    graph = onnx.load(exported.path).graph
    assert not {"NonZero", "NonMaxSuppression"} & {node.op_type for node in graph.node}
    steps = config.input.divisor
    images, sizes = canvases(1, -(-192 // steps) * steps, -(-256 // steps) * steps, seed=1)
    bodies, kernels = (
        exported.opened(fused=way).infer(images, sizes, 0.1) for way in (False, True)
    )
    assert bodies.num_detections[0] >= 1
    for found, expected in ((kernels, bodies), (bodies, exported.torch_run(images, sizes, 0.1))):
        np.testing.assert_array_equal(found.num_detections, expected.num_detections)
        np.testing.assert_array_equal(found.classes, expected.classes)
        np.testing.assert_allclose(found.boxes, expected.boxes, atol=BOX_ATOL_PX, rtol=0)
        np.testing.assert_allclose(found.scores, expected.scores, atol=SCORE_TOLERANCE, rtol=0)
