"""The detector around a backend: grouping, scaling back, thresholds, threads; no engine needed."""

from __future__ import annotations

import itertools
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from cn2.runtime.backends.base import RawDetections
from cn2.runtime.canvas import CanvasRule
from cn2.runtime.detections import Detections
from cn2.runtime.detector import Detector, Timings, to_detections
from cn2.runtime.errors import BackendUnavailableError, ModelFormatError, PictureError
from cn2.runtime.preprocess import PlacedPicture, place_picture
from fake_backend import FakeBackend, make_manifest

SIZES = [(64, 96), (96, 64), (128, 192), (70, 70), (480, 640), (1, 300), (300, 1), (33, 77)]


def block_picture(
    size: tuple[int, int],
    box: tuple[float, float, float, float],
    level: int = 255,
    channel: int = 0,
) -> np.ndarray:
    """A dark picture with one bright block; the box in shares of width and height."""
    height, width = size
    picture = np.zeros((height, width, 3), np.uint8)
    rows = slice(int(box[1] * height), max(int(box[3] * height), int(box[1] * height) + 1))
    columns = slice(int(box[0] * width), max(int(box[2] * width), int(box[0] * width) + 1))
    picture[rows, columns, channel] = level
    return picture


def random_pictures(count: int, seed: int = 0) -> list[np.ndarray]:
    """Pictures of several canvases, each with blocks of its own."""
    rng = np.random.default_rng(seed)
    pictures = []
    for index in range(count):
        size = SIZES[int(rng.integers(len(SIZES)))]
        left, top = rng.uniform(0, 0.6, 2)
        box = (left, top, left + 0.3, top + 0.3)
        pictures.append(block_picture(size, box, int(rng.integers(150, 256)), index % 3))
    return pictures


def assert_same(found: list[Detections], expected: list[Detections]) -> None:
    assert len(found) == len(expected)
    for one, other in zip(found, expected, strict=True):
        np.testing.assert_array_equal(one.boxes, other.boxes)
        np.testing.assert_array_equal(one.scores, other.scores)
        np.testing.assert_array_equal(one.class_ids, other.class_ids)
        assert one.image_size == other.image_size


@pytest.mark.parametrize("size", [(480, 640), (640, 480), (70, 70), (1000, 300)])
def test_boxes_come_back_in_the_pictures_own_pixels(size: tuple[int, int]) -> None:
    found = Detector(FakeBackend())(block_picture(size, (0.25, 0.5, 0.75, 1.0)))
    height, width = size
    expected = np.array([0.25 * width, 0.5 * height, 0.75 * width, height])
    pixel = max(size) / 64  # a pixel of the resized picture, in pixels of the original
    assert found.labels == ["red"]
    np.testing.assert_allclose(found.boxes[0], expected, atol=pixel)
    assert found.boxes.dtype == np.float32
    assert found.class_ids.dtype == np.int64
    assert found.image_size == size


def raw_of(boxes: list[list[float]], scores: list[float], rows: int = 4) -> RawDetections:
    raw = RawDetections(
        np.array([len(boxes)], np.int32),
        np.zeros((1, rows, 4), np.float32),
        np.zeros((1, rows), np.float32),
        np.zeros((1, rows), np.int32),
    )
    raw.boxes[0, : len(boxes)] = boxes
    raw.scores[0, : len(boxes)] = scores
    return raw


def test_x_and_y_are_scaled_apart() -> None:
    """427 x 640 becomes 491 x 736; 640 / 736 and 427 / 491 differ in the fourth digit."""
    placed = PlacedPicture(
        canvas=np.zeros((512, 768, 3), np.uint8), resized=(491, 736), original=(427, 640)
    )
    found = to_detections(raw_of([[73.6, 49.1, 736, 491]], [0.5]), 0, placed, make_manifest())
    np.testing.assert_allclose(found.boxes, [[64, 42.7, 640, 427]], rtol=1e-6)


