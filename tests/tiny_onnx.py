"""Tiny ONNX files that obey the contract of exported models, made without any exporter."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from cn2.runtime.manifest import Manifest
from fake_backend import make_manifest

SECOND_BOX = (1.0, 2.0, 11.0, 22.0)
OPSET = 18


def write_tiny_onnx(
    path: Path,
    manifest: Manifest | None = None,
    *,
    metadata: dict[str, str] | None = None,
    with_threshold: bool = True,
) -> Path:
    """Write a detector of two rows: the whole picture (score 0.9, class 0), and SECOND_BOX.

    The second row's score is half the canvas's mean grey level / 255, its class 2.
    """
    manifest = manifest or make_manifest()
    model = tiny_model(manifest, with_threshold=with_threshold)
    helper.set_model_props(model, manifest.metadata() if metadata is None else metadata)
    onnx.save(model, path)
    return path


def tiny_model(manifest: Manifest, *, with_threshold: bool = True) -> onnx.ModelProto:
    """The graph; only standard operators."""
    height, width = manifest.canvas.fixed or ("H", "W")
    batch = manifest.batch or "B"
    inputs = [
        helper.make_tensor_value_info("images", TensorProto.UINT8, [batch, height, width, 3]),
        helper.make_tensor_value_info("image_sizes", TensorProto.INT32, [batch, 2]),
    ]
    if with_threshold:
        inputs.append(helper.make_tensor_value_info("score_threshold", TensorProto.FLOAT, []))
    outputs = [
        helper.make_tensor_value_info("num_detections", TensorProto.INT32, [batch]),
        helper.make_tensor_value_info("boxes", TensorProto.FLOAT, [batch, 2, 4]),
        helper.make_tensor_value_info("scores", TensorProto.FLOAT, [batch, 2]),
        helper.make_tensor_value_info("classes", TensorProto.INT32, [batch, 2]),
    ]
    graph = helper.make_graph(_nodes(), "tiny", inputs, outputs, _constants(manifest))
    opsets = [helper.make_opsetid("", OPSET)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=10)


def _constants(manifest: Manifest) -> list[onnx.TensorProto]:
    values: dict[str, Any] = {
        "score_threshold": np.float32(manifest.score_threshold),
        "height_width": np.array([1, 0], np.int64),
        "none": np.float32(0),
        "second": np.array([[SECOND_BOX]], np.float32),
        "rows": np.array([1], np.int64),
        "last": np.array([2], np.int64),
        "pixels": np.array([1, 2, 3], np.int64),
        "grey": np.float32(0.5 / 255),
        "first_score": np.array([0.9], np.float32),
        "both_classes": np.array([0, 2], np.int32),
    }
    return [numpy_helper.from_array(np.asarray(value), name) for name, value in values.items()]


def _nodes() -> list[onnx.NodeProto]:
    node = helper.make_node
    return [
        node("Cast", ["image_sizes"], ["sizes"], to=TensorProto.FLOAT),
        node("Gather", ["sizes", "height_width"], ["far"], axis=1),  # (B, 2) width, height
        node("Mul", ["far", "none"], ["near"]),
        node("Concat", ["near", "far"], ["whole"], axis=1),
        node("Unsqueeze", ["whole", "rows"], ["first_box"]),  # (B, 1, 4)
        node("Mul", ["first_box", "none"], ["blank"]),
        node("Add", ["blank", "second"], ["second_box"]),
        node("Concat", ["first_box", "second_box"], ["all_boxes"], axis=1),  # (B, 2, 4)
        node("Cast", ["images"], ["float_images"], to=TensorProto.FLOAT),
        node("ReduceMean", ["float_images", "pixels"], ["mean"], keepdims=0),  # (B,)
        node("Mul", ["mean", "grey"], ["second_score"]),
        node("Unsqueeze", ["second_score", "rows"], ["second_column"]),
        node("Mul", ["second_column", "none"], ["blank_column"]),
        node("Add", ["blank_column", "first_score"], ["first_column"]),
        node("Concat", ["first_column", "second_column"], ["all_scores"], axis=1),  # (B, 2)
        node("Greater", ["all_scores", "score_threshold"], ["kept"]),
        node("Cast", ["kept"], ["kept_float"], to=TensorProto.FLOAT),
        node("Cast", ["kept"], ["kept_int"], to=TensorProto.INT32),
        node("ReduceSum", ["kept_int", "rows"], ["num_detections"], keepdims=0),
        node("Unsqueeze", ["kept_float", "last"], ["kept_column"]),
        node("Mul", ["all_boxes", "kept_column"], ["boxes"]),
        node("Mul", ["all_scores", "kept_float"], ["scores"]),
        node("Mul", ["both_classes", "kept_int"], ["classes"]),
    ]
