"""A torch module as an ONNX Runtime session, for tests of the operators' translations."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from cn2.export.operators.onnx import OPSET
from cn2.export.operators.standard import standard_translations

Run = Callable[..., list[NDArray[Any]]]


class Call(nn.Module):
    """A function of tensors as a module."""

    def __init__(self, function: Callable[..., Any]) -> None:
        super().__init__()
        self.function = function

    def forward(self, *tensors: Tensor) -> Any:
        return self.function(*tensors)


def through_onnx(
    function: Callable[..., Any], examples: tuple[Tensor, ...], free: tuple[tuple[int, ...], ...]
) -> tuple[Run, list[str]]:
    """Export a function of tensors, of standard operators.

    Args:
        function: tensors in, tensor or tensors out.
        examples: one of each input; free dimensions must not be 0 or 1 long.
        free: the dimensions of each input that any run may choose.
    Returns:
        What runs the graph on tensors, and the types of its nodes.
    """
    proto = to_graph(function, examples, free, standard_translations())
    assert {node.domain for node in proto.graph.node} == {""}
    return session_of(proto), [node.op_type for node in proto.graph.node]


def to_graph(
    function: Callable[..., Any],
    examples: tuple[Tensor, ...],
    free: tuple[tuple[int, ...], ...],
    table: dict[Callable[..., Any], Callable[..., Any]],
) -> onnx.ModelProto:
    """The graph that a table of translations gives; see `through_onnx`."""
    shapes = tuple(dict.fromkeys(axes, torch.export.Dim.DYNAMIC) for axes in free)
    program = torch.onnx.export(
        Call(function).eval(),
        examples,
        dynamo=True,
        opset_version=OPSET,
        dynamic_shapes=(shapes,),
        custom_translation_table=table,
        verbose=False,
    )
    assert program is not None
    proto: onnx.ModelProto = program.model_proto
    return proto


def session_of(proto: onnx.ModelProto, library: Path | None = None) -> Run:
    """What runs a graph on tensors, with a library of operators or without."""
    options = onnxruntime.SessionOptions()
    if library is not None:
        options.register_custom_ops_library(str(library))
    session = onnxruntime.InferenceSession(
        proto.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    names = [value.name for value in session.get_inputs()]

    def run(*tensors: Tensor) -> list[NDArray[Any]]:
        feeds = {name: tensor.numpy() for name, tensor in zip(names, tensors, strict=True)}
        outputs: list[NDArray[Any]] = session.run(None, feeds)
        return outputs

    return run


def assert_identical(found: list[NDArray[Any]], expected: Any) -> None:
    """Equal to the last bit, dtype and shape included."""
    tensors = [expected] if isinstance(expected, Tensor) else list(expected)
    assert len(found) == len(tensors)
    for ours, theirs in zip(found, tensors, strict=True):
        assert ours.dtype == theirs.numpy().dtype
        np.testing.assert_array_equal(ours, theirs.numpy())
