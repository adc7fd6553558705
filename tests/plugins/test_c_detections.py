"""Detections through the C interface: those of Python, for any format, batch, canvas and thread."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from ctypes import byref, c_size_t, c_void_p
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
import psutil
import pytest

from c_library import (
    INVALID_ARGUMENT,
    MODEL_ERROR,
    UNAVAILABLE,
    Failed,
    Found,
    Library,
    Model,
    image,
)
from cn2.runtime.backends.libcn2 import (
    BGR8,
    BGRA8,
    CUDA,
    GREY8,
    LINEAR,
    NV12,
    RGB8,
    RGBA8,
    DetectOptions,
    Image,
    RawDetections,
)
from cn2.runtime.canvas import CanvasRule
from cn2.runtime.demo import CHECKPOINT, PICTURES
from cn2.runtime.detector import Detector
from cn2.runtime.pictures import open_picture
from fake_backend import make_manifest
from tiny_onnx import SECOND_BOX, write_tiny_onnx

Pixels = npt.NDArray[np.uint8]


def assert_same(found: Found, expected: Any) -> None:
    """Equal to the last bit; both sides run the same graph on the same pixels."""
    np.testing.assert_array_equal(found.boxes, expected.boxes)
    np.testing.assert_array_equal(found.scores, expected.scores)
    np.testing.assert_array_equal(found.class_ids, expected.class_ids)


@pytest.fixture(scope="module")
def python_nano(nano_onnx: Path) -> Detector:
    return Detector.open(nano_onnx, device="cpu", threads=1)


@pytest.fixture(scope="module")
def scenes() -> list[Pixels]:
    return [open_picture(path) for path in sorted(PICTURES.glob("*.jpg"))]


def test_nano_finds_what_python_finds(
    nano: Model, python_nano: Detector, scenes: list[Pixels], shared: Path
) -> None:
    coco = sorted((shared / "data" / "coco128" / "images").rglob("*.jpg"))[:8]
    count = 0
    for picture in [*scenes[:5], *map(open_picture, coco)]:
        expected = python_nano(picture)
        assert_same(nano.detect([image(picture)])[0], expected)
        count += len(expected)
    assert count > 300


@pytest.mark.parametrize("threshold", [0.0, 0.02, 0.3, 0.9, 1.0])
def test_thresholds_are_those_of_python(
    nano: Model, python_nano: Detector, scenes: list[Pixels], threshold: float
) -> None:
    assert_same(nano.detect([image(scenes[0])], threshold)[0], python_nano(scenes[0], threshold))


def test_a_batch_of_many_canvases_is_its_pictures(nano: Model, scenes: list[Pixels]) -> None:
    """Ten pictures on the first's canvas make a batch of eight and one of two."""
    shifted = [np.roll(scenes[0], 20 * shift, axis=1) for shift in range(10)]
    pictures = [scenes[1], *shifted[:5], scenes[2], *shifted[5:]]
    alone = [nano.detect([image(picture)])[0] for picture in pictures]
    together = nano.detect([image(picture) for picture in pictures])
    for found, expected in zip(together, alone, strict=True):
        assert_same(found, expected)
    assert len({len(found.scores) for found in together}) > 1


def test_formats_of_a_picture_find_the_same(nano: Model, scenes: list[Pixels]) -> None:
    rgb = scenes[0]
    rgba = np.dstack([rgb, rgb[..., 0]])
    wide = np.pad(rgb, ((0, 0), (0, 5), (0, 0)))[:, :-5]
    expected = nano.detect([image(rgb)])[0]
    for pixels, kind in (
        (rgb[..., ::-1].copy(), BGR8),
        (rgba, RGBA8),
        (rgba[..., [2, 1, 0, 3]].copy(), BGRA8),
        (wide, RGB8),
    ):
        assert_same(nano.detect([image(pixels, kind)])[0], expected)


