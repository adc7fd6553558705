"""The forms of each fused operator, as models of one operator, and their inputs."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from cn2.export.operators import pooling
from cn2.export.operators.fused import FusedOperators
from cn2.export.operators.onnx import OPSET, Value, floats, ints, op
from cn2.export.operators.standard import standard_translations
from cn2.plugins import library_path
from cn2.trainer import ops

CANVAS = (512, 768)  # height, width
STRIDES = (8, 16, 32, 64, 128)
CANONICAL = (4, 224.0)  # level, pixels
CHANNELS, OUTPUT_SIZE = 256, 7
MOST_SELECTED = 128  # boxes; the slowest form takes seconds with more
FAR_PX = 1e5  # a box that is moved so far has nothing of a level in it
Table = Mapping[Callable[..., Any], Callable[..., Any]]
Inputs = tuple[Tensor, ...]
Run = Callable[[], list[NDArray[Any]]]


class Operator(nn.Module):
    """A function of tensors as a module."""

    def __init__(self, function: Callable[..., Any]) -> None:
        super().__init__()
        self.function = function

    def forward(self, *tensors: Tensor) -> Any:
        return self.function(*tensors)


def open_form(
    function: Callable[..., Any], inputs: Inputs, table: Table, threads: int, *, fused: bool
) -> Run:
    """A call of an ONNX Runtime session on these inputs."""
    program = torch.onnx.export(
        Operator(function).eval(),
        inputs,
        dynamo=True,
        opset_version=OPSET,
        custom_translation_table=dict(table),
        verbose=False,
    )
    assert program is not None
    proto: onnx.ModelProto = program.model_proto
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")  # rivals share cores
    if fused:
        options.register_custom_ops_library(str(library_path("cn2_ort_ops")))
    session = onnxruntime.InferenceSession(
        proto.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    names = [value.name for value in session.get_inputs()]
    feeds = {name: tensor.numpy() for name, tensor in zip(names, inputs, strict=True)}
    return lambda: session.run(None, feeds)


def open_forms(
    function: Callable[..., Any], inputs: Inputs, others: Mapping[str, Table], threads: int
) -> dict[str, Run]:
    """The fused operator, the exporter's standard form, and others, by name."""
    standard, fused = standard_translations(), FusedOperators().translations()
    forms = {"fused": open_form(function, inputs, fused, threads, fused=True)}
    for name, table in {"standard": {}, **others}.items():
        forms[name] = open_form(function, inputs, {**standard, **table}, threads, fused=False)
    return forms


# --- PyramidRoIAlign


