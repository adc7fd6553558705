"""Read an ONNX file's metadata without an ONNX library, and refuse weights in other files.

Only the protobuf records on the way are looked at; the weights themselves are stepped over. Field
numbers are those of onnx.proto (ONNX 1.0 and later).
"""

from __future__ import annotations

import mmap
from collections.abc import Iterator
from pathlib import Path

from ..errors import ModelFormatError

VARINT, FIXED64, BYTES, FIXED32 = 0, 1, 2, 5  # protobuf wire types

MODEL_GRAPH, MODEL_METADATA, MODEL_FUNCTIONS = 7, 14, 25
ENTRY_KEY, ENTRY_VALUE = 1, 2
TENSOR_LOCATION, TENSOR_EXTERNAL = 14, 13  # data_location (1: external), external_data

# What a record contains that may lead to a tensor: field number -> kind of record.
CHILDREN: dict[str, dict[int, str]] = {
    "model": {MODEL_GRAPH: "graph", MODEL_FUNCTIONS: "function", 20: "training"},
    "training": {1: "graph", 2: "graph"},
    "function": {7: "node", 11: "attribute"},
    "graph": {1: "node", 5: "tensor", 15: "sparse tensor"},
    "node": {5: "attribute"},
    "attribute": {
        **{5: "tensor", 6: "graph", 10: "tensor", 11: "graph"},
        **{22: "sparse tensor", 23: "sparse tensor"},
    },
    "sparse tensor": {1: "tensor", 2: "tensor"},
}
DEEPEST = 64  # nested records; a subgraph in a subgraph adds three


class TornError(Exception):
    """The bytes are no protobuf message."""


def read_metadata(path: Path) -> dict[str, str]:
    """The metadata of an ONNX file whose weights all lie inside it.

    Raises:
        ModelFormatError: no such file, not ONNX, torn, or with weights in other files.
    """
    try:
        with path.open("rb") as stream:  # the map frees itself with the last view of it
            data = memoryview(mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ))
        return _read_model(data, path)
    except OSError as error:
        raise ModelFormatError(f"{path}: cannot be read ({error.strerror or error})") from error
    except (TornError, ValueError) as error:  # ValueError: an empty file, text that is not UTF-8
        raise ModelFormatError(
            f"{path}: expected an ONNX file, got something else or a torn one ({error})"
        ) from error


def _read_model(data: memoryview, path: Path) -> dict[str, str]:
    metadata = {}
    has_graph = False
    for number, value in read_fields(data):
        has_graph |= number == MODEL_GRAPH
        if number == MODEL_METADATA and isinstance(value, memoryview):
            entry = {key: read_text(text) for key, text in read_fields(value)}
            metadata[entry.get(ENTRY_KEY, "")] = entry.get(ENTRY_VALUE, "")
    if not has_graph:
        raise TornError("no graph in it")
    if _has_external(data, "model", 0):
        raise ModelFormatError(
            f"{path}: expected all weights inside the file, got weights in other files; "
            f"export it with cn2 export"
        )
    return metadata


def _has_external(data: memoryview, kind: str, depth: int) -> bool:
    """Whether a record holds, at any depth, a tensor whose data lies in another file."""
    if depth > DEEPEST:
        raise TornError(f"more than {DEEPEST} nested records")
    if kind == "tensor":
        return any(
            number == TENSOR_EXTERNAL or (number == TENSOR_LOCATION and value == 1)
            for number, value in read_fields(data)
        )
    children = CHILDREN[kind]
    return any(
        _has_external(value, children[number], depth + 1)
        for number, value in read_fields(data)
        if number in children and isinstance(value, memoryview)
    )


def read_fields(data: memoryview) -> Iterator[tuple[int, int | memoryview]]:
    """The fields of one message: number, and an integer or the bytes of a record."""
    position, end = 0, len(data)
    while position < end:
        tag, position = _varint(data, position)
        wire = tag & 7
        if wire == VARINT:
            value, position = _varint(data, position)
            yield tag >> 3, value
            continue
        if wire == BYTES:
            size, position = _varint(data, position)
        elif wire in (FIXED64, FIXED32):
            size = 8 if wire == FIXED64 else 4
        else:
            raise TornError(f"wire type {wire}")
        if position + size > end:
            raise TornError(f"a record of {size} bytes where {end - position} are left")
        yield tag >> 3, data[position : position + size]
        position += size


def _varint(data: memoryview, position: int) -> tuple[int, int]:
    value = shift = 0
    while shift < 70 and position < len(data):
        byte = data[position]
        value |= (byte & 0x7F) << shift
        position, shift = position + 1, shift + 7
        if byte < 0x80:
            return value, position
    raise TornError("a number that does not end")


def read_text(value: int | memoryview) -> str:
    """The text in a record; empty for a number."""
    return "" if isinstance(value, int) else str(value, "utf-8")
