"""The exported file finds what the official implementation finds, on the shared fixtures."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image

from cn2.export.onnx_file import export_onnx
from cn2.export.verify import verify
from cn2.runtime.backends.base import RawDetections
from cn2.runtime.backends.onnxruntime import OnnxRuntimeBackend
from cn2.runtime.detector import Detector
from cn2.runtime.pictures import open_picture
from cn2.trainer.detector import AnyDetector
from conformance.inner_values import InnerValues, inner_values
from conformance.official import (
    BOX_ATOL_PX,
    FIXTURES,
    HEAVY,
    LATER,
    SCORE_ATOL,
    Fixture,
    assert_features,
    assert_head,
    assert_same_proposals,
    build_official,
    clipped_raw_boxes,
    load_fixture,
    marked_slow,
)
from native_libraries import needs_library

PORTRAIT = "036"
SHAPES = ("009", PORTRAIT, "025", "072", "078")  # COCO pictures of 4:3, 3:4, 3:2, 2:3 and 1:1
# Detections that all of them hold at least: 720 in all, the issue wants 500.
AGREEMENT = {
    "dla34-bifpn-p3": 300,
    "dla34-bifpn-p5": 120,
    "r50-fpn": 300,
}
LEAST = 40  # of the others; 20 where it is one picture


@dataclass(frozen=True)
class Run:
    """A fixture, the detector and its file, the picture on its canvas, and what was found."""

    fixture: Fixture
    detector: AnyDetector
    path: Path
    images: NDArray[np.uint8]
    sizes: NDArray[np.int32]
    found: RawDetections


@pytest.fixture(scope="module", params=marked_slow({*HEAVY, *LATER}))
def run(
    request: pytest.FixtureRequest,
    shared: Path,
    tmp_path_factory: pytest.TempPathFactory,
    quick_export: None,
) -> Run:
    """One export and one inference per fixture; all tests of the module look at it."""
    fixture = load_fixture(shared, request.param)
    path = tmp_path_factory.mktemp("official") / f"{fixture.config.preset}.onnx"
    detector = build_official(shared, fixture)
    export_onnx(detector, fixture.config, path)
    height, width = fixture.facts["input"]["resized_hw"]
    canvas_height, canvas_width = fixture.facts["input"]["padded_hw"]
    with Image.open(shared / "conformance" / "image_shared.png") as image:
        resized = image.convert("RGB").resize((width, height), Image.Resampling.BILINEAR)
    images = np.full((1, canvas_height, canvas_width, 3), 77, np.uint8)
    images[0, :height, :width] = np.asarray(resized)
    sizes = np.array([[height, width]], np.int32)
    found = OnnxRuntimeBackend.open(path, device="cpu").infer(images, sizes)
    return Run(fixture, detector, path, images, sizes, found)


@pytest.fixture(scope="module")
def inner(run: Run) -> InnerValues:
    """What the same file computes on its way: a second inference, no second export."""
    two_stage = run.fixture.config.model.second_stage is not None
    return inner_values(run.path, {"images": run.images, "image_sizes": run.sizes}, two_stage)


def test_features_are_the_official_ones(run: Run, inner: InnerValues) -> None:
    assert_features(run.fixture, [torch.from_numpy(value) for value in inner.features])


def test_logits_and_regressions_are_the_official_ones(run: Run, inner: InnerValues) -> None:
    heatmaps = [torch.from_numpy(value) for value in inner.heatmaps]
    regressions = [torch.from_numpy(value) for value in inner.regressions]
    assert_head(run.fixture, heatmaps, regressions)


def test_proposals_are_the_same_set(run: Run, inner: InnerValues) -> None:
    if not inner.proposals:
        assert run.fixture.config.model.second_stage is None
        pytest.skip("no second stage")
    boxes, scores = inner.proposals
    assert_same_proposals(run.fixture, boxes[0], scores[0])


def test_detections_are_the_same_in_the_same_order(run: Run) -> None:
    arrays = run.fixture.arrays
    count = int(run.found.num_detections[0])
    assert count == len(arrays["raw/classes"]) >= 44
    np.testing.assert_array_equal(run.found.classes[0, :count], arrays["raw/classes"])
    scores, boxes = run.found.scores[0, :count], run.found.boxes[0, :count]
    np.testing.assert_allclose(scores, arrays["raw/scores"], atol=SCORE_ATOL, rtol=0)
    expected = clipped_raw_boxes(run.fixture)
    np.testing.assert_allclose(boxes, expected, atol=BOX_ATOL_PX, rtol=0)
    assert not run.found.boxes[0, count:].any()
    assert not run.found.scores[0, count:].any()


@pytest.mark.parametrize(
    "backend", ["onnxruntime", pytest.param("native", marks=needs_library("cn2"))]
)
def test_the_whole_runtime_gives_the_official_detections(
    backend: str, run: Run, shared: Path
) -> None:
    """From the picture's file to boxes in its own pixels: resizing, canvas, scaling back."""
    arrays = run.fixture.arrays
    with Detector.open(run.path, backend=backend, device="cpu") as detector:
        found = detector(shared / "conformance" / "image_shared.png")
    assert detector.manifest.preset == FIXTURES[run.fixture.name]
    np.testing.assert_array_equal(found.class_ids, arrays["det/classes"])
    np.testing.assert_allclose(found.scores, arrays["det/scores"], atol=SCORE_ATOL, rtol=0)
    np.testing.assert_allclose(found.boxes, arrays["det/boxes"], atol=BOX_ATOL_PX, rtol=0)


@pytest.mark.slow
@needs_library("cn2")
def test_libcn2_from_two_threads_finds_what_python_finds(run: Run, shared: Path) -> None:
    """The same pixels through the same graph, so nothing differs; two calls a thread."""
    picture = open_picture(shared / "conformance" / "image_shared.png")
    pictures = [picture, picture[100:, 50:].copy()]
    with Detector.open(run.path, backend="onnxruntime", device="cpu", threads=1) as python:
        expected = [python(one) for one in pictures]
    with (
        Detector.open(run.path, backend="native", device="cpu", threads=1) as native,
        ThreadPoolExecutor(2) as pool,
    ):
        for answers in pool.map(lambda _: [native(one) for one in pictures], range(2)):
            for found, wanted in zip(answers, expected, strict=True):
                np.testing.assert_array_equal(found.class_ids, wanted.class_ids)
                np.testing.assert_allclose(found.scores, wanted.scores, rtol=0, atol=1e-6)
                np.testing.assert_allclose(found.boxes, wanted.boxes, rtol=0, atol=1e-3)
    assert len(expected[0]) >= 44


@pytest.mark.slow
def test_torch_and_the_file_agree_on_five_aspect_ratios(run: Run, shared: Path) -> None:
    """Boxes within 0.05 px, scores within 1e-4, see cn2.export.verify."""
    config = run.fixture.config
    heavy = run.fixture.name in HEAVY  # a minute and more a picture
    numbers = (PORTRAIT,) if heavy else SHAPES
    pictures = [shared / f"data/coco128/images/000000000{number}.jpg" for number in numbers]
    result = verify(run.path, run.detector, config, pictures)
    assert result.agreement.unexplained == []
    assert result.agreement.pictures == len(pictures)
    assert result.agreement.detections >= AGREEMENT.get(config.preset, 20 if heavy else LEAST)
    assert result.score_threshold == config.model.limits.score_threshold
    assert sum(result.agreement.excused.values()) <= 3
