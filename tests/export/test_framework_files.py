"""The paper's framework as files: what torch finds, in both forms of operators, by libcn2 too."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch

from cn2.export.precision import lower
from cn2.export.reference import Reference
from cn2.export.verify import bundled_pictures, require_agreement, verify
from cn2.plugins import library_path
from cn2.runtime.canvas import CanvasRule
from cn2.runtime.manifest import OperatorForm
from cn2.runtime.preprocess import place_picture
from cn2.trainer.config import Config
from cn2.trainer.presets import PRESETS
from exported import Exported, canvases, export_to, lively_detector
from factories import picture, shrunk
from native_agreement import assert_native_agrees
from native_libraries import is_required

# The one-stage detectors and those behind an RPN in both forms, the others in one: an export
# takes its time. `test_faster_rcnn` has the form that faster-rcnn-r50-fpn lacks here.
TABLE_1: tuple[tuple[str, OperatorForm], ...] = (
    ("retinanet-r50-fpn", "standard"),
    ("retinanet-r50-fpn", "fused"),
    ("retinanet-r50-fpn-faster", "fused"),
    ("retinanet-r50-fpn-cascade", "standard"),
    ("atss-r50-fpn", "standard"),
    ("atss-r50-fpn", "fused"),
    ("atss-r50-fpn-faster", "standard"),
    ("atss-r50-fpn-cascade", "fused"),
    ("gfl-r50-fpn", "standard"),
    ("gfl-r50-fpn", "fused"),
    ("gfl-r50-fpn-faster", "standard"),
    ("gfl-r50-fpn-cascade", "fused"),
    ("centernet-r50-fpn", "standard"),
    ("centernet-r50-fpn", "fused"),
    ("r50-fpn-faster", "fused"),
    ("r50-fpn", "standard"),
    ("faster-rcnn-r50-fpn", "standard"),
    ("cascade-rcnn-r50-fpn", "standard"),
    ("cascade-rcnn-r50-fpn", "fused"),
)
BOX_ATOL_PX, SCORE_ATOL = 0.05, 1e-4
ENOUGH = 200  # detections compared


def small(preset: str) -> Config:
    """`shrunk`, but more detections, at a threshold that most pass."""
    config = shrunk(PRESETS[preset]())
    model = config.model
    if model.second_stage is None:
        count = (
            120 if preset == "centernet-r50-fpn" else 60
        )  # its boxes suppress more of each other
        keep = replace(model.first_stage.test_filter, pre_nms=count, post_nms=count)
        model = replace(model, first_stage=replace(model.first_stage, test_filter=keep))
    else:
        keep = replace(model.first_stage.test_filter, pre_nms=60, post_nms=40)
        model = replace(
            model,
            first_stage=replace(model.first_stage, test_filter=keep),
            second_stage=replace(model.second_stage, detections=60),
        )
    return replace(config, model=model)


def assert_file_finds_what_torch_finds(preset: str, ops: OperatorForm, folder: Path) -> Exported:
    config = small(preset)
    exported = export_to(folder, lively_detector(config), config, ops)
    graph = onnx.load(exported.path).graph
    if ops == "fused":
        assert not {"NonZero", "NonMaxSuppression"} & {node.op_type for node in graph.node}
    backend, compared = exported.backend, 0
    for batch, height, width in ((1, 64, 96), (4, 96, 128)):
        images, sizes = canvases(batch, height, width, seed=height)
        expected = exported.torch_run(images, sizes, 0.01)
        found = backend.infer(images, sizes, 0.01)
        np.testing.assert_array_equal(found.num_detections, expected.num_detections)
        np.testing.assert_array_equal(found.classes, expected.classes)
        np.testing.assert_allclose(found.boxes, expected.boxes, atol=BOX_ATOL_PX, rtol=0)
        np.testing.assert_allclose(found.scores, expected.scores, atol=SCORE_ATOL, rtol=0)
        compared += int(expected.num_detections.sum())
    assert compared >= ENOUGH
    if ops == "fused" and (library_path("cn2") or is_required()):
        assert assert_native_agrees(exported.path).endswith(" on cpu, fused operators")
    return exported


@pytest.mark.slow
def test_faster_rcnn(tmp_path: Path) -> None:
    """Anchors of an RPN, suppression within its levels, boxes of each class."""
    exported = assert_file_finds_what_torch_finds("faster-rcnn-r50-fpn", "fused", tmp_path)
    result = verify(exported.path, exported.model, exported.config, bundled_pictures()[:2])
    require_agreement(result)
    placed = place_picture(picture(64, 96), CanvasRule(short_edge=64, long_edge=96, divisor=32))
    opened = Reference(exported.model).open_proposals(placed)
    assert len(opened.boxes) == len(opened.scores)  # of each class
    assert len(opened.boxes) % 3 == 0
    assert ((opened.scores > 0).sum(axis=1) <= 1).all()


@pytest.mark.parametrize("preset", ["atss-r50-fpn-faster", "gfl-r50-fpn", "faster-rcnn-r50-fpn"])
def test_heads_are_islands_of_fp16(preset: str) -> None:
    """Towers in half precision, what they predict in single and much the same."""
    config = small(preset)
    model = lively_detector(config)
    lowered = lower(model)
    images, sizes = (torch.from_numpy(part) for part in canvases(1, 64, 96, seed=1))
    with torch.inference_mode():
        features = lowered.features(images, sizes)
        output, exact = (
            lowered.first_stage(features),
            model.first_stage(model.features(images, sizes)),
        )
    assert features[0].dtype == torch.float16
    assert lowered.first_stage.head.tower[0].weight.dtype == torch.float16
    for level, wanted in zip(
        (*output.logits, *output.regressions, *(output.centerness or ())),
        (*exact.logits, *exact.regressions, *(exact.centerness or ())),
        strict=True,
    ):
        assert level.dtype == torch.float32
        torch.testing.assert_close(level, wanted, atol=0.1, rtol=0.05)


@pytest.mark.slow
@pytest.mark.parametrize(("preset", "ops"), TABLE_1)
def test_files_of_table_1(preset: str, ops: OperatorForm, tmp_path: Path) -> None:
    assert_file_finds_what_torch_finds(preset, ops, tmp_path)
