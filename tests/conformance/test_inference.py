"""Inference equals the official implementation, step by step, on the shared fixtures."""

from __future__ import annotations

import hashlib
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from cn2.trainer import ops
from cn2.trainer.boxes import clip_boxes, decode_deltas
from cn2.trainer.detector import AnyDetector, TwoStageDetector
from cn2.trainer.structures import FirstStageOutput, RawDetections
from conformance.official import (
    BOX_ATOL_PX,
    FEATURE_ATOL,
    FIXTURES,
    SCORE_ATOL,
    Fixture,
    assert_features,
    assert_head,
    assert_same_proposals,
    assert_summary,
    build_official,
    clipped_raw_boxes,
    fixture_weights,
    load_fixture,
)


@dataclass(frozen=True)
class Run:
    """A fixture and everything our detector computed on its picture."""

    fixture: Fixture
    detector: AnyDetector
    picture: NDArray[np.uint8]  # resized, RGB
    network_input: Tensor
    stages: list[Tensor]  # of the backbone
    features: list[Tensor]
    first: FirstStageOutput
    detections: RawDetections

    @property
    def size(self) -> Tensor:
        return torch.tensor([self.picture.shape[:2]], dtype=torch.int32)

    @property
    def two_stage(self) -> TwoStageDetector:
        """The detector, where it has a second stage; else the test is skipped."""
        if not isinstance(self.detector, TwoStageDetector):
            pytest.skip("no second stage")
        return self.detector


@pytest.fixture(scope="module", params=FIXTURES)
def run(request: pytest.FixtureRequest, shared: Path) -> Run:
    """One inference per fixture; all tests of the module look at it."""
    fixture = load_fixture(shared, request.param)
    detector = build_official(shared, fixture).eval()
    height, width = fixture.facts["input"]["resized_hw"]
    with Image.open(shared / "conformance" / "image_shared.png") as image:
        resized = image.convert("RGB").resize((width, height), Image.Resampling.BILINEAR)
    picture = np.asarray(resized)
    canvas_height, canvas_width = fixture.facts["input"]["padded_hw"]
    canvas = torch.full((1, canvas_height, canvas_width, 3), 77, dtype=torch.uint8)
    canvas[0, :height, :width] = torch.from_numpy(picture.copy())
    size = torch.tensor([[height, width]], dtype=torch.int32)
    return Run(fixture, detector, picture, **everything_computed(detector, canvas, size))


@torch.no_grad()
def everything_computed(detector: AnyDetector, canvas: Tensor, size: Tensor) -> dict[str, Any]:
    """What the parts gave in one inference, by the names of `Run`."""
    seen: dict[str, Any] = {}

    def keep(name: str, module: nn.Module) -> RemovableHandle:
        return module.register_forward_hook(lambda _, __, output: seen.update({name: output}))

    parts = {
        "network_input": detector.preprocess,
        "stages": detector.backbone,
        "features": detector.neck,
        "first": detector.first_stage,
        "detections": detector,
    }
    hooks = [keep(name, part) for name, part in parts.items()]
    detector(canvas, size)
    for hook in hooks:
        hook.remove()
    return seen


def test_weights_are_the_fixtures(run: Run, shared: Path) -> None:
    weights = fixture_weights(shared, run.fixture)
    for name, probe in run.fixture.facts["weight_probe"].items():
        value = weights[name].astype(np.float64)
        np.testing.assert_allclose([value.sum(), (value**2).sum()], probe, rtol=1e-9, err_msg=name)


def test_parameter_count(run: Run) -> None:
    count = sum(parameter.numel() for parameter in run.detector.parameters())
    shapes = {name: shape for name, shape, _ in run.fixture.facts["state_dict"]}
    classifier = [math.prod(shapes[name]) for name in shapes if ".base.fc." in name]  # unused
    assert count + sum(classifier) == run.fixture.facts["num_params"]


def test_resized_picture_is_bit_exact(run: Run) -> None:
    facts = run.fixture.facts["input"]
    picture = run.picture[..., ::-1] if facts["format"] == "BGR" else run.picture
    digest = hashlib.sha256(np.ascontiguousarray(picture).tobytes()).hexdigest()
    assert digest == facts["resized_sha256"]
    sample = run.fixture.arrays["input/resized_sample"]
    np.testing.assert_array_equal(picture[::37, ::41], sample)


def test_network_input(run: Run) -> None:
    assert_summary(run.fixture, "input/normalized_padded", run.network_input, atol=1e-4)


def test_backbone_and_neck_features(run: Run) -> None:
    names = {key.split("/")[1] for key in run.fixture.arrays if key.startswith("bottom_up/")}
    ours = dict(zip("2345", run.stages, strict=True)) if names else {}  # none of the stride-4 DLA
    compared = 0
    for name in sorted(names):
        if name[-1] in ours:
            assert_summary(run.fixture, f"bottom_up/{name}", ours[name[-1]], FEATURE_ATOL)
            compared += 1
    assert compared == (0 if not names else 4 if "DLA" in run.fixture.name else 3)
    assert_features(run.fixture, run.features)


def test_head_outputs(run: Run) -> None:
    assert_head(run.fixture, run.first.logits, run.first.regressions)


@torch.no_grad()
def test_proposals_are_the_same_set(run: Run) -> None:
    detector = run.two_stage
    found = detector.first_stage.propose(run.first, detector.test_filter)
    assert_same_proposals(run.fixture, found.boxes[0].numpy(), found.objectness[0].numpy())


