"""Small networks with an engine's inputs, parsed by the installed TensorRT-RTX."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from cn2.export.engine.library import Library
from cn2.export.engine.model import EngineModel
from cn2.export.engine.network import Network, parse_network
from cn2.runtime.backends.tensorrt_library import open_tensorrt
from cn2.runtime.engine_file import EngineProfile
from fake_backend import make_manifest
from native_libraries import missing

BATCH, HEIGHT, WIDTH = 2, 16, 24
PROFILE = EngineProfile(batch=(1, BATCH, 4), height=(8, HEIGHT, 32), width=(8, WIDTH, 32))
HALF, FLOAT = TensorProto.FLOAT16, TensorProto.FLOAT


@cache
def rtx_without_plugins() -> Library:
    """TensorRT-RTX as it is; where it is not installed a skip, in CI a failure."""
    try:
        import tensorrt_rtx  # noqa: F401
    except ImportError:
        missing("tensorrt_rtx: not installed; pip install 'cn2[tensorrt-rtx]'")
    opened = open_tensorrt("tensorrt-rtx")
    return Library(runtime="tensorrt-rtx", opened=opened, plugins=Path("none"))


def small_model(
    nodes: Sequence[onnx.NodeProto], output: str, kind: int = FLOAT, **weights: np.ndarray
) -> EngineModel:
    """A model whose nodes start at `x`: the images as fp32 (B, 3, H, W), at `h` as fp16."""
    start = [
        helper.make_node("Cast", ["images"], ["f"], to=FLOAT, name="cast"),
        helper.make_node("Transpose", ["f"], ["x"], perm=[0, 3, 1, 2], name="transpose"),
        helper.make_node("Cast", ["x"], ["h"], to=HALF, name="half"),
        helper.make_node("Identity", ["image_sizes"], ["sizes"], name="sizes"),
    ]
    inputs = [
        helper.make_tensor_value_info("images", TensorProto.UINT8, ["B", "H", "W", 3]),
        helper.make_tensor_value_info("image_sizes", TensorProto.INT32, ["B", 2]),
    ]
    outputs = [
        helper.make_tensor_value_info(output, kind, None),
        helper.make_tensor_value_info("sizes", TensorProto.INT32, ["B", 2]),
    ]
    tensors = [numpy_helper.from_array(value, name) for name, value in weights.items()]
    graph = helper.make_graph([*start, *nodes], "small", inputs, outputs, tensors)
    proto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    return EngineModel(
        manifest=make_manifest(ops="fused"),
        sha256="0" * 64,
        onnx=proto.SerializeToString(),
        plugins={},
    )


def small_network(
    nodes: Sequence[onnx.NodeProto], output: str, kind: int = FLOAT, **weights: np.ndarray
) -> Network:
    """The same, parsed."""
    model = small_model(nodes, output, kind, **weights)
    return parse_network(rtx_without_plugins(), model, "small.onnx")


def weights(*shape: int, dtype: type = np.float32) -> np.ndarray:
    """Numbers that no optimiser can leave out."""
    return np.random.default_rng(0).standard_normal(shape).astype(dtype)
