"""What an fp16 file would compute on a GPU, on a CPU: every fp16 value is rounded where it arises.

ONNX Runtime's CPU has few fp16 kernels; it computes chains of fp16 nodes in fp32, where nothing
overflows. So a copy of the graph holds all in fp32, and casts each result to fp16 and back.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import onnx.inliner
import onnx.shape_inference
import onnx_ir as ir

from cn2.runtime.backends.base import RawDetections
from cn2.runtime.backends.onnx_header import read_metadata
from cn2.runtime.backends.onnxruntime import OUTPUTS, import_onnxruntime
from cn2.runtime.manifest import manifest_from_metadata

HALF, SINGLE = ir.DataType.FLOAT16, ir.DataType.FLOAT
PEAKS = "peaks"  # the copy's own output: the largest magnitude of every rounded value
# These give numbers that they were given, or 0: nothing to round.
MOVES = {"Concat", "Expand", "Flatten", "Gather", "Identity", "MaxPool", "Relu", "Reshape"}
MOVES |= {"Slice", "Split", "Squeeze", "Transpose", "Unsqueeze"}


class EmulatedBackend:
    """Runs an fp16 file as emulation; a `Backend`."""

    name = "emulation"
    device = "cpu"

    def __init__(self, path: Path, threads: int | None = None) -> None:
        """Open a file of `cn2 export --precision fp16`; threads: of an operator, None: all cores.

        Raises:
            ModelFormatError: it has no manifest that can be read.
        """
        self.manifest = manifest_from_metadata(read_metadata(path), str(path))
        proto, self.layers = emulate(onnx.load(path))
        ort = import_onnxruntime()
        options = ort.SessionOptions()
        options.log_severity_level = 3  # errors only
        options.intra_op_num_threads = threads or 0
        content = proto.SerializeToString()
        self._session = ort.InferenceSession(content, options, ["CPUExecutionProvider"])
        self.peaks: npt.NDArray[np.float32] = np.zeros(len(self.layers), np.float32)
        """(layers,) the largest magnitude of each in all runs so far; inf: beyond fp16."""

    def infer(
        self,
        images: npt.NDArray[np.uint8],
        image_sizes: npt.NDArray[np.int32],
        score_threshold: float | None = None,
    ) -> RawDetections:
        """Run the graph; see `cn2.runtime.backends.base.Backend`."""
        feeds: dict[str, npt.NDArray[Any]] = {"images": images, "image_sizes": image_sizes}
        if score_threshold is not None:
            feeds["score_threshold"] = np.array(score_threshold, dtype=np.float32)
        *found, peaks = self._session.run([*OUTPUTS, PEAKS], feeds)
        self.peaks = np.maximum(self.peaks, peaks)
        return RawDetections(*found)

    def close(self) -> None:
        """There is nothing to give back."""


def emulate(proto: onnx.ModelProto) -> tuple[onnx.ModelProto, list[str]]:
    """The copy in fp32 with casts, and a name for each value that it rounds, in order.

    The copy has one more output, PEAKS (n,). A name is that of the node's weights, where it has
    some, else of its result.
    """
    plain = onnx.shape_inference.infer_shapes(
        onnx.inliner.inline_local_functions(proto), strict_mode=True
    )
    model = ir.from_proto(plain)
    graph = model.graph
    for value in graph.initializers.values():
        _widen_constant(value)
    first = ir.Value(name="first_axis", const_value=ir.tensor(np.zeros(1, np.int64)))
    graph.register_initializer(first)
    layers: list[str] = []
    peaks: list[ir.Value] = []
    for node in list(graph):
        _widen_attributes(node)
        for value in node.outputs:
            if value.dtype == HALF:
                value.dtype = SINGLE
                if node.op_type not in MOVES:
                    peaks.append(_round(node, value, first))
                    layers.append(_describe(node))
    if peaks:
        _add_output(graph, peaks)
    return ir.to_proto(model), layers


def _widen_constant(value: ir.Value) -> None:
    if value.const_value is not None and value.dtype == HALF:
        wide = value.const_value.numpy().astype(np.float32)
        value.const_value = ir.tensor(wide, name=value.name)
        value.dtype = SINGLE


def _widen_attributes(node: ir.Node) -> None:
    """What a node says of its result's type: the target of a cast, a constant."""
    for name, attribute in list(node.attributes.items()):
        if name == "to" and attribute.value == HALF:
            node.attributes[name] = ir.AttrInt64(name, SINGLE)
        elif attribute.type == ir.AttributeType.TENSOR and attribute.value.dtype == HALF:
            wide = attribute.value.numpy().astype(np.float32)
            node.attributes[name] = ir.AttrTensor(name, ir.tensor(wide))


def _round(node: ir.Node, value: ir.Value, first_axis: ir.Value) -> ir.Value:
    """Let all that reads a value read it rounded; returns its largest magnitude, (1,)."""
    steps = [ir.node("Cast", [value], {"to": HALF})]
    steps.append(ir.node("Cast", steps[-1].outputs, {"to": SINGLE}))
    rounded = steps[-1].outputs[0]
    ir.convenience.replace_all_uses_with(value, rounded)
    steps[0].replace_input_with(0, value)
    steps.append(ir.node("Abs", [rounded]))
    steps.append(ir.node("ReduceMax", steps[-1].outputs, {"keepdims": 0}))
    steps.append(ir.node("Unsqueeze", [steps[-1].outputs[0], first_axis]))
    assert node.graph is not None
    node.graph.insert_after(node, steps)
    return steps[-1].outputs[0]


def _describe(node: ir.Node) -> str:
    """For messages: the operator, and its weights or its result."""
    weights = [v.name for v in node.inputs if v is not None and v.is_initializer() and v.name]
    return f"{node.op_type} {weights[0] if weights else node.outputs[0].name}"


def _add_output(graph: ir.Graph, peaks: list[ir.Value]) -> None:
    joined = ir.node("Concat", peaks, {"axis": 0})
    output = joined.outputs[0]
    output.name, output.dtype, output.shape = PEAKS, SINGLE, ir.Shape([len(peaks)])
    graph.append(joined)
    graph.outputs.append(output)
