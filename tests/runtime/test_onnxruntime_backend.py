"""ONNX Runtime: files that obey the contract run; all others are refused in one line."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper

from backend_contract import BackendContract
from cn2.runtime.backends.base import Backend, RawDetections, check_outputs
from cn2.runtime.backends.onnx_header import read_metadata
from cn2.runtime.backends.onnxruntime import OnnxRuntimeBackend
from cn2.runtime.canvas import CanvasRule
from cn2.runtime.detector import Detector
from cn2.runtime.errors import BackendUnavailableError, InferenceError, ModelFormatError
from cn2.runtime.manifest import FORMAT_VERSION
from command_line import cn2, write_grey
from fake_backend import FakeBackend, make_manifest
from tiny_onnx import SECOND_BOX, tiny_model, write_tiny_onnx

FIXED = CanvasRule(short_edge=64, long_edge=96, divisor=32, interpolation="linear", fixed=(64, 96))


class TestOnnxRuntime(BackendContract):
    @pytest.fixture
    def backend(self, tmp_path: Path) -> Iterator[Backend]:
        backend = OnnxRuntimeBackend.open(write_tiny_onnx(tmp_path / "m.onnx"), device="cpu")
        yield backend
        backend.close()


class TestFake(BackendContract):
    @pytest.fixture
    def backend(self) -> Backend:
        return FakeBackend()


def test_detections_through_the_whole_runtime(tmp_path: Path) -> None:
    path = write_tiny_onnx(tmp_path / "m.onnx")
    picture = np.full((128, 192, 3), 204, np.uint8)
    with Detector.open(path, device="cpu", threads=1) as detector:
        found = detector(picture)
        assert repr(detector) == "<Detector: fake, onnxruntime on cpu>"
    np.testing.assert_allclose(found.boxes, [[0, 0, 192, 128], 2 * np.array(SECOND_BOX)])
    np.testing.assert_allclose(found.scores, [0.9, 0.4], rtol=1e-6)  # 204 / 255 / 2
    assert found.labels == ["red", "blue"]
    assert [row["category_id"] for row in found.to_coco(1)] == [1, 7]
    with pytest.raises(ValueError, match="this detector is closed"):
        detector(picture)
    detector.close()  # twice does no harm


@pytest.mark.parametrize("with_threshold", [True, False])
def test_threshold_with_and_without_the_graphs_input(tmp_path: Path, with_threshold: bool) -> None:
    path = write_tiny_onnx(tmp_path / "m.onnx", with_threshold=with_threshold)
    detector = Detector.open(path, device="cpu")
    picture = np.full((64, 96, 3), 204, np.uint8)
    counts = [len(detector(picture, threshold)) for threshold in (None, 0.3, 0.5, 0.95)]
    assert counts == [2, 2, 1, 0]
    dark = np.full((64, 96, 3), 15, np.uint8)  # second score 0.03, default threshold 0.05
    assert len(detector(dark)) == 1
    assert len(detector(dark, 0.01)) == (2 if with_threshold else 1)


def test_fixed_canvas_and_batch(tmp_path: Path) -> None:
    manifest = make_manifest(canvas=FIXED, batch=2)
    detector = Detector.open(write_tiny_onnx(tmp_path / "m.onnx", manifest), device="cpu")
    pictures = [np.full((64, 96, 3), level, np.uint8) for level in (204, 102, 255)]
    scores = [found.scores[1] for found in detector(pictures)]
    np.testing.assert_allclose(scores, [0.4, 0.2, 0.5], rtol=1e-6)
    with pytest.raises(ValueError, match="expected a batch of 2, got 1"):
        detector.backend.infer(np.zeros((1, 64, 96, 3), np.uint8), np.ones((1, 2), np.int32))
    with pytest.raises(ValueError, match=r"expected a canvas of \(64, 96\), got \(64, 64\)"):
        detector.backend.infer(np.zeros((2, 64, 64, 3), np.uint8), np.ones((2, 2), np.int32))


def test_threads_get_the_same_answers(tmp_path: Path) -> None:
    detector = Detector.open(write_tiny_onnx(tmp_path / "m.onnx"), device="cpu")
    pictures = [np.full((64, 60 + index, 3), 5 * index + 50, np.uint8) for index in range(40)]
    expected = [detector(picture).scores.tolist() for picture in pictures]
    with ThreadPoolExecutor(4) as pool:
        found = [result.scores.tolist() for result in pool.map(detector, pictures)]
    assert found == expected
    assert len({tuple(scores) for scores in expected}) > 20


def test_foreign_files_are_refused(tmp_path: Path) -> None:
    path = write_tiny_onnx(tmp_path / "m.onnx", metadata={"names": "{}"})
    with pytest.raises(
        ModelFormatError, match=r"m.onnx: no cn2 manifest in its metadata; was it exp"
    ):
        Detector.open(path)


def test_newer_manifest_is_refused(tmp_path: Path) -> None:
    text = make_manifest(format_version=FORMAT_VERSION + 1).to_json()
    path = write_tiny_onnx(tmp_path / "m.onnx", metadata={"cn2.manifest": text})
    with pytest.raises(ModelFormatError, match=f"has format version {FORMAT_VERSION + 1}, this "):
        Detector.open(path)


@pytest.mark.parametrize("keep", [0, 1, 10, 0.5, 0.9, 0.99])
def test_torn_files_are_refused(tmp_path: Path, keep: float) -> None:
    path = write_tiny_onnx(tmp_path / "m.onnx")
    content = path.read_bytes()
    path.write_bytes(content[: int(keep if keep in (0, 1, 10) else keep * len(content))])
    with pytest.raises(ModelFormatError) as caught:
        Detector.open(path)
    assert "\n" not in str(caught.value)
    assert str(caught.value).startswith(str(path))


@pytest.mark.parametrize("content", [b"", b"text, no model", b"\x89PNG\r\n\x1a\n" * 9, bytes(500)])
def test_files_that_are_not_onnx(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "m.onnx"
    path.write_bytes(content)
    with pytest.raises(
        ModelFormatError, match="expected an ONNX file, got something else or a torn"
    ):
        Detector.open(path)


def test_bit_flips_never_escape_the_error_tree(tmp_path: Path) -> None:
    """A header that is damaged anywhere gives metadata or a ModelFormatError, nothing else."""
    path = write_tiny_onnx(tmp_path / "m.onnx")
    content = bytearray(path.read_bytes())
    rng = np.random.default_rng(0)
    outcomes = []
    for _ in range(300):
        damaged = content.copy()
        damaged[int(rng.integers(len(damaged)))] ^= 1 << int(rng.integers(8))
        path.write_bytes(damaged)
        try:
            read_metadata(path)
            outcomes.append("read")
        except ModelFormatError:
            outcomes.append("refused")
    assert {"read", "refused"} == set(outcomes)


def save_with_external_data(folder: Path, *, in_attribute: bool) -> Path:
    """A sound model of ours whose weights, or one attribute, lie in another file."""
    model = tiny_model(make_manifest())
    helper.set_model_props(model, make_manifest().metadata())
    if in_attribute:
        constant = helper.make_node("Constant", [], ["unused"], value=model.graph.initializer[0])
        model.graph.node.append(constant)
    path = folder / "m.onnx"
    onnx.save(
        model,
        path,
        save_as_external_data=True,
        location="weights.bin",
        size_threshold=0,
        convert_attribute=in_attribute,
    )
    return path


@pytest.mark.parametrize("in_attribute", [True, False])
def test_weights_in_other_files_are_refused(tmp_path: Path, in_attribute: bool) -> None:
    path = save_with_external_data(tmp_path, in_attribute=in_attribute)
    assert (tmp_path / "weights.bin").exists()
    with pytest.raises(ModelFormatError, match=r"expected all weights inside the file.*cn2 export"):
        Detector.open(path)


def test_external_tensor_in_a_subgraph_is_found(tmp_path: Path) -> None:
    model = tiny_model(make_manifest())
    hidden = onnx.TensorProto(name="hidden", data_type=1, dims=[1])
    hidden.data_location = onnx.TensorProto.EXTERNAL
    inner = helper.make_graph([], "inner", [], [], [hidden])
    middle = helper.make_node("If", ["c"], ["d"], then_branch=inner, else_branch=inner)
    outer = helper.make_graph([middle], "outer", [], [])
    model.graph.node.append(helper.make_node("If", ["c"], ["d"], then_branch=outer))
    onnx.save(model, tmp_path / "m.onnx")
    with pytest.raises(ModelFormatError, match="weights in other files"):
        read_metadata(tmp_path / "m.onnx")


def test_metadata_is_what_onnx_wrote(tmp_path: Path) -> None:
    metadata = {"a": "", "größe": "ü" * 1000, **make_manifest().metadata()}
    assert read_metadata(write_tiny_onnx(tmp_path / "m.onnx", metadata=metadata)) == metadata


def drop_output(model: onnx.ModelProto) -> None:
    del model.graph.output[-1]


def rename_input(model: onnx.ModelProto) -> None:
    model.graph.input[0].name = "photo"
    for node in model.graph.node:
        node.input[:] = ["photo" if name == "images" else name for name in node.input]


def require_threshold(model: onnx.ModelProto) -> None:
    kept = [value for value in model.graph.initializer if value.name != "score_threshold"]
    del model.graph.initializer[:]
    model.graph.initializer.extend(kept)


def unknown_operator(model: onnx.ModelProto) -> None:
    model.graph.node[0].op_type = "NoSuchOperator"


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (drop_output, r"expected the outputs num_detections .*got num_det.* of 2 dimensions$"),
        (rename_input, "expected the inputs images .*got photo"),
        (require_threshold, "expected the inputs .*score_threshold"),
        (unknown_operator, r"ONNX Runtime \d.* cannot load it \(.*NoSuchOperator"),
    ],
)
def test_graphs_that_break_the_contract(
    tmp_path: Path, damage: Callable[[onnx.ModelProto], None], message: str
) -> None:
    model = tiny_model(make_manifest())
    damage(model)
    helper.set_model_props(model, make_manifest().metadata())
    onnx.save(model, tmp_path / "m.onnx")
    with pytest.raises(ModelFormatError, match=message) as caught:
        Detector.open(tmp_path / "m.onnx")
    assert "\n" not in str(caught.value)


def test_manifest_and_graph_must_agree_on_the_canvas(tmp_path: Path) -> None:
    fixed = make_manifest(canvas=FIXED)
    path = write_tiny_onnx(tmp_path / "m.onnx", metadata=fixed.metadata())  # a dynamic graph
    message = (
        r"expected images of shape \(None, 64, 96, 3\) by its manifest, got \(None, None, None, 3"
    )
    with pytest.raises(ModelFormatError, match=message):
        Detector.open(path)


@pytest.mark.parametrize("device", ["gpu", "cuda:x", "", "CPU"])
def test_unknown_devices(tmp_path: Path, device: str) -> None:
    with pytest.raises(ValueError, match="device: expected auto, cpu, cuda or cuda:<number>, got"):
        Detector.open(write_tiny_onnx(tmp_path / "m.onnx"), device=device)


def test_wrong_options(tmp_path: Path) -> None:
    path = write_tiny_onnx(tmp_path / "m.onnx")
    with pytest.raises(ValueError, match="threads: expected at least 1, got 0"):
        Detector.open(path, threads=0)
    with pytest.raises(TypeError, match="colour"):
        Detector.open(path, colour="red")


def breaking_model(path: Path) -> Path:
    """A file that opens, and fails in every run: one node reads past the end of its input."""
    model = tiny_model(make_manifest())
    broken = numpy_helper.from_array(np.array([1, 9], np.int64), "height_width")
    for constant in model.graph.initializer:
        if constant.name == broken.name:
            constant.CopyFrom(broken)
    helper.set_model_props(model, make_manifest().metadata())
    onnx.save(model, path)
    return path


def test_a_failing_run_is_one_line(tmp_path: Path) -> None:
    path = breaking_model(tmp_path / "m.onnx")
    detector = Detector.open(path, device="cpu")
    with pytest.raises(InferenceError) as caught:
        detector(np.zeros((64, 96, 3), np.uint8))
    message = str(caught.value)
    start = f"{path}: ONNX Runtime failed on images of (1, 64, 96, 3) on cpu ("
    assert message.startswith(start)
    assert "indices element out of data bounds" in message
    assert "\n" not in message
    assert len(message) < len(start) + 310


def test_a_failing_run_on_the_command_line(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    path = breaking_model(tmp_path / "m.onnx")
    ran = cn2(capfd, "detect", path, write_grey(tmp_path / "a.png"))
    assert (ran.code, ran.out) == (2, "")
    (line,) = ran.errors
    assert line.startswith(f"{path}: ONNX Runtime failed")
    assert ran.notes == [f"cn2: {path}: onnxruntime on cpu"]  # ONNX Runtime logs nothing itself


WHOLE_OUTPUT = {
    "num_detections": np.array([1], np.int32),
    "boxes": np.zeros((1, 2, 4), np.float32),
    "scores": np.zeros((1, 2), np.float32),
    "classes": np.zeros((1, 2), np.int32),
}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"boxes": np.zeros((1, 2, 5), np.float32)}, r".*of shapes .*, got .*\(1, 2, 5\)"),
        ({"scores": np.zeros((1, 3), np.float32)}, r".*of shapes .*, got "),
        ({"scores": np.float32(0)}, r".*of shapes .*, got "),
        ({"num_detections": np.zeros(2, np.int32)}, r".*of shapes .*, got \(\(2,\)"),
        ({"num_detections": np.array([3], np.int32)}, "num_detections from 0 to 2, got 3 to 3"),
        ({"num_detections": np.array([-1], np.int32)}, "num_detections from 0 to 2, got -1 to -1"),
        ({"classes": np.array([[0, 3]], np.int32)}, "classes from 0 to 2, got 0 to 3"),
        ({"classes": np.array([[-1, 0]], np.int32)}, "classes from 0 to 2, got -1 to 0"),
    ],
)
def test_outputs_are_held_to_the_manifest(changes: dict[str, Any], message: str) -> None:
    manifest = make_manifest()
    check_outputs(manifest, RawDetections(**WHOLE_OUTPUT), 1, "m.onnx")
    with pytest.raises(ModelFormatError, match=rf"^m\.onnx: expected {message}") as caught:
        check_outputs(manifest, RawDetections(**{**WHOLE_OUTPUT, **changes}), 1, "m.onnx")
    assert "\n" not in str(caught.value)


def fake_onnxruntime(available: list[str], used: list[str]) -> SimpleNamespace:
    """An onnxruntime that offers some providers and then uses others, as the real one may."""
    session = SimpleNamespace(get_providers=lambda: used, get_overridable_initializers=list)
    return SimpleNamespace(
        __version__="9.9",
        preload_dlls=lambda: print("no cuDNN here"),  # noqa: T201 - as the real one does
        SessionOptions=SimpleNamespace,
        get_available_providers=lambda: available,
        InferenceSession=lambda *_, **__: session,
    )


CPU, CUDA = "CPUExecutionProvider", "CUDAExecutionProvider"


@pytest.mark.parametrize(
    ("available", "used", "message"),
    [
        ([CPU], [CPU], r"this onnxruntime has no CUDA; .*pip install 'cn2\[gpu\]'"),
        ([CUDA, CPU], [CPU], "could not load CUDA and would use the CPU; .*cn2 doctor"),
    ],
)
def test_cuda_by_name_never_falls_back(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    available: list[str],
    used: list[str],
    message: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    path = write_tiny_onnx(tmp_path / "m.onnx")
    monkeypatch.setitem(sys.modules, "onnxruntime", fake_onnxruntime(available, used))
    for device in ("cuda", "cuda:1"):
        with pytest.raises(BackendUnavailableError, match=f"device '{device}': .*{message}"):
            Detector.open(path, device=device)
    assert capsys.readouterr().out == ""  # stdout is the command's, not a library's


def test_onnxruntime_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_tiny_onnx(tmp_path / "m.onnx")
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(BackendUnavailableError, match=r"not installed .*pip install 'cn2\[cpu\]'"):
        Detector.open(path)