def test_boxes_are_clipped_and_empty_ones_dropped() -> None:
    placed = PlacedPicture(
        canvas=np.zeros((64, 96, 3), np.uint8), resized=(64, 96), original=(32, 48)
    )
    boxes = [[-8, -8, 200, 200], [10, 10, 10, 20], [96, 0, 120, 30], [20, 20, 40, 30]]
    found = to_detections(raw_of(boxes, [0.9, 0.8, 0.7, 0.6]), 0, placed, make_manifest())
    np.testing.assert_array_equal(found.boxes, [[0, 0, 48, 32], [10, 10, 20, 15]])
    np.testing.assert_array_equal(found.scores, np.float32([0.9, 0.6]))


def test_rows_past_the_count_are_ignored() -> None:
    placed = place_picture(np.zeros((64, 96, 3), np.uint8), make_manifest().canvas)
    raw = raw_of([[0, 0, 9, 9]], [0.9])
    raw.boxes[0, 1:] = (1, 1, 5, 5)
    raw.scores[0, 1:] = 0.99
    assert len(to_detections(raw, 0, placed, make_manifest())) == 1


def test_list_gives_a_list_in_order() -> None:
    detector = Detector(FakeBackend(), max_batch=3)
    pictures = random_pictures(20)
    singles = [detector(picture) for picture in pictures]
    assert any(len(found) for found in singles)
    assert_same(detector(pictures), singles)
    assert detector([]) == []
    assert_same(detector(tuple(pictures[:2])), singles[:2])


def test_result_does_not_depend_on_neighbours() -> None:
    detector = Detector(FakeBackend())
    pictures = random_pictures(4, seed=3)
    expected = [detector(picture) for picture in pictures]
    for order in itertools.permutations(range(4)):
        found = detector([pictures[index] for index in order])
        assert_same(found, [expected[index] for index in order])


def test_pictures_are_grouped_by_canvas() -> None:
    backend = FakeBackend()
    wide, tall = np.zeros((64, 96, 3), np.uint8), np.zeros((96, 64, 3), np.uint8)
    Detector(backend, max_batch=2)([wide, tall, wide, wide, tall])
    assert sorted(backend.runs) == [(1, 64, 96, 3), (2, 64, 96, 3), (2, 96, 64, 3)]


def test_fixed_batch_is_always_full() -> None:
    canvas = CanvasRule(short_edge=64, long_edge=96, divisor=32, fixed=(64, 96))
    backend = FakeBackend(make_manifest(batch=4, canvas=canvas))
    pictures = random_pictures(6, seed=1)
    found = Detector(backend, max_batch=2)(pictures)
    assert backend.runs == [(4, 64, 96, 3)] * 2
    single = Detector(FakeBackend(make_manifest(canvas=canvas)))
    assert_same(found, [single(picture) for picture in pictures])


def test_score_threshold() -> None:
    picture = np.maximum(
        block_picture((64, 96), (0, 0, 0.4, 0.4), 250, 0),
        block_picture((64, 96), (0.5, 0.5, 0.9, 0.9), 160, 1),
    )
    detector = Detector(FakeBackend())
    assert detector(picture).labels == ["red", "green"]
    assert detector(picture, score_threshold=0.8).labels == ["red"]
    assert detector([picture], 0.99)[0].labels == []
    assert detector(picture, score_threshold=0.01).labels == ["red", "green"]


@pytest.mark.parametrize("threshold", ["0.3", [0.3], 1j])
def test_thresholds_are_numbers(threshold: Any) -> None:
    detector = Detector(FakeBackend())
    with pytest.raises(TypeError, match="score_threshold: expected a number or None, got "):
        detector(np.zeros((4, 4, 3), np.uint8), threshold)
    assert len(detector(np.zeros((4, 4, 3), np.uint8), np.float32(0.5))) == 0


@pytest.mark.parametrize("threshold", [0.0, 0.009, 1.01, -1, float("nan")])
def test_impossible_thresholds(threshold: float) -> None:
    message = r"score_threshold: expected 0.01 \(the lowest of this model\) to 1, got"
    with pytest.raises(ValueError, match=message):
        Detector(FakeBackend())(np.zeros((4, 4, 3), np.uint8), threshold)


def test_threshold_works_where_the_graph_cannot_take_one() -> None:
    class Deaf(FakeBackend):
        def infer(
            self,
            images: np.ndarray,
            image_sizes: np.ndarray,
            score_threshold: float | None = None,
        ) -> RawDetections:
            return super().infer(images, image_sizes, None)

    picture = block_picture((64, 96), (0, 0, 0.4, 0.4), 160)
    assert len(Detector(Deaf())(picture)) == 1
    assert len(Detector(Deaf())(picture, 0.9)) == 0


