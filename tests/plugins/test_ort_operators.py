"""libcn2_ort_ops: each operator in ONNX Runtime is the kernel, and refuses in one line.

Those of the CUDA provider too: over emulated kernels they are registered as if for the CPU.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
from numpy.typing import NDArray
from onnx import TensorProto, helper

from native_kernels import Kernels
from native_libraries import missing
from plugin_inputs import grid_scores, spread_boxes

FLOAT, HALF, INT32 = TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.INT32
ROOT = Path(__file__).resolve().parent.parent.parent
BUILD = Path(os.environ.get("CN2_NATIVE_BUILD", ROOT / "build" / "native"))
FEATURES = ("f0", "f1", "f2")
POOLING: dict[str, Any] = {
    "strides": [8, 16, 32],
    "level_borders": [1.0, 2.0],
    "canonical_level": 4,
    "canonical_size": 224.0,
    "output_size": 7,
    "sampling_ratio": 0,
}
Run = Callable[[Mapping[str, NDArray[Any]]], list[NDArray[Any]]]


@pytest.fixture(params=["CPU", "CUDA"])
def provider(request: pytest.FixtureRequest) -> str:
    """Whose operators."""
    name: str = request.param
    return name


@pytest.fixture
def ort_ops(provider: str, ort_ops: Path) -> Path:
    """The library with them."""
    emulated = BUILD / "libcn2_ort_ops_emulated.so"
    if provider == "CUDA" and not emulated.is_file():
        missing(f"{emulated}: not built; make native")
    return emulated if provider == "CUDA" else ort_ops


@pytest.fixture
def kernels(provider: str, request: pytest.FixtureRequest, kernels: Kernels) -> Kernels:
    """The kernels that they call."""
    if provider == "CPU":
        return kernels
    cuda: Kernels = request.getfixturevalue("cuda")
    return cuda


def session(
    library: Path,
    op_type: str,
    inputs: Mapping[str, tuple[int, int]],
    outputs: Mapping[str, int],
    threads: int = 1,
    **attributes: Any,
) -> Run:
    """A model of one node.

    Args:
        inputs: type and rank of each, sizes free; "" is an input that is left out.
        outputs: type of each.
    """
    node = helper.make_node(op_type, list(inputs), list(outputs), domain="cn2", **attributes)
    graph = helper.make_graph(
        [node],
        "one node",
        [
            helper.make_tensor_value_info(name, kind, [f"{name}{i}" for i in range(rank)])
            for name, (kind, rank) in inputs.items()
            if name
        ],
        [helper.make_tensor_value_info(name, kind, None) for name, kind in outputs.items()],
    )
    opsets = [helper.make_opsetid("", 20), helper.make_opsetid("cn2", 1)]
    model = helper.make_model(graph, opset_imports=opsets, ir_version=9)
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    options.intra_op_num_threads = threads
    options.register_custom_ops_library(str(library))
    opened = onnxruntime.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    return lambda feeds: opened.run(None, dict(feeds))


def pooling(library: Path, levels: int = 3, kind: int = FLOAT, **changed: Any) -> Run:
    """PyramidRoIAlign of features of a kind."""
    inputs = {"rois": (FLOAT, 3), **dict.fromkeys(FEATURES[:levels], (kind, 4))}
    attributes = {
        name: value for name, value in {**POOLING, **changed}.items() if value is not None
    }
    return session(library, "PyramidRoIAlign", inputs, {"pooled": kind}, **attributes)


def pooling_inputs(batch: int = 2, count: int = 40) -> dict[str, NDArray[np.float32]]:
    """Boxes and three levels."""
    rng = np.random.default_rng(0)
    features = {
        name: rng.standard_normal((batch, 20, 512 // stride, 768 // stride), dtype=np.float32)
        for name, stride in zip(FEATURES, POOLING["strides"], strict=True)
    }
    return {"rois": spread_boxes(rng, (batch, count)), **features}


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("count", [40, 0])
def test_pyramid_roi_align(kernels: Kernels, ort_ops: Path, threads: int, count: int) -> None:
    feeds = pooling_inputs(count=count)
    (pooled,) = pooling(ort_ops, threads=threads)(feeds)
    expected = kernels.pyramid_roi_align(
        feeds["rois"], [feeds[name] for name in FEATURES], POOLING["strides"], [1.0, 2.0]
    )
    np.testing.assert_array_equal(pooled, expected)


def test_pyramid_roi_align_of_one_level(kernels: Kernels, ort_ops: Path) -> None:
    feeds = {name: value for name, value in pooling_inputs().items() if name in ("rois", "f0")}
    expected = kernels.pyramid_roi_align(feeds["rois"], [feeds["f0"]], [8], [])
    (pooled,) = pooling(ort_ops, 1, strides=[8], level_borders=None)(feeds)
    np.testing.assert_array_equal(pooled, expected)


def test_pyramid_roi_align_in_half_precision(kernels: Kernels, ort_ops: Path) -> None:
    """Rounded once, at the end."""
    feeds: dict[str, Any] = pooling_inputs(count=12)
    halves = {name: feeds[name].astype(np.float16) for name in FEATURES}
    halves["f2"][0, 0, :2, :3] = [[np.inf, 1e-7, -6e4], [np.nan, 6e-5, -0.0]]
    wide = [halves[name].astype(np.float32) for name in FEATURES]
    expected = kernels.pyramid_roi_align(feeds["rois"], wide, POOLING["strides"], [1.0, 2.0])
    (pooled,) = pooling(ort_ops, kind=HALF)({**feeds, **halves})
    assert pooled.dtype == np.float16
    with np.errstate(over="ignore"):
        np.testing.assert_array_equal(pooled, expected.astype(np.float16))


@pytest.mark.parametrize("classed", [False, True])
def test_proposal_nms(kernels: Kernels, ort_ops: Path, classed: bool) -> None:
    rng = np.random.default_rng(1)
    feeds: dict[str, Any] = {
        "boxes": spread_boxes(rng, (2, 90)),
        "scores": grid_scores(rng, (2, 90)),
    }
    inputs, outputs = {"boxes": (FLOAT, 3), "scores": (FLOAT, 2)}, {"b": FLOAT, "s": FLOAT}
    if classed:
        feeds["classes"] = rng.integers(0, 3, (2, 90)).astype(np.int32)
        inputs["classes"], outputs["c"] = (INT32, 2), INT32
    run = session(ort_ops, "ProposalNMS", inputs, outputs, proposals=100, iou_threshold=0.5)
    expected = kernels.proposal_nms(
        feeds["boxes"], feeds["scores"], 100, 0.5, classes=feeds.get("classes")
    )
    for ours, theirs in zip(run(feeds), expected[: len(outputs)], strict=True):
        np.testing.assert_array_equal(ours, theirs)
    empty = run({name: value[:, :0] for name, value in feeds.items()})
    assert [value.shape[:2] for value in empty] == [(2, 100)] * len(outputs)
    assert not any(value.any() for value in empty)


@pytest.mark.parametrize("boxes_per_row", [1, 5])
def test_detection_nms(kernels: Kernels, ort_ops: Path, boxes_per_row: int) -> None:
    rng = np.random.default_rng(2)
    boxes, scores = spread_boxes(rng, (2, 30, boxes_per_row)), grid_scores(rng, (2, 30, 5))
    run = detections(ort_ops)
    found = run({"boxes": boxes, "scores": scores, "floor": np.array(0.2, np.float32)})
    expected = kernels.detection_nms(boxes, scores, 0.2, 50, 0.5)
    for ours, theirs in zip(found, expected, strict=True):
        assert ours.dtype == theirs.dtype
        np.testing.assert_array_equal(ours, theirs)


def test_detection_nms_of_more_scores_than_a_block_reads(kernels: Kernels, ort_ops: Path) -> None:
    """Those take a workspace on a GPU."""
    rng = np.random.default_rng(4)
    boxes, scores = spread_boxes(rng, (1, 130, 1)), rng.random((1, 130, 130), dtype=np.float32)
    found = detections(ort_ops)(
        {"boxes": boxes, "scores": scores, "floor": np.array(0.9, np.float32)}
    )
    for ours, theirs in zip(found, kernels.detection_nms(boxes, scores, 0.9, 50, 0.5), strict=True):
        np.testing.assert_array_equal(ours, theirs)


def detections(library: Path, **changed: Any) -> Run:
    """DetectionNMS."""
    inputs = {"boxes": (FLOAT, 4), "scores": (FLOAT, 3), "floor": (FLOAT, 0)}
    outputs = {"n": INT32, "b": FLOAT, "s": FLOAT, "c": INT32}
    attributes = {"detections": 50, "iou_threshold": 0.5, **changed}
    return session(library, "DetectionNMS", inputs, outputs, **attributes)


def test_two_sessions_and_an_optional_input_by_its_empty_name(ort_ops: Path) -> None:
    inputs = {"boxes": (FLOAT, 3), "scores": (FLOAT, 2), "": (INT32, 2)}
    rng = np.random.default_rng(3)
    feeds = {"boxes": spread_boxes(rng, (1, 9)), "scores": rng.random((1, 9), dtype=np.float32)}
    found = [
        session(
            ort_ops, "ProposalNMS", inputs, {"b": FLOAT, "s": FLOAT}, proposals=3, iou_threshold=0.5
        )(feeds)
        for _ in range(2)
    ]
    np.testing.assert_array_equal(found[0][0], found[1][0])
    assert found[0][1].all()


def fails(run: Callable[[], Any]) -> str:
    """ONNX Runtime's message, which is one line."""
    with pytest.raises(Exception) as error:  # ONNX Runtime has its own for each
        run()
    message = str(error.value)
    assert "\n" not in message
    return message


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"strides": [8, 16]}, "expected one of level_borders less than of strides, got 2 and 2"),
        (
            {"level_borders": None},
            "expected one of level_borders less than of strides, got 0 and 3",
        ),
        ({"sampling_ratio": None}, "attribute sampling_ratio: "),
        ({"strides": None}, "attribute strides: "),
    ],
)
def test_attributes_that_are_refused(ort_ops: Path, changed: dict[str, Any], said: str) -> None:
    message = fails(lambda: pooling(ort_ops, **changed))
    assert "PyramidRoIAlign: " in message
    assert said in message


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"proposals": 0}, "proposals: expected 1 or more, got 0"),
        ({"iou_threshold": 2.0}, "docs/operators.md"),
    ],
)
def test_attributes_of_proposal_nms(ort_ops: Path, changed: dict[str, Any], said: str) -> None:
    inputs, outputs = {"boxes": (FLOAT, 3), "scores": (FLOAT, 2)}, {"b": FLOAT, "s": FLOAT}
    attributes = {"proposals": 3, "iou_threshold": 0.5, **changed}
    feeds = {"boxes": np.zeros((1, 2, 4), np.float32), "scores": np.zeros((1, 2), np.float32)}
    message = fails(lambda: session(ort_ops, "ProposalNMS", inputs, outputs, **attributes)(feeds))
    assert "ProposalNMS: " in message
    assert said in message


