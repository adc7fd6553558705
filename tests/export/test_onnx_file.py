"""The exported file: the numbers of torch, batches that do not mix, what it says of itself."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest

from cn2.export.agreement import SCORE_TOLERANCE
from cn2.export.describe import describe
from cn2.export.onnx_file import OPSET, check_writable, export_onnx, write_atomically
from cn2.runtime.backends.base import RawDetections
from cn2.runtime.backends.onnxruntime import OnnxRuntimeBackend
from cn2.runtime.errors import OutputError
from cn2.runtime.manifest import Manifest, manifest_from_metadata
from exported import ORIGIN, Exported, canvases, lively_detector
from factories import tiny_config
from native_agreement import assert_native_agrees
from native_libraries import needs_library

# float32 in another order: some 4e-3 px and 5e-5 here, where the boxes of fresh layers vary widely.
BOX_ATOL_PX = 0.01  # a fifth of the released limit
SCORE_ATOL = SCORE_TOLERANCE


def assert_same(found: RawDetections, expected: RawDetections) -> None:
    """The same detections in the same order, within the noise of float32."""
    np.testing.assert_array_equal(found.num_detections, expected.num_detections)
    np.testing.assert_array_equal(found.classes, expected.classes)
    np.testing.assert_allclose(found.boxes, expected.boxes, atol=BOX_ATOL_PX, rtol=0)
    np.testing.assert_allclose(found.scores, expected.scores, atol=SCORE_ATOL, rtol=0)


def assert_identical(found: Any, expected: Any) -> None:
    for ours, theirs in zip(found, expected, strict=True):
        np.testing.assert_array_equal(ours, theirs)


def file_metadata(path: Path) -> dict[str, str]:
    return {p.key: p.value for p in onnx.load(path).metadata_props}


# --- the numbers


@pytest.mark.parametrize(
    ("batch", "height", "width"),
    [
        (2, 96, 128),  # the example that was exported
        (1, 64, 96),
        (8, 64, 96),
        (1, 224, 96),  # portrait
        (3, 32, 32),  # the smallest canvas: P5 is a single cell
        (1, 32, 512),  # a picture of one pixel height
    ],
)
def test_tiny_finds_what_torch_finds(tiny: Exported, batch: int, height: int, width: int) -> None:
    images, sizes = canvases(batch, height, width, seed=batch + width)
    expected = tiny.torch_run(images, sizes)
    assert_same(tiny.backend.infer(images, sizes), expected)
    assert expected.num_detections.min() >= 1


@pytest.mark.parametrize(("batch", "height", "width"), [(1, 384, 512), (2, 512, 288), (8, 64, 96)])
def test_nano_finds_what_torch_finds(nano: Exported, batch: int, height: int, width: int) -> None:
    images, sizes = canvases(batch, height, width, seed=1)
    expected = nano.torch_run(images, sizes)
    assert_same(nano.backend.infer(images, sizes), expected)
    assert expected.num_detections.min() >= 5


@pytest.mark.parametrize("name", ["tiny", "one_stage", "nano"])
def test_a_batch_is_its_pictures_one_by_one(name: str, request: pytest.FixtureRequest) -> None:
    backend = request.getfixturevalue(name).backend
    images, sizes = canvases(8, 96, 160, seed=3)
    singles = [backend.infer(images[i : i + 1], sizes[i : i + 1]) for i in range(8)]
    assert len({single.boxes.tobytes() for single in singles}) == 8  # eight different pictures
    rng = np.random.default_rng(0)
    for order in (np.arange(8), rng.permutation(8), np.arange(8)[::-1], np.array([5, 5, 2])):
        together = backend.infer(
            np.ascontiguousarray(images[order]), np.ascontiguousarray(sizes[order])
        )
        for row, picture in enumerate(order):
            assert_identical([x[row : row + 1] for x in together], singles[picture])


def test_what_lies_outside_the_picture_does_not_count(tiny: Exported) -> None:
    images, sizes = canvases(2, 64, 96)
    clean, noisy = images.copy(), images.copy()
    for row, (height, width) in enumerate(sizes):
        for other, value in ((clean, 0), (noisy, 255)):
            other[row, height:] = value
            other[row, :, width:] = value
    backend = tiny.backend
    assert not (clean == noisy).all()
    assert_identical(backend.infer(clean, sizes), backend.infer(noisy, sizes))


def test_boxes_stay_in_the_picture_and_rows_past_the_last_are_zero(tiny: Exported) -> None:
    images, sizes = canvases(4, 64, 96)
    found = tiny.backend.infer(images, sizes)
    for row, count in enumerate(found.num_detections):
        height, width = sizes[row]
        boxes = found.boxes[row, :count]
        assert (boxes >= 0).all()
        assert (boxes <= [width, height, width, height]).all()
        assert (np.diff(found.scores[row, :count]) <= 0).all()
        for rest in (found.boxes[row], found.scores[row], found.classes[row]):
            assert not rest[count:].any()


# --- the score threshold


def test_score_threshold_has_the_configs_default(tiny: Exported) -> None:
    images, sizes = canvases(2, 64, 96)
    threshold = tiny.config.model.second_stage.score_threshold
    backend = tiny.backend
    default = backend.infer(images, sizes)
    assert_identical(default, backend.infer(images, sizes, threshold))
    assert default.scores[default.scores > 0].min() > threshold
    fewer = backend.infer(images, sizes, 0.4)
    assert 1 <= fewer.num_detections.sum() < default.num_detections.sum()
    assert_same(fewer, tiny.torch_run(images, sizes, 0.4))


def test_score_threshold_above_all_finds_nothing(tiny: Exported) -> None:
    images, sizes = canvases(2, 64, 96)
    found = tiny.backend.infer(images, sizes, 1.0)
    assert found.num_detections.tolist() == [0, 0]
    assert not any(output.any() for output in found)


def test_score_threshold_is_an_optional_input(tiny: Exported) -> None:
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(tiny.path, options, providers=["CPUExecutionProvider"])
    optional = session.get_overridable_initializers()
    assert [(i.name, i.shape, i.type) for i in optional] == [
        ("score_threshold", [], "tensor(float)")
    ]
    assert [(i.name, i.shape, i.type) for i in session.get_inputs()] == [
        ("images", ["batch", "height", "width", 3], "tensor(uint8)"),
        ("image_sizes", ["batch", 2], "tensor(int32)"),
    ]
    assert [(o.name, o.shape) for o in session.get_outputs()] == [
        ("num_detections", ["batch"]),
        ("boxes", ["batch", 100, 4]),
        ("scores", ["batch", 100]),
        ("classes", ["batch", 100]),
    ]


# --- fixed forms


def test_fixed_canvas_batch_and_proposals(tmp_path: Path) -> None:
    config = tiny_config()
    model = lively_detector(config)
    path = tmp_path / "fixed.onnx"
    manifest = export_onnx(model, config, path, size=(64, 160), batch=2, proposals=5)
    assert (manifest.canvas.fixed, manifest.batch, manifest.proposals) == ((64, 160), 2, 5)
    assert model.test_filter == config.model.first_stage.test_filter  # the detector is as it was
    backend = OnnxRuntimeBackend.open(path, device="cpu")
    images, sizes = canvases(2, 64, 160)
    model.test_filter = replace(model.test_filter, post_nms=5)
    expected = Exported(model=model, config=config, path=path).torch_run(images, sizes, 0.0)
    assert_same(backend.infer(images, sizes, 0.0), expected)
    assert expected.num_detections.max() <= 5 * 3  # five boxes of three classes
    with pytest.raises(ValueError, match="canvas of"):
        backend.infer(*canvases(2, 64, 96))
    with pytest.raises(ValueError, match="batch of 2"):
        backend.infer(*canvases(1, 64, 160))


@pytest.mark.slow  # one more export
def test_fixed_batch_of_one_and_more_proposals_than_candidates(tmp_path: Path) -> None:
    config = tiny_config()
    model = lively_detector(config)
    path = tmp_path / "one.onnx"
    export_onnx(model, config, path, batch=1, proposals=150)  # 3 levels of at most 40 candidates
    model.test_filter = replace(model.test_filter, post_nms=150)
    exported = Exported(model=model, config=config, path=path)
    for height, width in ((64, 96), (160, 64)):
        images, sizes = canvases(1, height, width)
        found = exported.backend.infer(images, sizes, 0.0)
        assert_same(found, exported.torch_run(images, sizes, 0.0))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"size": (64, 100)}, "multiples of 32"),
        ({"size": (0, 64)}, "multiples of 32"),
        ({"batch": 0}, "batch >= 1"),
        ({"proposals": 0}, "proposals, detections, batch >= 1"),
    ],
)
def test_impossible_forms_are_refused(
    tmp_path: Path, options: dict[str, Any], message: str
) -> None:
    config = tiny_config()
    with pytest.raises(ValueError, match=message):
        export_onnx(lively_detector(config), config, tmp_path / "no.onnx", **options)
    assert list(tmp_path.iterdir()) == []


# --- the file


def test_manifest_round_trip(tiny: Exported) -> None:
    metadata = file_metadata(tiny.path)
    manifest = manifest_from_metadata(metadata, "tiny.onnx")
    assert manifest == describe(tiny.config, origin=ORIGIN)
    assert manifest.preset == "tiny"
    assert manifest.category_ids == (1, 3, 7)
    assert manifest.strides == (8, 16, 32)
    assert manifest.proposals == 16
    assert (manifest.checkpoint_sha256, manifest.weights_license) == ("ab" * 32, "CC0-1.0")
    assert set(manifest.versions) == {"cn2", "torch", "torchvision", "onnx", "onnxscript"}
    assert metadata["names"] == "{0: 'disc', 1: 'box', 2: 'star'}"
    assert metadata["stride"] == "32"
    assert metadata["imgsz"] == "[64, 96]"
    assert Manifest.from_json(manifest.to_json()) == manifest


def test_the_graph_is_standard_and_says_nothing_of_this_machine(tiny: Exported) -> None:
    proto = onnx.load(tiny.path, load_external_data=False)
    onnx.checker.check_model(proto, full_check=True)
    assert {(entry.domain, entry.version) for entry in proto.opset_import} == {("", OPSET)}
    assert {node.domain for node in proto.graph.node} == {""}
    assert not proto.functions
    assert not any(tensor.external_data for tensor in proto.graph.initializer)
    assert not any(node.metadata_props or node.doc_string for node in proto.graph.node)
    content = tiny.path.read_bytes()
    for trace in (b"/work", b"site-packages", os.fsencode(Path.home()), b".py"):
        assert trace not in content


def test_onnx_runtime_fuses_the_backbone(nano: Exported, tmp_path: Path) -> None:
    """No BatchNormalization is left, and no ReLU stands alone behind a convolution."""
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.optimized_model_filepath = str(tmp_path / "optimised.onnx")
    onnxruntime.InferenceSession(nano.path, options, providers=["CPUExecutionProvider"])
    nodes = onnx.load(tmp_path / "optimised.onnx").graph.node
    assert not [n for n in nodes if n.op_type == "BatchNormalization"]
    made_by = {output: n.op_type for n in nodes for output in n.output}
    lonely = [n for n in nodes if n.op_type == "Relu" and made_by.get(n.input[0]) == "Conv"]
    assert not lonely
    sums = [n for n in nodes if n.op_type == "Add" and made_by.get(n.input[1]) == "Conv"]
    assert not sums  # the residual additions went into their convolutions


# --- writing


def test_unwritable_places_are_refused_before_the_work(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    for path, message in (
        (tmp_path / "none" / "model.onnx", "found none; create it"),
        (tmp_path / "file" / "model.onnx", "found none; create it"),
        (tmp_path, "got a folder"),
        (Path("/proc/model.onnx"), "the folder /proc cannot be written"),  # not even by root
    ):
        with pytest.raises(OutputError, match=message):
            check_writable(path)
    check_writable(tmp_path / "model.onnx")
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_read_only_folder_is_refused(tmp_path: Path) -> None:
    folder = tmp_path / "locked"
    folder.mkdir(mode=0o500)
    with pytest.raises(OutputError, match="cannot be written"):
        check_writable(folder / "model.onnx")


def test_a_failed_write_leaves_the_old_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "model.onnx"
    path.write_bytes(b"old")

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OutputError, match="No space left on device"):
        write_atomically(path, b"new")
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


@needs_library("cn2")
@pytest.mark.parametrize("name", ["tiny", "nano"])
def test_libcn2_finds_the_same(name: str, request: pytest.FixtureRequest) -> None:
    runtime = assert_native_agrees(request.getfixturevalue(name).path)
    assert runtime.endswith(" on cpu, standard operators")
