"""The fused form of each operator: its node, its body, and that both compute what torch does."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from onnx import helper
from torch import Tensor

from cn2.export.operators.fused import FusedOperators
from cn2.export.operators.pooling import level_borders
from cn2.export.operators.suppression import largest_float32
from cn2.trainer import ops
from onnx_sessions import assert_identical, session_of, to_graph
from operator_inputs import STRIDES, pyramid, random_boxes, random_scores, rois_of_all_kinds


@pytest.fixture(scope="module", params=["bodies", "kernels"])
def library(request: pytest.FixtureRequest) -> Path | None:
    """What runs the operators: their bodies, or our library."""
    if request.param == "bodies":
        return None
    found: Path = request.getfixturevalue("operator_library")
    return found


def fused_graph(
    function: Callable[..., Any], examples: tuple[Tensor, ...], free: tuple[tuple[int, ...], ...]
) -> onnx.ModelProto:
    """The graph of a function in the fused form, checked."""
    fused = FusedOperators()
    proto = to_graph(function, examples, free, fused.translations())
    proto.functions.extend(fused.functions)
    onnx.checker.check_model(proto, full_check=True)
    return proto


def own_nodes(proto: onnx.ModelProto) -> list[onnx.NodeProto]:
    """Those of domain cn2."""
    return [node for node in proto.graph.node if node.domain == "cn2"]


def attributes_of(node: onnx.NodeProto) -> dict[str, Any]:
    return {a.name: helper.get_attribute_value(a) for a in node.attribute}


def contract_of(proto: onnx.ModelProto) -> tuple[onnx.NodeProto, onnx.FunctionProto]:
    """The only node of domain cn2 and its function; what holds of every such pair is asserted."""
    (node,), (function,) = own_nodes(proto), proto.functions
    assert (function.domain, function.name) == ("cn2", node.op_type)
    assert {node.domain for node in function.node} == {""}
    assert [(entry.domain, entry.version) for entry in function.opset_import] == [("", 20)]
    assert {entry.domain: entry.version for entry in proto.opset_import} == {"": 20, "cn2": 1}
    assert len(function.input) == len(node.input)
    assert len(function.output) == len(node.output)
    assert set(function.attribute) == {a.name for a in node.attribute}
    assert attributes_of(node)["plugin_namespace"] == b"cn2"
    assert proto.ir_version <= 10  # what ONNX Runtime 1.20 reads
    return node, function


# --- the two suppressions of boxes


def proposal_graph(k: int = 20, threshold: float = 0.6) -> onnx.ModelProto:
    function = partial(ops.proposal_nms, k=k, iou_threshold=threshold)
    return fused_graph(function, (torch.rand(2, 40, 4), torch.rand(2, 40)), ((0, 1), (0, 1)))


@pytest.mark.parametrize("k", [3, 50])  # of 40 boxes
def test_proposal_nms(k: int, library: Path | None) -> None:
    proto = proposal_graph(k)
    node, function = contract_of(proto)
    assert node.op_type == "ProposalNMS"
    assert attributes_of(node) == {
        "proposals": k,
        "iou_threshold": pytest.approx(largest_float32(0.6), abs=0),
        "classed": 0,
        "plugin_namespace": b"cn2",
    }
    assert list(function.output) == ["kept_boxes", "kept_scores"]
    run = session_of(proto, library)
    for batch, count in ((1, 40), (3, 7), (2, 1)):
        boxes, scores = random_boxes(batch, count, seed=k), random_scores(batch, count, seed=k)
        scores[-1] *= batch < 3  # a picture without proposals
        assert_identical(run(boxes, scores), ops.proposal_nms(boxes, scores, k, 0.6))


@pytest.mark.parametrize(("detections", "labels"), [(25, 3), (100, 60)])  # 60 boxes come
def test_class_nms(detections: int, labels: int, library: Path | None) -> None:
    function = partial(ops.class_nms, class_count=labels, detections=detections, iou_threshold=0.6)
    example = (torch.rand(2, 60, 4), torch.rand(2, 60), torch.zeros(2, 60, dtype=torch.int64))
    proto = fused_graph(function, example, ((0,), (0,), (0,)))
    node, body = contract_of(proto)
    assert (node.op_type, attributes_of(node)["proposals"]) == ("ProposalNMS", detections)
    assert attributes_of(node)["classed"] == 1
    assert list(body.input) == ["boxes", "scores", "classes"]
    given = {output: node for node in proto.graph.node for output in node.output}[node.input[2]]
    assert (given.op_type, attributes_of(given)["to"]) == ("Cast", onnx.TensorProto.INT32)
    run = session_of(proto, library)
    for batch in (1, 3):
        boxes, scores = random_boxes(batch, 60, seed=batch), random_scores(batch, 60, seed=batch)
        scores[-1] *= batch < 3
        classes = torch.randint(0, labels, (batch, 60))
        assert_identical(run(boxes, scores, classes), function(boxes, scores, classes))


@pytest.mark.parametrize(("detections", "classes"), [(5, 3), (100, 3), (50, 1)])
def test_detection_nms(detections: int, classes: int, library: Path | None) -> None:
    function = partial(ops.detection_nms, detections=detections, iou_threshold=0.5)
    example = (torch.rand(2, 20, 4), torch.rand(2, 20, classes), torch.tensor(0.05))
    proto = fused_graph(function, example, ((0,), (0,), ()))
    node, body = contract_of(proto)
    assert (node.op_type, attributes_of(node)["detections"]) == ("DetectionNMS", detections)
    assert list(body.output) == ["num_detections", "found_boxes", "found_scores", "found_classes"]
    given = {output: node for node in proto.graph.node for output in node.output}[node.input[0]]
    assert given.op_type == "Unsqueeze"  # shared by the classes: (B, K, 1, 4)
    run = session_of(proto, library)
    for batch, value in ((1, 0.0), (3, 0.25), (2, 1.0)):  # 0.25 occurs; above 1.0 is nothing
        boxes = random_boxes(batch, 20, seed=batch)
        scores = random_scores(batch, 20, classes, seed=batch)
        threshold = torch.tensor(value)
        assert_identical(run(boxes, scores, threshold), function(boxes, scores, threshold))


def test_detection_nms_of_boxes_of_each_class(library: Path | None) -> None:
    function = partial(ops.detection_nms, detections=30, iou_threshold=0.5)
    example = (torch.rand(2, 20, 3, 4), torch.rand(2, 20, 3), torch.tensor(0.05))
    proto = fused_graph(function, example, ((0,), (0,), ()))
    node, _ = contract_of(proto)
    assert node.op_type == "DetectionNMS"
    assert node.input[0] == proto.graph.input[0].name  # (B, K, C, 4) as they are
    run = session_of(proto, library)
    for batch, value in ((1, 0.0), (3, 0.25), (2, 1.0)):
        boxes = random_boxes(batch, 60, seed=batch).reshape(batch, 20, 3, 4)
        scores, threshold = random_scores(batch, 20, 3, seed=batch), torch.tensor(value)
        assert_identical(run(boxes, scores, threshold), function(boxes, scores, threshold))


# --- pooling


def pooled(rois: Tensor, *features: Tensor, strides: tuple[int, ...] = STRIDES) -> Tensor:
    return ops.pyramid_roi_align(rois, list(features), list(strides), 4, 224.0, 7, 0)


def pooling_graph(strides: tuple[int, ...] = STRIDES) -> onnx.ModelProto:
    function = partial(pooled, strides=strides)
    example = (rois_of_all_kinds(2, (256, 384)), *pyramid(2, (256, 384), strides))
    return fused_graph(function, example, ((0,), *[(0, 2, 3)] * len(strides)))


@pytest.mark.parametrize("strides", [(8,), STRIDES, (8, 16, 32, 64, 128)])
def test_pyramid_roi_align(strides: tuple[int, ...], library: Path | None) -> None:
    proto = pooling_graph(strides)
    node, body = contract_of(proto)
    assert list(body.input) == ["rois", *(f"features{n}" for n in range(len(strides)))]
    attributes = attributes_of(node)
    np.testing.assert_array_equal(attributes.pop("level_borders"), level_borders(strides, 4))
    assert attributes == {
        "strides": list(strides),
        "canonical_level": 4,
        "canonical_size": 224.0,
        "output_size": 7,
        "sampling_ratio": 0,
        "plugin_namespace": b"cn2",
    }
    run = session_of(proto, library)
    for batch, canvas in ((1, (64, 96)), (3, (256, 160))):
        rois, features = rois_of_all_kinds(batch, canvas), pyramid(batch, canvas, strides)
        assert_pooled(run(rois, *features), pooled(rois, *features, strides=strides), library)


def test_a_coordinate_that_is_not_finite_counts_as_0(library: Path | None) -> None:
    run = session_of(pooling_graph(), library)
    rois, features = rois_of_all_kinds(2, (64, 96)), pyramid(2, (64, 96))
    wrong = rois.clone()
    wrong[0, 0, 0], wrong[0, 1, 1], wrong[1, 2] = float("nan"), float("inf"), float("-inf")
    rois[0, 0, 0], rois[0, 1, 1], rois[1, 2] = 0.0, 0.0, 0.0
    assert_pooled(run(wrong, *features), pooled(rois, *features), library)


def assert_pooled(found: list[np.ndarray], expected: Tensor, library: Path | None) -> None:
    """The bodies' bits; the kernels sum in another order."""
    if library is None:
        assert_identical(found, expected)
    else:
        np.testing.assert_allclose(found[0], expected.numpy(), atol=1e-5, rtol=0)