def second_stage_steps(run: Run) -> list[dict[str, Tensor]]:
    """The cascade fed with the fixture's own proposals, all that happens in each stage."""
    stage_two = run.two_stage.second_stage
    pooling = stage_two.pooling
    boxes = torch.from_numpy(run.fixture.arrays["proposals/boxes"])[None]
    levels = [run.features[position] for position in pooling.levels]
    steps = []
    for index, stage in enumerate(stage_two.stages):
        boxes = clip_boxes(boxes, run.size) if index else boxes
        pooled = ops.pyramid_roi_align(boxes, levels, *pooling[1:])[0]
        x = pooled.flatten(1)
        for layer in stage.layers:
            x = torch.relu(layer(x))
        logits, deltas = stage(pooled)
        refined = decode_deltas(boxes, deltas[None], stage.delta_weights)
        steps.append(
            {
                "in_boxes": boxes[0],
                "pooled": pooled,
                "fc_out": x,
                "cls_logits": logits,
                "deltas": deltas,
                "refined": refined[0],
            }
        )
        boxes = refined
    return steps


def all_probabilities(run: Run, logits: Tensor) -> Tensor:
    """Of the classes and of the last column, which no detector reads."""
    softmax = run.two_stage.second_stage.classifier == "softmax"
    return logits.softmax(dim=1) if softmax else logits.sigmoid()


@torch.no_grad()
def test_second_stage_on_the_fixtures_proposals(run: Run) -> None:
    arrays = run.fixture.arrays
    steps = second_stage_steps(run)
    for index, step in enumerate(steps):
        name = f"stage{index}"
        np.testing.assert_allclose(
            step["in_boxes"].numpy(), arrays[f"{name}/in_boxes"], atol=0.05, rtol=0
        )
        for part in ("pooled", "fc_out", "cls_logits"):
            assert_summary(run.fixture, f"{name}/{part}", step[part], FEATURE_ATOL)
        np.testing.assert_allclose(
            step["deltas"].numpy(), arrays[f"{name}/deltas"], atol=FEATURE_ATOL, rtol=0
        )
        probabilities = all_probabilities(run, step["cls_logits"]).numpy()
        top = np.take_along_axis(probabilities, arrays[f"{name}/top5_class"].astype(np.int64), 1)
        np.testing.assert_allclose(top, arrays[f"{name}/top5_prob"], atol=SCORE_ATOL, rtol=0)
        np.testing.assert_allclose(
            probabilities[:, -1], arrays[f"{name}/last_col_prob"], atol=SCORE_ATOL, rtol=0
        )
        np.testing.assert_allclose(
            probabilities.mean(axis=0), arrays[f"{name}/mean_prob_per_class"], atol=1e-4, rtol=0
        )
    np.testing.assert_allclose(
        steps[-1]["refined"].numpy(), arrays["final/boxes_unclipped"], atol=0.05, rtol=0
    )


@torch.no_grad()
def test_joint_scores_on_the_fixtures_proposals(run: Run) -> None:
    arrays, second_stage = run.fixture.arrays, run.two_stage.second_stage
    boxes = torch.from_numpy(arrays["proposals/boxes"])[None]
    objectness = torch.from_numpy(arrays["proposals/scores"])[None]
    probabilities, _ = second_stage.refine(run.features, boxes, run.size)
    scores = second_stage.joint_score(probabilities, objectness)[0].numpy()
    top = np.take_along_axis(scores, arrays["final/top5_class"].astype(np.int64), 1)
    np.testing.assert_allclose(top, arrays["final/top5_score"], atol=SCORE_ATOL, rtol=0)


def original_boxes(run: Run, boxes: NDArray[Any]) -> NDArray[Any]:
    """Boxes of the resized picture as boxes of the original one."""
    facts = run.fixture.facts["input"]
    height, width = facts["height"], facts["width"]
    scale = np.array([width / run.picture.shape[1], height / run.picture.shape[0]] * 2)
    limit = np.array([width, height] * 2)
    return np.minimum(boxes.astype(np.float64) * scale, limit)


def test_detections_are_the_same_in_the_same_order(run: Run) -> None:
    arrays = run.fixture.arrays
    count = int(run.detections.num_detections[0])
    assert count == len(arrays["raw/classes"])
    boxes = run.detections.boxes[0, :count].numpy()
    scores = run.detections.scores[0, :count].numpy()
    np.testing.assert_array_equal(run.detections.classes[0, :count], arrays["raw/classes"])
    np.testing.assert_allclose(scores, arrays["raw/scores"], atol=SCORE_ATOL, rtol=0)
    raw = clipped_raw_boxes(run.fixture)
    np.testing.assert_allclose(boxes, raw, atol=BOX_ATOL_PX, rtol=0)
    there = (raw[:, 2:] > raw[:, :2]).all(axis=1)  # boxes beyond the border end as empty ones
    np.testing.assert_allclose(
        original_boxes(run, boxes[there]), arrays["det/boxes"], atol=BOX_ATOL_PX, rtol=0
    )
    np.testing.assert_array_equal(arrays["det/classes"], arrays["raw/classes"][there])
    assert not run.detections.boxes[0, count:].any()
    assert not run.detections.scores[0, count:].any()