def test_threads_get_the_same_answers() -> None:
    detector = Detector(FakeBackend())
    pictures = random_pictures(40, seed=2)
    expected = [detector(picture) for picture in pictures]
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(detector, pictures))
    assert_same(found, expected)


def test_files_and_arrays_give_the_same(tmp_path: Path) -> None:
    picture = random_pictures(1)[0]
    path = tmp_path / "a.png"
    Image.fromarray(picture).save(path)
    detector = Detector(FakeBackend())
    assert_same([detector(path), detector(str(path))], [detector(picture)] * 2)


def test_broken_picture_in_a_list(tmp_path: Path) -> None:
    (tmp_path / "a.jpg").write_bytes(b"")
    with pytest.raises(PictureError, match=r"a.jpg: .*0 bytes"):
        Detector(FakeBackend())([np.zeros((4, 4, 3), np.uint8), tmp_path / "a.jpg"])


def test_pixel_limit(tmp_path: Path) -> None:
    Image.new("RGB", (30, 20)).save(tmp_path / "a.png")
    with pytest.raises(PictureError, match="got 30x20"):
        Detector(FakeBackend(), max_pixels=100)(tmp_path / "a.png")


def test_timings(tmp_path: Path) -> None:
    Image.new("RGB", (640, 480)).save(tmp_path / "a.png")
    found, timings = Detector(FakeBackend()).detect_timed([tmp_path / "a.png"] * 3)
    assert len(found) == 3
    stages = (
        timings.decode_ms,
        timings.preprocess_ms,
        timings.inference_ms,
        timings.postprocess_ms,
    )
    assert min(stages) > 0
    assert timings.total_ms == pytest.approx(sum(stages))
    assert Timings().total_ms == 0


def test_warm_up_and_closing() -> None:
    backend = FakeBackend()
    with Detector(backend) as detector:
        detector.warm_up(480, 640, runs=2)
        assert backend.runs == [(1, 64, 96, 3)] * 2
        assert not backend.closed
        assert detector.manifest is backend.manifest
        assert repr(detector) == "<Detector: fake, fake on cpu>"
    assert backend.closed


def test_wrong_arguments() -> None:
    with pytest.raises(ValueError, match="max_batch: expected at least 1, got 0"):
        Detector(FakeBackend(), max_batch=0)
    with pytest.raises(ValueError, match=r"got float64 \(4, 4, 3\)"):
        Detector(FakeBackend())(np.zeros((4, 4, 3)))


@pytest.mark.parametrize(
    ("name", "backend", "error", "message"),
    [
        (
            "model.pth",
            "auto",
            ModelFormatError,
            r"expected a model file \(.onnx, .engine, .safetensors\)",
        ),
        ("model", "auto", ModelFormatError, "got 'none'"),
        (
            "model.onnx",
            "torch",
            ModelFormatError,
            "the backend torch reads .safetensors files only",
        ),
        ("model.onnx", "auto", ModelFormatError, "model.onnx: no such file"),
        (
            "model.onnx",
            "tensorrt",
            ModelFormatError,
            "the backend tensorrt reads .engine files only",
        ),
        (
            "model.pth",
            "native",
            ModelFormatError,
            r"expected a model file",
        ),
        (
            "model.safetensors",
            "native",
            ModelFormatError,
            "the backend native reads .onnx and .engine files only",
        ),
        (
            "model.onnx",
            "trt",
            ValueError,
            "expected auto, onnxruntime, native, tensorrt, torch, got 'trt'",
        ),
    ],
)
def test_opening_the_wrong_file(
    tmp_path: Path, name: str, backend: str, error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        Detector.open(tmp_path / name, backend=backend)


def test_checkpoint_without_torch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "cn2.export.torch_backend", None)
    (tmp_path / "m.safetensors").write_bytes(b"x")
    with pytest.raises(BackendUnavailableError, match=r"needs torch .*pip install 'cn2\[export\]'"):
        Detector.open(tmp_path / "m.safetensors")
