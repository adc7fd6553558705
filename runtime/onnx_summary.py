"""What an ONNX graph holds, read without an ONNX library: inputs, outputs, operators, parameters.

Field numbers are those of onnx.proto.
"""

from __future__ import annotations

import math
import mmap
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .backends.onnx_header import read_fields, read_text

MODEL_IR_VERSION, MODEL_GRAPH, MODEL_OPSET = 1, 7, 8
OPSET_DOMAIN, OPSET_VERSION = 1, 2
GRAPH_NODE, GRAPH_INITIALIZER, GRAPH_INPUT, GRAPH_OUTPUT = 1, 5, 11, 12
NODE_OP, NODE_ATTRIBUTE, NODE_DOMAIN = 4, 5, 7
ATTRIBUTE_GRAPHS = (6, 11)  # one graph, several graphs: bodies of If and Loop
TENSOR_DIMS, TENSOR_NAME = 1, 8
VALUE_NAME, VALUE_TYPE = 1, 2
TYPE_TENSOR, TENSOR_ELEMENT, TENSOR_SHAPE = 1, 1, 2
SHAPE_DIM, DIM_VALUE, DIM_PARAM = 1, 1, 2
ELEMENTS = {1: "float32", 2: "uint8", 3: "int8", 6: "int32", 7: "int64", 9: "bool", 10: "float16"}

Record = int | memoryview


@dataclass(frozen=True, kw_only=True)
class GraphSummary:
    """One ONNX file's graph."""

    inputs: dict[str, str]
    """Name -> type and shape: "uint8 [batch, height, width, 3]"; optional inputs say so."""
    outputs: dict[str, str]
    operators: dict[str, int]
    """Name -> how many nodes, those of nested graphs too; most frequent first."""
    parameters: int
    """Numbers in the initializers."""
    opset: int
    """Version of the standard operators."""


def summarize_onnx(path: Path) -> GraphSummary:
    """Read an ONNX file that `read_metadata` has accepted."""
    with path.open("rb") as stream:
        data = memoryview(mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ))
    graph = next(_records(data, MODEL_GRAPH))
    initializers = [_tensor(tensor) for tensor in _records(graph, GRAPH_INITIALIZER)]
    operators = Counter(_operators(graph))
    opsets = [_opset(record) for record in _records(data, MODEL_OPSET)]
    return GraphSummary(
        inputs=_values(graph, GRAPH_INPUT, optional={name for name, _ in initializers}),
        outputs=_values(graph, GRAPH_OUTPUT, optional=set()),
        operators=dict(operators.most_common()),
        parameters=sum(count for _, count in initializers),
        opset=next((version for domain, version in opsets if domain in ("", "ai.onnx")), 0),
    )


def _records(data: memoryview, wanted: int) -> Iterator[memoryview]:
    for number, value in read_fields(data):
        if number == wanted and isinstance(value, memoryview):
            yield value


def _first(data: memoryview, wanted: int) -> Record | None:
    return next((value for number, value in read_fields(data) if number == wanted), None)


def _first_text(data: memoryview, wanted: int) -> str:
    value = _first(data, wanted)
    return "" if value is None else read_text(value)


def _opset(record: memoryview) -> tuple[str, int]:
    version = _first(record, OPSET_VERSION)
    return _first_text(record, OPSET_DOMAIN), version if isinstance(version, int) else 0


def _tensor(record: memoryview) -> tuple[str, int]:
    """Name and count of numbers."""
    sides: list[int] = []
    for number, value in read_fields(record):
        if number == TENSOR_DIMS:  # one by one, or packed
            sides += [value] if isinstance(value, int) else _packed(value)
    return _first_text(record, TENSOR_NAME), math.prod(sides)


def _packed(data: memoryview) -> list[int]:
    values, current, shift = [], 0, 0
    for byte in data:
        current |= (byte & 0x7F) << shift
        shift += 7
        if byte < 0x80:
            values.append(current)
            current, shift = 0, 0
    return values


def _operators(graph: memoryview) -> Iterator[str]:
    for node in _records(graph, GRAPH_NODE):
        domain = _first_text(node, NODE_DOMAIN)
        operator = _first_text(node, NODE_OP)
        yield operator if domain in ("", "ai.onnx") else f"{domain}::{operator}"
        for attribute in _records(node, NODE_ATTRIBUTE):
            for number in ATTRIBUTE_GRAPHS:
                for nested in _records(attribute, number):
                    yield from _operators(nested)


def _values(graph: memoryview, wanted: int, optional: set[str]) -> dict[str, str]:
    found = {}
    for record in _records(graph, wanted):
        name = _first_text(record, VALUE_NAME)
        found[name] = _type(record) + (", optional" if name in optional else "")
    return found


def _type(value: memoryview) -> str:
    kind = _descend(value, VALUE_TYPE, TYPE_TENSOR)
    if kind is None:
        return "not a tensor"
    element: Any = _first(kind, TENSOR_ELEMENT)
    shape = _descend(kind, TENSOR_SHAPE)
    sides = [] if shape is None else [_side(dim) for dim in _records(shape, SHAPE_DIM)]
    return f"{ELEMENTS.get(element, f'type {element}')} [{', '.join(sides)}]"


def _descend(data: memoryview, *numbers: int) -> memoryview | None:
    for number in numbers:
        inner = _first(data, number)
        if not isinstance(inner, memoryview):
            return None
        data = inner
    return data


def _side(dim: memoryview) -> str:
    value = _first(dim, DIM_VALUE)
    return str(value) if value is not None else _first_text(dim, DIM_PARAM) or "?"