def pooling_forms(rois: int, threads: int) -> dict[str, Run]:
    """Of boxes of all sizes on five levels of 256 channels."""
    rng = np.random.default_rng(rois)
    features = [
        rng.standard_normal((1, CHANNELS, CANVAS[0] // s, CANVAS[1] // s), dtype=np.float32)
        for s in STRIDES
    ]
    inputs = (random_boxes(rng, rois), *map(torch.from_numpy, features))

    def function(boxes: Tensor, *levels: Tensor) -> Tensor:
        return ops.pyramid_roi_align(boxes, list(levels), list(STRIDES), *CANONICAL, OUTPUT_SIZE, 0)

    key = torch.ops.cn2.pyramid_roi_align.default
    others = {"all levels, select": {key: select_level}} if rois <= MOST_SELECTED else {}
    others["moved off, sum"] = {key: sum_levels}
    return open_forms(function, inputs, others, threads)


def select_level(rois: Value, features: Sequence[Value], *rule: Any) -> Value:
    """RoIAlign of all boxes on every level, of which one is taken."""
    level = op.Unsqueeze(pooling._level_of(rois, *rule[:3]), ints(2, 3, 4))
    pooled = on_each_level([rois] * len(features), features, rule)
    found = pooled[0]
    for index in range(1, len(features)):
        found = op.Where(op.Equal(level, ints(index)), pooled[index], found)
    return found


def sum_levels(rois: Value, features: Sequence[Value], *rule: Any) -> Value:
    """RoIAlign of all boxes on every level, where those of others lie outside and give zeros."""
    level = op.Unsqueeze(pooling._level_of(rois, *rule[:3]), ints(2))
    outside = op.Add(op.Mul(rois, floats(0.0)), floats(-FAR_PX))
    moved = [
        op.Where(op.Equal(level, ints(index)), rois, outside) for index in range(len(features))
    ]
    return op.Sum(*on_each_level(moved, features, rule))


def on_each_level(
    boxes: Sequence[Value], features: Sequence[Value], rule: Sequence[Any]
) -> list[Value]:
    """(B, K, C, P, P) of each level; B is 1."""
    strides, _, _, output_size, sampling_ratio = rule
    return [
        op.Unsqueeze(
            op.RoiAlign(
                feature,
                op.Squeeze(own, ints(0)),
                op.ConstantOfShape(op.Shape(own, start=1, end=2), value=ir.tensor([0])),
                coordinate_transformation_mode="half_pixel",
                output_height=output_size,
                output_width=output_size,
                sampling_ratio=sampling_ratio,
                spatial_scale=1.0 / stride,
            ),
            ints(0),
        )
        for own, feature, stride in zip(boxes, features, strides, strict=True)
    ]


# --- Suppression


def proposal_forms(proposals: int, threads: int) -> dict[str, Run]:
    """Of the thousand best cells of each level: 5,000 boxes in clusters, IoU 0.9."""
    rng = np.random.default_rng(proposals)
    boxes = clustered_boxes(rng, 5000, objects=60)
    scores = torch.from_numpy(rng.random((1, 5000), dtype=np.float32))
    function = partial(ops.proposal_nms, k=proposals, iou_threshold=0.9)
    return open_forms(function, (boxes, scores), {}, threads)


def detection_forms(
    rows: int, classes: int, detections: int, share: float, threads: int
) -> dict[str, Run]:
    """Of boxes in clusters; a share of the scores is above the threshold."""
    rng = np.random.default_rng(rows + classes)
    boxes = clustered_boxes(rng, rows, objects=max(rows // 8, 1))
    scores = torch.from_numpy(rng.random((1, rows, classes), dtype=np.float32))
    function = partial(ops.detection_nms, detections=detections, iou_threshold=0.5)
    return open_forms(function, (boxes, scores, torch.tensor(1 - share)), {}, threads)


def random_boxes(rng: np.random.Generator, count: int) -> Tensor:
    """(1, count, 4) of sides 16 to 600 pixels, equally many in each octave."""
    centre = rng.uniform(0, 1, (1, count, 2)) * (CANVAS[1], CANVAS[0])
    side = np.exp(rng.uniform(np.log(16), np.log(600), (1, count, 1)))
    return boxes_around(centre, side * np.exp(rng.uniform(-0.5, 0.5, (1, count, 2))))


def clustered_boxes(rng: np.random.Generator, count: int, objects: int) -> Tensor:
    """(1, count, 4) around a few objects, moved and resized by a tenth of their sides."""
    centre = rng.uniform(0, 1, (objects, 2)) * (CANVAS[1], CANVAS[0])
    side = np.exp(rng.uniform(np.log(16), np.log(400), (objects, 2)))
    chosen = rng.integers(0, objects, count)
    sides = side[chosen] * np.exp(rng.normal(0, 0.1, (count, 2)))
    moved = centre[chosen] + rng.normal(0, 0.1, (count, 2)) * side[chosen]
    return boxes_around(moved[None], sides[None])


def boxes_around(centre: NDArray[Any], side: NDArray[Any]) -> Tensor:
    """(..., 4) xyxy."""
    corners = np.concatenate([centre - side / 2, centre + side / 2], axis=-1)
    return torch.from_numpy(corners.astype(np.float32))