# --- several calls


def test_equal_calls_share_a_function() -> None:
    def twice(boxes: Tensor, scores: Tensor) -> Tensor:
        first = ops.proposal_nms(boxes, scores, 10, 0.6)
        return ops.proposal_nms(*first, 10, 0.6)[0]

    example = (torch.rand(2, 40, 4), torch.rand(2, 40))
    proto = fused_graph(twice, example, ((0, 1), (0, 1)))
    assert len(own_nodes(proto)) == 2
    assert len(proto.functions) == 1
    boxes, scores = random_boxes(2, 40, seed=0), random_scores(2, 40, seed=0)
    assert_identical(session_of(proto)(boxes, scores), twice(boxes, scores))


@pytest.mark.parametrize(("k", "iou"), [(9, 0.6), (10, 0.5)])
def test_other_attributes_are_refused(k: int, iou: float) -> None:
    def twice(boxes: Tensor, scores: Tensor) -> Tensor:
        first = ops.proposal_nms(boxes, scores, 10, 0.6)
        return ops.proposal_nms(*first, k, iou)[0]

    example = (torch.rand(2, 40, 4), torch.rand(2, 40))
    with pytest.raises(Exception, match="Failed to convert") as caught:
        fused_graph(twice, example, ((0, 1), (0, 1)))
    causes = str(caught.value) + str(caught.value.__cause__)
    assert "ProposalNMS: expected one kind of call in a model" in causes


def test_the_same_call_gives_the_same_bytes() -> None:
    first, second = (proposal_graph().functions[0].SerializeToString() for _ in range(2))
    assert first == second
