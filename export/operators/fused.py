"""The fused form: nodes of domain `cn2` (docs/operators.md), each with its standard form as body.

A runtime that knows the operator runs that; any other one runs the body, which is the translation
of `standard.py`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import wraps
from typing import Any

import onnx
import onnx_ir as ir
import torch

from . import pooling, suppression
from .functions import DOMAIN, Call, type_of
from .onnx import Value, ints, number, op
from .standard import standard_translations

FLOAT, INT32 = "tensor(float)", "tensor(int32)"
# Tells TensorRT's parser to prefer a plugin of this namespace to the function (10.7 and later).
NAMESPACE = ir.AttrString("plugin_namespace", DOMAIN)


class FusedOperators:
    """The translations of one model, and the functions that they have written."""

    def __init__(self) -> None:
        self._functions: dict[str, onnx.FunctionProto] = {}

    @property
    def functions(self) -> list[onnx.FunctionProto]:
        """The bodies, one per operator, for the model's file."""
        return list(self._functions.values())

    def translations(self) -> dict[Callable[..., Any], Callable[..., Any]]:
        """The table for `torch.onnx.export`."""
        return {
            **standard_translations(),
            torch.ops.cn2.proposal_nms.default: _function_of(self.proposal_nms),
            torch.ops.cn2.detection_nms.default: _function_of(self.detection_nms),
            torch.ops.cn2.class_nms.default: _function_of(self.class_nms),
            torch.ops.cn2.pyramid_roi_align.default: _function_of(self.pyramid_roi_align),
        }

    def proposal_nms(
        self, boxes: Value, scores: Value, k: int, iou_threshold: float
    ) -> tuple[Value, Value]:
        """See `suppression.proposal_nms`."""

        def body(boxes: Value, scores: Value) -> Sequence[Value]:
            return suppression.proposal_nms(boxes, scores, k, iou_threshold)

        outputs: tuple[Value, Value] = self._call(
            "ProposalNMS",
            {"boxes": boxes, "scores": scores},
            {"kept_boxes": FLOAT, "kept_scores": FLOAT},
            [*_suppression_attributes("proposals", k, iou_threshold), _classed(False)],
            body,
        )
        return outputs

    def class_nms(
        self,
        boxes: Value,
        scores: Value,
        classes: Value,
        class_count: int,
        detections: int,
        iou_threshold: float,
    ) -> tuple[Value, Value, Value, Value]:
        """See `suppression.class_nms`: ProposalNMS with classes, and a count."""

        def body(boxes: Value, scores: Value, classes: Value) -> Sequence[Value]:
            labels = op.Cast(classes, to=ir.DataType.INT64)
            return suppression.best_of_classes(
                boxes, scores, labels, class_count, detections, iou_threshold
            )

        labels = op.Cast(classes, to=ir.DataType.INT32)
        best: tuple[Value, Value, Value] = self._call(
            "ProposalNMS",
            {"boxes": boxes, "scores": scores, "classes": labels},
            {"kept_boxes": FLOAT, "kept_scores": FLOAT, "kept_classes": INT32},
            [*_suppression_attributes("proposals", detections, iou_threshold), _classed(True)],
            body,
        )
        return suppression.count_found(best[1]), *best

    def detection_nms(
        self,
        boxes: Value,
        scores: Value,
        score_threshold: Value,
        detections: int,
        iou_threshold: float,
    ) -> tuple[Value, Value, Value, Value]:
        """See `suppression.detection_nms`; boxes that classes share are (B, K, 1, 4) here."""
        shared = len(boxes.shape) == 3

        def body(boxes: Value, scores: Value, score_threshold: Value) -> Sequence[Value]:
            rule = (score_threshold, detections, iou_threshold)
            if shared:
                return suppression.shared_box_nms(op.Squeeze(boxes, ints(2)), scores, *rule)
            return suppression.own_box_nms(boxes, scores, *rule)

        outputs: tuple[Value, Value, Value, Value] = self._call(
            "DetectionNMS",
            {
                "boxes": op.Unsqueeze(boxes, ints(2)) if shared else boxes,
                "scores": scores,
                "score_threshold": score_threshold,
            },
            {
                "num_detections": INT32,
                "found_boxes": FLOAT,
                "found_scores": FLOAT,
                "found_classes": INT32,
            },
            _suppression_attributes("detections", detections, iou_threshold),
            body,
        )
        return outputs

    def pyramid_roi_align(
        self,
        rois: Value,
        features: Sequence[Value],
        strides: Sequence[int],
        canonical_level: int,
        canonical_size: float,
        output_size: int,
        sampling_ratio: int,
    ) -> Value:
        """See `pooling.pyramid_roi_align`."""

        def body(rois: Value, *features: Value) -> Sequence[Value]:
            wrong = op.Or(op.IsNaN(rois), op.IsInf(rois))
            finite = op.Where(wrong, number(0.0), rois)  # as docs/operators.md has it
            rule = (canonical_level, canonical_size, output_size, sampling_ratio)
            return [pooling.pyramid_roi_align(finite, features, strides, *rule)]

        return self._call(
            "PyramidRoIAlign",
            {"rois": rois, **{f"features{n}": level for n, level in enumerate(features)}},
            {"pooled": type_of(features[0])},
            [
                ir.AttrInt64s("strides", strides),
                ir.AttrInt64("canonical_level", canonical_level),
                ir.AttrFloat32("canonical_size", canonical_size),
                ir.AttrFloat32s("level_borders", pooling.level_borders(strides, canonical_level)),
                ir.AttrInt64("output_size", output_size),
                ir.AttrInt64("sampling_ratio", sampling_ratio),
            ],
            body,
        )

    def _call(
        self,
        name: str,
        inputs: Mapping[str, Value],
        outputs: Mapping[str, str],
        attributes: Sequence[ir.Attr],
        body: Callable[..., Sequence[Value]],
    ) -> Any:
        """A node and its function, which all calls of an operator in a model share.

        Raises:
            ValueError: an earlier call of this operator has another body.
        """
        call = Call(name=name, inputs=inputs, outputs=outputs, attributes=[*attributes, NAMESPACE])
        function = call.write_function(body)
        if self._functions.setdefault(name, function) != function:
            raise ValueError(
                f"{name}: expected one kind of call in a model, got calls with other attributes, "
                f"sizes or inputs; export with --ops standard"
            )
        return call.write_node()


def _function_of(method: Callable[..., Any]) -> Callable[..., Any]:
    """The method as a function, which torch can write its signature on."""

    @wraps(method)
    def translate(*arguments: Any, **options: Any) -> Any:
        return method(*arguments, **options)

    return translate


def _suppression_attributes(name: str, count: int, iou_threshold: float) -> list[ir.Attr]:
    threshold = suppression.largest_float32(iou_threshold)
    return [ir.AttrInt64(name, count), ir.AttrFloat32("iou_threshold", threshold)]


def _classed(classed: bool) -> ir.Attr:
    """Tells a plugin, which sees only a node's attributes, whether classes go in and out."""
    return ir.AttrInt64("classed", int(classed))
