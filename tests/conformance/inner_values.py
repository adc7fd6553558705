"""What an exported file computes on its way to detections, found by the graph's structure."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import onnx
from numpy.typing import NDArray
from onnx import GraphProto, NodeProto
from onnxruntime import InferenceSession, SessionOptions  # type: ignore[import-untyped]

HEAD = "first_stage.head"


@dataclass(frozen=True)
class InnerValues:
    """The parts' results, one of each list per pyramid level, fine to coarse."""

    features: list[NDArray[Any]]  # (B, C, h, w)
    heatmaps: list[NDArray[Any]]  # (B, 1 or classes, h, w) logits
    regressions: list[NDArray[Any]]  # (B, 4, h, w) strides
    proposals: list[NDArray[Any]]  # boxes (B, K, 4) and objectness (B, K); nothing if one-stage


def inner_values(path: Path, feeds: dict[str, NDArray[Any]], two_stage: bool) -> InnerValues:
    """Run a copy of an exported file that has its inner values among its outputs.

    Raises:
        ValueError: the graph has no such parts.
    """
    proto = onnx.load(path)
    names = {
        "features": list(feature_names(proto.graph)),
        "heatmaps": list(heatmap_names(proto.graph, two_stage)),
        "regressions": list(regression_names(proto.graph)),
        "proposals": proposal_names(proto.graph) if two_stage else [],
    }
    wanted = [name for group in names.values() for name in group]
    proto.graph.output.extend(
        onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, None) for name in wanted
    )
    options = SessionOptions()
    options.log_severity_level = 3  # errors only, as our backend has it
    session = InferenceSession(
        proto.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    found = dict(zip(wanted, session.run(wanted, feeds), strict=True))
    return InnerValues(**{key: [found[name] for name in group] for key, group in names.items()})


def feature_names(graph: GraphProto) -> Iterator[str]:
    """What the head's tower reads, level after level."""
    for node in readers_of_weight(graph, f"{HEAD}.tower.0.weight"):
        yield node.input[0]


def heatmap_names(graph: GraphProto, two_stage: bool) -> Iterator[str]:
    """Logits of objects, or of the classes where there is no second stage."""
    part = "heatmap" if two_stage else "class_heatmaps"
    for node in readers_of_weight(graph, f"{HEAD}.{part}.weight"):
        yield node.output[0]


def regression_names(graph: GraphProto) -> Iterator[str]:
    """Distances after the level's scale and the ReLU."""
    for node in readers_of_weight(graph, f"{HEAD}.regression.weight"):
        scaled = only_reader(graph, node.output[0], "Mul")
        yield only_reader(graph, scaled.output[0], "Relu").output[0]


def proposal_names(graph: GraphProto) -> list[str]:
    """Boxes and scores of the first suppression, see `export.operators.suppression`."""
    suppression = next(node for node in graph.node if node.op_type == "NonMaxSuppression")
    rows = only_reader(graph, suppression.output[0], "Gather").output[0]
    gathered = readers(graph, rows, "GatherND")
    boxes = [node for node in gathered if node.input[0] == suppression.input[0]]
    scores = [node for node in gathered if node.input[0] != suppression.input[0]]
    if len(boxes) != 1 or len(scores) != 1:
        raise ValueError(f"expected one gathering of boxes and of scores, got {gathered}")
    return [only_reader(graph, n.output[0], "Reshape").output[0] for n in (boxes[0], scores[0])]


def readers_of_weight(graph: GraphProto, weight: str) -> list[NodeProto]:
    """The convolutions with these weights, plain or deformable, in the graph's order."""
    found = [n for n in graph.node if n.op_type.endswith("Conv") and n.input[1] == weight]
    if not found:
        raise ValueError(f"expected convolutions with {weight}, found none")
    return found


def only_reader(graph: GraphProto, value: str, op_type: str) -> NodeProto:
    """The node of this type that reads a value."""
    found = readers(graph, value, op_type)
    if len(found) != 1:
        raise ValueError(f"{value}: expected one {op_type} that reads it, got {len(found)}")
    return found[0]


def readers(graph: GraphProto, value: str, op_type: str) -> list[NodeProto]:
    """The nodes of this type that read a value."""
    return [node for node in graph.node if node.op_type == op_type and value in node.input]
