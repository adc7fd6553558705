"""Model-local ONNX functions: a translation of standard operators, written as a function's body."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import onnx
import onnx.defs
import onnx_ir as ir
from onnxscript.evaluator import default_as
from onnxscript.values import Op, Opset

from .onnx import OPSET, Value

DOMAIN, VERSION = "cn2", 1


class Recorder:
    """What the standard operators are called on while a body is written: keeps their nodes."""

    def __init__(self) -> None:
        self.nodes: list[ir.Node] = []

    def eval_op(self, operator: Op, args: Sequence[Value], attributes: Mapping[str, Any]) -> Any:
        """A node; called by onnxscript for each call of an operator. Returns its output(s)."""
        schema = operator.op_schema
        assert schema is not None  # a standard operator has one
        given = {name: value for name, value in attributes.items() if value is not None}
        node = ir.Node(
            schema.domain,
            schema.name,
            args,
            ir.convenience.convert_attributes(given),
            num_outputs=given.get("num_outputs", len(schema.outputs)),
            version=schema.since_version,
        )
        self.nodes.append(node)
        return node.outputs[0] if len(node.outputs) == 1 else node.outputs


@dataclass(frozen=True, kw_only=True)
class Call:
    """One use of an operator of ours."""

    name: str
    inputs: Mapping[str, Value]
    """The function's name of each input, and the graph's value."""
    outputs: Mapping[str, str]
    """Name and ONNX type, as "tensor(float)", of each output."""
    attributes: Sequence[ir.Attr]

    def write_function(self, body: Callable[..., Sequence[Value]]) -> onnx.FunctionProto:
        """The function that the call runs where nobody has the operator.

        Args:
            body: gets a value for each input, of the shape and type of the graph's value, writes
                standard operators, and returns the outputs.
        """
        parameters = [
            ir.Value(name=name, shape=v.shape, type=v.type) for name, v in self.inputs.items()
        ]
        recorder: Any = Recorder()
        with default_as(recorder):
            results = body(*parameters)
        for parameter in parameters:
            parameter.shape = parameter.type = None  # a function is called with any
        for name, result in zip(self.outputs, results, strict=True):
            result.name = name
        graph = ir.Graph(parameters, results, nodes=recorder.nodes, opset_imports={"": OPSET})
        taken = [ir.Attr(attribute.name, attribute.type, None) for attribute in self.attributes]
        return ir.serde.serialize_function(
            ir.Function(DOMAIN, self.name, graph=graph, attributes=taken)
        )

    def write_node(self) -> Any:
        """The node, in the graph that is being written; its output(s)."""
        operator = Op(Opset(DOMAIN, VERSION), self.name, self._schema())
        return operator(*self.inputs.values(), **{a.name: a for a in self.attributes})

    def _schema(self) -> onnx.defs.OpSchema:
        """Of this call alone: functions have no optional or variadic inputs."""
        parameter, attribute = onnx.defs.OpSchema.FormalParameter, onnx.defs.OpSchema.Attribute
        kinds: Any = onnx.defs.OpSchema.AttrType  # its stub knows no number
        return onnx.defs.OpSchema(
            self.name,
            DOMAIN,
            VERSION,
            inputs=[parameter(name, type_of(value)) for name, value in self.inputs.items()],
            outputs=[parameter(name, kind) for name, kind in self.outputs.items()],
            attributes=[attribute(a.name, kinds(a.type.value)) for a in self.attributes],
        )


_TYPES = {ir.DataType.INT32: "tensor(int32)", ir.DataType.FLOAT16: "tensor(float16)"}


def type_of(value: Value) -> str:
    """The ONNX type of a graph's value; one whose type is not known yet is a float."""
    return _TYPES.get(value.dtype, "tensor(float)")
