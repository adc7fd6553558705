"""What TensorRT plugins compute, over emulated kernels: what the kernels do."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from native_cuda import Convolution, CudaKernels, deform_conv
from native_plugins import PluginLibrary
from plugin_cases import CLASSED, CONVOLUTION, DETECTIONS, POOLING, PROPOSALS, Attributes, specs
from plugin_inputs import grid_boxes, grid_scores


def pooling_inputs(dtype: Any = np.float32) -> list[np.ndarray]:
    rng = np.random.default_rng(0)
    rois = np.array([[[0, 0, 40, 30], [5, 5, 90, 60], [9, 9, 9, 9]]], np.float32)
    rois = np.concatenate([rois, rois + 3])
    return [rois, *(rng.standard_normal(s).astype(dtype) for s in ((2, 5, 8, 12), (2, 5, 4, 6)))]


def test_pooling(plugins: PluginLibrary, cuda: CudaKernels) -> None:
    plugin = plugins.create("PyramidRoIAlign", POOLING)
    inputs = pooling_inputs()
    expected = cuda.pyramid_roi_align(
        inputs[0], inputs[1:], POOLING["strides"], [1.0], canonical_size=64.0
    )
    np.testing.assert_array_equal(plugin.run(inputs)[0], expected)
    halfs = pooling_inputs(np.float16)
    expected = cuda.pyramid_roi_align_fp16(
        halfs[0], halfs[1:], POOLING["strides"], [1.0], canonical_size=64.0
    )
    (pooled,) = plugin.run(halfs)
    assert pooled.dtype == np.float16
    np.testing.assert_array_equal(pooled, expected)


@pytest.mark.parametrize("attributes", [PROPOSALS, CLASSED])
@pytest.mark.parametrize("count", [40, 0])
def test_proposals(
    plugins: PluginLibrary, cuda: CudaKernels, attributes: Attributes, count: int
) -> None:
    rng = np.random.default_rng(1)
    boxes, scores = grid_boxes(rng, (2, count)), grid_scores(rng, (2, count))
    classes = rng.integers(0, 3, (2, count)).astype(np.int32) if attributes is CLASSED else None
    inputs = [boxes, scores] if classes is None else [boxes, scores, classes]
    found = plugins.create("ProposalNMS", attributes).run(inputs)
    expected = cuda.proposal_nms(boxes, scores, 6, 0.5, classes=classes)
    assert len(found) == len(inputs)
    for ours, theirs in zip(found, expected, strict=False):
        np.testing.assert_array_equal(ours, theirs)


@pytest.mark.parametrize("boxes_per_row", [1, 3])
def test_detections(plugins: PluginLibrary, cuda: CudaKernels, boxes_per_row: int) -> None:
    rng = np.random.default_rng(2)
    boxes, scores = grid_boxes(rng, (2, 20, boxes_per_row)), grid_scores(rng, (2, 20, 3))
    found = plugins.create("DetectionNMS", DETECTIONS).run([boxes, scores, np.float32(0.2)])
    for ours, theirs in zip(found, cuda.detection_nms(boxes, scores, 0.2, 9, 0.5), strict=True):
        np.testing.assert_array_equal(ours, theirs)


@pytest.mark.parametrize("dtype", [np.float32, np.float16])
@pytest.mark.parametrize("count", [3, 4, 5])
def test_convolutions(plugins: PluginLibrary, cuda: CudaKernels, dtype: Any, count: int) -> None:
    rng = np.random.default_rng(3)
    inputs = [
        rng.standard_normal(spec.shape).astype(dtype) for spec in specs("DeformConv")[0][:count]
    ]
    convolution = Convolution(
        2, 4, 9, 11, 6, stride=(2, 1), dilation=(1, 2), pads=(1, 2, 0, 3), groups=2
    )
    expected = deform_conv(cuda, convolution, [*inputs, *[None] * (5 - count)])
    (y,) = plugins.create("DeformConv", CONVOLUTION).run(inputs)
    np.testing.assert_array_equal(y, expected)