@pytest.mark.parametrize(
    ("name", "index", "said"),
    [
        ("rois", np.s_[..., :3], "rois: expected float32 [any, any, 4], got float32 [2, 40, 3]"),
        (
            "f1",
            np.s_[:1],
            "features: expected float32 [2, 20, any, any], got float32 [1, 20, 32, 48]",
        ),
        (
            "f1",
            np.s_[:, :3],
            "features: expected float32 [2, 20, any, any], got float32 [2, 3, 32, 48]",
        ),
    ],
)
def test_pooling_inputs_that_are_refused(ort_ops: Path, name: str, index: Any, said: str) -> None:
    feeds = pooling_inputs()
    feeds[name] = feeds[name][index]
    assert said in fails(lambda: pooling(ort_ops)(feeds))


def test_a_level_too_few(ort_ops: Path) -> None:
    feeds = pooling_inputs()
    del feeds["f2"]
    assert "expected 3 features, got 2" in fails(lambda: pooling(ort_ops, 2)(feeds))


def test_detection_inputs_that_are_refused(ort_ops: Path) -> None:
    run, floor = detections(ort_ops), np.array(0.2, np.float32)
    boxes, scores = np.zeros((1, 3, 2, 4), np.float32), np.zeros((1, 3, 5), np.float32)
    message = fails(lambda: run({"boxes": boxes, "scores": scores, "floor": floor}))
    assert "boxes: expected 1 or 5 boxes a row, got float32 [1, 3, 2, 4]" in message
    message = fails(lambda: run({"boxes": boxes, "scores": scores[:, :2], "floor": floor}))
    assert "scores: expected float32 [1, 3, any], got float32 [1, 2, 5]" in message
    assert "detections: expected 1 or more, got 0" in fails(
        lambda: detections(ort_ops, detections=0)
    )