def test_nv12_and_grey_are_their_rgb(nano: Model, scenes: list[Pixels]) -> None:
    grey = cv2.cvtColor(scenes[0], cv2.COLOR_RGB2GRAY)
    planes = cv2.cvtColor(scenes[0], cv2.COLOR_RGB2YUV_I420).ravel()
    height, width = grey.shape
    chroma = planes[height * width :].reshape(2, -1).T.reshape(height // 2, width)
    nv12 = np.vstack([planes[: height * width].reshape(height, width), chroma])
    as_rgb = cv2.cvtColor(nv12, cv2.COLOR_YUV2RGB_NV12)
    found = nano.detect([image(nv12[:height], NV12), image(grey, GREY8)])
    assert_same(found[0], nano.detect([image(as_rgb)])[0])
    assert_same(found[1], nano.detect([image(np.dstack([grey] * 3))])[0])
    assert len(found[0].scores) > 10


def test_capacity_keeps_the_best_and_counts_all(nano: Model, scenes: list[Pixels]) -> None:
    expected = nano.detect([image(scenes[0])])[0]
    some = nano.detect([image(scenes[0])] * 2, capacity=3)
    for found in some:
        assert_same(found, Found(*(part[:3] for part in expected)))
    counts = (c_size_t * 1)()
    status = nano.library.detect(nano.context, byref(image(scenes[0])), 1, None, None, 0, counts)
    assert (status, counts[0]) == (0, len(expected.scores))
    assert len(expected.scores) > 10


def test_no_pictures_are_fine(nano: Model) -> None:
    assert nano.library.detect(nano.context, None, 0, None, None, 5, None) == 0


def test_timings_cover_the_stages(nano: Model, scenes: list[Pixels]) -> None:
    other = Model(nano.library, nano.handle)
    stages = ("preprocess_ms", "inference_ms", "postprocess_ms")
    assert [getattr(other.timings(), stage) for stage in stages] == [0, 0, 0]
    other.detect([image(scenes[0])])
    spent = [getattr(other.timings(), stage) for stage in stages]
    assert min(spent) > 0
    assert spent[1] == max(spent)
    nano.library.context_destroy(other.context)


def infer(
    model: Model, canvases: Pixels, sizes: list[tuple[int, int]], threshold: float = -1.0
) -> RawDetections:
    raw = RawDetections()
    rows = np.array(sizes, np.int32)
    options = DetectOptions(score_threshold=threshold)
    model.library.check(
        model.library.infer(
            *(model.context, canvases.ctypes.data, *canvases.shape[:3], rows.ctypes.data),
            *(byref(options), byref(raw)),
        )
    )
    return raw


def test_infer_is_the_graph(nano: Model, python_nano: Detector) -> None:
    canvases = np.random.default_rng(0).integers(0, 256, (2, 64, 96, 3), dtype=np.uint8)
    sizes = [(60, 90), (64, 50)]
    expected = python_nano.backend.infer(canvases, np.array(sizes, np.int32), 0.01)
    raw = infer(nano, canvases, sizes, 0.01)
    batch, rows = expected.scores.shape
    assert raw.rows == rows
    as_array = np.ctypeslib.as_array
    np.testing.assert_array_equal(as_array(raw.num_detections, (batch,)), expected.num_detections)
    np.testing.assert_array_equal(as_array(raw.boxes, (batch, rows, 4)), expected.boxes)
    np.testing.assert_array_equal(as_array(raw.scores, (batch, rows)), expected.scores)
    np.testing.assert_array_equal(as_array(raw.classes, (batch, rows)), expected.classes)


@pytest.mark.parametrize(
    ("shape", "sizes", "said"),
    [
        ((1, 60, 96, 3), [(1, 1)], "multiples of 32"),
        ((1, 64, 0, 3), [(1, 1)], "multiples of 32"),
        ((0, 64, 96, 3), [], "batch"),
        ((1, 64, 96, 3), [(65, 96)], "picture_sizes"),
        ((1, 64, 96, 3), [(64, 0)], "picture_sizes"),
    ],
)
def test_infer_refuses_what_the_graph_cannot_take(
    tiny: Model, shape: tuple[int, ...], sizes: list[tuple[int, int]], said: str
) -> None:
    with pytest.raises(Failed, match=said) as caught:
        infer(tiny, np.zeros(shape, np.uint8), sizes)
    assert caught.value.status == INVALID_ARGUMENT


@pytest.mark.parametrize("with_threshold", [True, False])
@pytest.mark.parametrize("batch", [None, 1, 3])
@pytest.mark.parametrize("fixed", [None, (64, 96)])
def test_tiny_models_of_all_kinds(
    library: Library,
    tmp_path: Path,
    onnxruntime_path: bytes,
    fixed: tuple[int, int] | None,
    batch: int | None,
    with_threshold: bool,
) -> None:
    """Fixed and free batches and canvases, graphs without threshold: as the Python backend."""
    rule = CanvasRule(short_edge=64, long_edge=96, divisor=32, interpolation="linear", fixed=fixed)
    manifest = make_manifest(canvas=rule, batch=batch)
    path = write_tiny_onnx(tmp_path / "m.onnx", manifest, with_threshold=with_threshold)
    model = library.open(path, threads=1, runtime_path=onnxruntime_path)
    detector = Detector.open(path, device="cpu", threads=1)
    rng = np.random.default_rng(1)
    shapes = [(64, 96), (96, 64), (128, 192), (1, 300), (33, 77), (64, 96), (70, 70)]
    pictures = [rng.integers(0, 256, (*shape, 3), dtype=np.uint8) for shape in shapes]
    for threshold in (None, 0.01, 0.3):
        given = -1.0 if threshold is None else threshold
        for found, expected in zip(
            model.detect([image(p) for p in pictures], given),
            detector(pictures, threshold),
            strict=True,
        ):
            assert_same(found, expected)
    model.close()


@pytest.mark.parametrize(
    "rule",
    [
        {"short_edge": 64, "long_edge": 96},
        {"short_edge": 61, "long_edge": 300, "divisor": 7},
        {"short_edge": 96, "long_edge": 96, "rounding": "down"},
        {"short_edge": 64, "long_edge": 96, "fixed": (64, 160)},
        {"short_edge": 64, "long_edge": 96, "fixed": (64, 160), "rounding": "down"},
    ],
    ids=str,
)
def test_sizes_on_the_canvas_are_those_of_python(
    library: Library, tmp_path: Path, onnxruntime_path: bytes, rule: dict[str, Any]
) -> None:
    """The second score is the share of the canvas that a white picture covers."""
    canvas = CanvasRule(**{"divisor": 32, "interpolation": "linear", **rule})
    path = write_tiny_onnx(tmp_path / "m.onnx", make_manifest(canvas=canvas))
    model = library.open(path, threads=1, runtime_path=onnxruntime_path)
    detector = Detector.open(path, device="cpu", threads=1)
    rng, shares = np.random.default_rng(3), set()
    for height, width in rng.integers(1, 400, (150, 2)):
        white = np.full((height, width, 3), 255, np.uint8)
        expected = detector(white, 0.01)
        assert_same(model.detect([image(white)], 0.01)[0], expected)
        shares.add(expected.scores.min())
    assert len(shares) > 20
    model.close()


def test_contexts_outlive_their_model(
    library: Library, tiny_path: Path, onnxruntime_path: bytes
) -> None:
    model = library.open(tiny_path, threads=1, runtime_path=onnxruntime_path)
    library.model_close(model.handle)
    model.handle = c_void_p()
    found = model.detect([image(np.full((64, 96, 3), 204, np.uint8))])[0]
    np.testing.assert_allclose(found.boxes, [[0, 0, 96, 64], SECOND_BOX])
    model.close()


def test_device_pictures_and_a_model_on_the_cpu(tiny: Model) -> None:
    pixels = np.zeros((64, 96, 3), np.uint8)
    with pytest.raises(Failed, match=r"images\[1\]: expected host memory") as caught:
        tiny.detect([image(pixels), image(pixels, memory=CUDA)])
    assert caught.value.status == UNAVAILABLE


def test_info_manifest_and_classes(nano: Model, python_nano: Detector) -> None:
    manifest, info, library = python_nano.manifest, nano.info(), nano.library
    assert library.model_manifest(nano.handle).decode() == manifest.to_json()
    assert info.class_count == len(manifest.class_names) == 8
    assert (info.short_edge, info.long_edge, info.canvas_divisor) == (384, 576, 32)
    assert (info.batch, info.canvas_height, info.canvas_width) == (0, 0, 0)
    assert (info.max_detections, info.proposals) == (manifest.detections, manifest.proposals)
    assert info.interpolation == LINEAR
    assert info.score_threshold == np.float32(manifest.score_threshold)
    names = [library.model_class_name(nano.handle, i).decode() for i in range(8)]
    assert tuple(names) == manifest.class_names
    ids = tuple(library.model_category_id(nano.handle, i) for i in range(8))
    assert ids == manifest.category_ids
    for outside in (-1, 8, 2**31 - 1):
        assert library.model_class_name(nano.handle, outside) is None
        assert library.model_category_id(nano.handle, outside) == -1
    assert b"onnxruntime 1." in library.model_runtime(nano.handle)


def test_outputs_that_break_the_manifest_are_refused(
    library: Library, tmp_path: Path, onnxruntime_path: bytes
) -> None:
    """The second box has class 2."""
    manifest = make_manifest(class_names=("red", "green"), category_ids=(1, 3))
    path = write_tiny_onnx(tmp_path / "two.onnx", manifest)
    model = library.open(path, threads=1, runtime_path=onnxruntime_path)
    with pytest.raises(Failed, match="expected classes from 0 to 1, got 0 to 2") as caught:
        model.detect([image(np.full((64, 96, 3), 204, np.uint8))])
    assert caught.value.status == MODEL_ERROR
    model.close()


@pytest.fixture(scope="module")
def small_nano(
    library: Library,
    onnxruntime_path: bytes,
    tmp_path_factory: pytest.TempPathFactory,
    quick_export: None,
) -> Any:
    """The bundled detector on a canvas of 64 x 96, some milliseconds a picture."""
    from cn2.export.describe import open_checkpoint
    from cn2.export.onnx_file import export_onnx

    path = tmp_path_factory.mktemp("small") / "nano.onnx"
    detector, config, _ = open_checkpoint(CHECKPOINT)
    export_onnx(detector, config, path, size=(64, 96))
    model = library.open(path, threads=1, runtime_path=onnxruntime_path)
    yield model
    model.close()


def small_pictures(scenes: list[Pixels]) -> list[Image]:
    return [image(scene[::4, ::4].copy()) for scene in scenes]


def run_threads(model: Model, pictures: list[Image], calls: int) -> list[Found]:
    """Eight threads, a context each, find the same as one did before; what that is."""
    alone = [model.detect([picture], 0.02)[0] for picture in pictures]

    def work(index: int) -> int:
        own = Model(model.library, model.handle)
        for call in range(calls):
            which = (index + call) % len(pictures)
            assert_same(own.detect([pictures[which]], 0.02)[0], alone[which])
        model.library.context_destroy(own.context)
        return calls

    with ThreadPoolExecutor(8) as pool:
        assert sum(pool.map(work, range(8))) == 8 * calls
    return alone


def test_threads_find_what_one_finds(tiny: Model, scenes: list[Pixels]) -> None:
    found = run_threads(tiny, small_pictures(scenes), 50)
    assert len({float(one.scores[-1]) for one in found}) == len(scenes)


@pytest.mark.slow
def test_eight_threads_a_thousand_calls_each(small_nano: Model, scenes: list[Pixels]) -> None:
    found = run_threads(small_nano, small_pictures(scenes), 1000)
    assert sum(len(one.scores) for one in found) > 20


@pytest.mark.slow
def test_memory_stays_over_ten_thousand_detections(small_nano: Model, scenes: list[Pixels]) -> None:
    pictures = small_pictures(scenes)
    process = psutil.Process()
    for call in range(10_000):
        small_nano.detect([pictures[call % len(pictures)]])
        if call == 1000:
            before = process.memory_info().rss
    assert process.memory_info().rss - before <= 20e6


@pytest.mark.slow
def test_memory_stays_over_two_hundred_openings(
    library: Library, nano_onnx: Path, onnxruntime_path: bytes, scenes: list[Pixels]
) -> None:
    process = psutil.Process()
    for cycle in range(200):
        model = library.open(nano_onnx, threads=1, runtime_path=onnxruntime_path)
        if cycle % 50 == 0:
            assert len(model.detect([image(scenes[0])])[0].scores) > 10
        model.close()
        if cycle == 50:
            before = process.memory_info().rss
    assert process.memory_info().rss - before <= 20e6
