"""Attributes and tensors that each TensorRT plugin can have."""

from __future__ import annotations

from typing import Any

from native_plugins import FLOAT, INT32, Spec

Attributes = dict[str, Any]
POOLING: Attributes = {
    "strides": [8, 16],
    "level_borders": [1.0],
    "canonical_size": 64.0,
    "output_size": 7,
    "sampling_ratio": 0,
}
PROPOSALS: Attributes = {"proposals": 6, "iou_threshold": 0.5, "classed": 0}
CLASSED: Attributes = {**PROPOSALS, "classed": 1}
DETECTIONS: Attributes = {"detections": 9, "iou_threshold": 0.5}
CONVOLUTION: Attributes = {
    "kernel_shape": [3, 3],
    "strides": [2, 1],
    "dilations": [1, 2],
    "pads": [1, 2, 0, 3],
    "group": 2,
    "offset_group": 1,
}
ALL = [
    ("PyramidRoIAlign", POOLING),
    ("ProposalNMS", PROPOSALS),
    ("ProposalNMS", CLASSED),
    ("DetectionNMS", DETECTIONS),
    ("DeformConv", CONVOLUTION),
]


def specs(name: str, feature: int = FLOAT, classed: bool = False) -> tuple[list[Spec], list[Spec]]:
    """Inputs and outputs as they can be, of 2 pictures."""
    if name == "PyramidRoIAlign":
        features = [Spec((2, 5, 8, 12), feature), Spec((2, 5, 4, 6), feature)]
        return [Spec((2, 3, 4)), *features], [Spec((2, 3, 5, 7, 7), feature)]
    if name == "ProposalNMS":
        kinds = [Spec((2, 11), INT32)] * classed
        made = [Spec((2, 6, 4)), Spec((2, 6)), *[Spec((2, 6), INT32)] * classed]
        return [Spec((2, 11, 4)), Spec((2, 11)), *kinds], made
    if name == "DetectionNMS":
        given = [Spec((2, 7, 1, 4)), Spec((2, 7, 3)), Spec(())]
        return given, [Spec((2,), INT32), Spec((2, 9, 4)), Spec((2, 9)), Spec((2, 9), INT32)]
    shapes = [(2, 4, 9, 11), (6, 2, 3, 3), (2, 18, 4, 12), (6,), (2, 9, 4, 12)]
    return [Spec(shape, feature) for shape in shapes], [Spec((2, 6, 4, 12), feature)]
