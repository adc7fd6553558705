"""TensorRT plugins: what TensorRT asks before it runs them, and what they compute, emulated."""

from __future__ import annotations

import threading
from typing import Any

import numpy as np
import pytest

from native_cuda import Convolution, CudaKernels, deform_conv
from native_plugins import (
    CHANNELS_LAST,
    FLOAT,
    HALF,
    INT32,
    RUNTIME,
    Plugin,
    PluginLibrary,
    Spec,
)
from plugin_inputs import grid_boxes, grid_scores

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


def test_creators_are_where_parsers_look(plugins: PluginLibrary) -> None:
    creators = plugins.creators()
    assert set(creators) == {
        "PyramidRoIAlign 1 cn2",
        "ProposalNMS 1 cn2",
        "DetectionNMS 1 cn2",
        "DeformConv 1 cn2",
        "DeformConv 1 ",  # the standard operator, which has no namespace
    }
    for name, attributes in ALL:
        assert set(creators[f"{name} 1 cn2"]) >= set(attributes)


@pytest.mark.parametrize(("name", "attributes"), ALL)
@pytest.mark.parametrize("ints", [np.int32, np.int64])
def test_what_is_serialised_makes_the_same_plugin(
    plugins: PluginLibrary, name: str, attributes: Attributes, ints: Any
) -> None:
    plugin = plugins.create(name, attributes, ints=ints)
    stored = plugin.fields()
    assert {key: np.atleast_1d(value).tolist() for key, value in attributes.items()} == stored
    clone = plugin.clone()
    plugin.destroy()
    assert clone.fields() == stored
    assert plugins.create(name, stored, phase=RUNTIME).fields() == stored


def test_attributes_that_onnx_leaves_out(plugins: PluginLibrary) -> None:
    plugin = plugins.create("DeformConv", {"kernel_shape": [1, 3]}, space="")
    assert plugin.fields() == {
        "kernel_shape": [1, 3],
        "strides": [1, 1],
        "dilations": [1, 1],
        "pads": [0, 0, 0, 0],
        "group": [1],
        "offset_group": [1],
    }
    one_level = {**POOLING, "strides": [8]}
    del one_level["level_borders"]
    assert plugins.create("PyramidRoIAlign", one_level).fields()["level_borders"] == []


@pytest.mark.parametrize(
    ("name", "attributes", "said"),
    [
        ("ProposalNMS", {"iou_threshold": 0.5}, "attribute proposals: expected one number, got 0"),
        ("ProposalNMS", {**PROPOSALS, "proposals": 0}, "proposals: expected 1 or more, got 0"),
        (
            "DetectionNMS",
            {**DETECTIONS, "detections": -1},
            "detections: expected 1 or more, got -1",
        ),
        (
            "DetectionNMS",
            {**DETECTIONS, "iou_threshold": 1},
            "attribute iou_threshold: expected floats, got field type 5",
        ),
        (
            "PyramidRoIAlign",
            {**POOLING, "level_borders": []},
            "expected one of level_borders less than of strides, got 0 and 2",
        ),
        ("PyramidRoIAlign", {**POOLING, "strides": [8] * 17}, "strides: expected 1 to 16, got 17"),
        (
            "PyramidRoIAlign",
            {**POOLING, "strides": [8.0, 16.0]},
            "attribute strides: expected integers, got field type 1",
        ),
        ("DeformConv", {"kernel_shape": [3]}, "kernel_shape: expected 2 numbers, got 1"),
        (
            "DeformConv",
            {**CONVOLUTION, "pads": [1, 1]},
            "attribute pads: expected 4 numbers, got 2",
        ),
        ("DeformConv", {**CONVOLUTION, "strides": [0, 1]}, "strides: expected 1 or more, got 0"),
    ],
)
def test_attributes_that_are_refused(
    plugins: PluginLibrary, name: str, attributes: Attributes, said: str
) -> None:
    with pytest.raises(ValueError) as error:
        plugins.create(name, attributes)
    assert str(error.value) == f"cn2 {name}: {said}\n"


# --- Types and formats


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


@pytest.mark.parametrize(("name", "attributes"), ALL)
@pytest.mark.parametrize("feature", [FLOAT, HALF])
def test_types_shapes_and_formats(
    plugins: PluginLibrary, name: str, attributes: Attributes, feature: int
) -> None:
    plugin = plugins.create(name, attributes)
    inputs, outputs = specs(name, feature, classed=attributes is CLASSED)
    assert plugin.infer(inputs) == outputs
    tensors = [*inputs, *outputs]
    for place, tensor in enumerate(tensors):
        assert plugin.supports(place, tensors, len(inputs))
        for other in (FLOAT, HALF, INT32):
            if other != tensor.type and not starts_a_choice(name, place, other):
                changed = [*tensors]
                changed[place] = tensor._replace(type=other)
                assert not plugin.supports(place, changed, len(inputs))
        changed = [*tensors]
        changed[place] = tensor._replace(format=CHANNELS_LAST)
        assert not plugin.supports(place, changed, len(inputs))


def starts_a_choice(name: str, place: int, other: int) -> bool:
    """Whether the first of the features, which may have this type too."""
    first = {"PyramidRoIAlign": 1, "DeformConv": 0}.get(name)
    return place == first and other in (FLOAT, HALF)


def test_convolutions_without_bias_and_mask(plugins: PluginLibrary) -> None:
    plugin = plugins.create("DeformConv", CONVOLUTION)
    inputs, outputs = specs("DeformConv")
    for count in (3, 4):
        assert plugin.infer(inputs[:count]) == outputs
        plugin.configure(inputs[:count])


# --- Sizes


@pytest.mark.parametrize(("name", "attributes"), ALL)
def test_sizes_that_can_be(plugins: PluginLibrary, name: str, attributes: Attributes) -> None:
    plugin = plugins.create(name, attributes)
    inputs, _ = specs(name, classed=attributes is CLASSED)
    plugin.configure(inputs)
    floats = 6 * 2 * 3 * 3 if name == "DeformConv" else 0  # the weights, in another order
    assert plugin.workspace(inputs) == 4 * floats
    larger = [Spec((4, *one.shape[1:]), one.type) if len(one.shape) > 1 else one for one in inputs]
    if name == "DeformConv":
        larger[1] = inputs[1]
    assert plugin.workspace(larger) == plugin.workspace(inputs)


def test_many_scores_need_a_workspace(plugins: PluginLibrary) -> None:
    """As benchmarks/cuda_cases.py has it: more than 16,384 of a picture are collected first."""
    plugin = plugins.create("DetectionNMS", DETECTIONS)
    few = [Spec((2, 128, 1, 4)), Spec((2, 128, 128)), Spec(())]
    many = [Spec((2, 128, 1, 4)), Spec((2, 128, 129)), Spec(())]
    assert plugin.workspace(few) == 0
    assert plugin.workspace(many) > 2 * 128 * 129


@pytest.mark.parametrize(
    ("name", "attributes", "place", "shape", "said"),
    [
        ("PyramidRoIAlign", POOLING, 0, (2, 3, 5), "rois: expected [any, any, 4], got [2, 3, 5]"),
        (
            "PyramidRoIAlign",
            POOLING,
            2,
            (2, 6, 4, 6),
            "features: expected [2, 5, any, any], got [2, 6, 4, 6]",
        ),
        ("PyramidRoIAlign", POOLING, 1, (-1, 5, 8, 12), "got [-1, 5, 8, 12]"),
        ("ProposalNMS", PROPOSALS, 1, (2, 12), "scores: expected [2, 11], got [2, 12]"),
        ("ProposalNMS", CLASSED, 2, (2, 10), "classes: expected [2, 11], got [2, 10]"),
        (
            "DetectionNMS",
            DETECTIONS,
            0,
            (2, 7, 2, 4),
            "boxes: expected 1 or 3 boxes a row, got 2",
        ),
        ("DetectionNMS", DETECTIONS, 2, (1,), "score_threshold: expected [], got [1]"),
        (
            "DeformConv",
            CONVOLUTION,
            1,
            (6, 4, 3, 3),
            "got x [2, 4, 9, 11] and weight [6, 4, 3, 3]",
        ),
        ("DeformConv", CONVOLUTION, 2, (2, 18, 4, 11), "offset: expected [2, 18, 4, 12]"),
        ("DeformConv", CONVOLUTION, 3, (5,), "bias: expected [6], got [5]"),
        ("DeformConv", CONVOLUTION, 4, (2, 9, 4, 1), "mask: expected [2, 9, 4, 12], got"),
    ],
)
def test_sizes_that_are_refused(
    plugins: PluginLibrary,
    name: str,
    attributes: Attributes,
    place: int,
    shape: tuple[int, ...],
    said: str,
) -> None:
    plugin = plugins.create(name, attributes)
    inputs, _ = specs(name, classed=attributes is CLASSED)
    inputs[place] = inputs[place]._replace(shape=shape)
    with pytest.raises(ValueError) as error:
        plugin.configure(inputs)
    message = str(error.value)
    assert message.startswith(f"cn2 {name}: ")
    assert message.count("\n") == 1
    assert said.replace("-1", "any") in message


def test_inputs_that_are_missing(plugins: PluginLibrary) -> None:
    pooling = plugins.create("PyramidRoIAlign", POOLING)
    with pytest.raises(ValueError, match="expected rois and 2 features, got 2 inputs"):
        pooling.configure(specs("PyramidRoIAlign")[0][:2])
    with pytest.raises(ValueError, match=r"scores: expected an input \[2, 11\], got none"):
        plugins.create("ProposalNMS", PROPOSALS).configure(specs("ProposalNMS")[0][:1])
    unclassed = plugins.create("ProposalNMS", PROPOSALS)
    with pytest.raises(ValueError, match="expected attribute classed = 1 with input classes"):
        unclassed.configure(specs("ProposalNMS", classed=True)[0])


# --- What they compute


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


def test_threads_share_one_plugin(plugins: PluginLibrary) -> None:
    """What TensorRT asks before it runs a plugin; the emulator itself has one thread."""
    plugin = plugins.create("PyramidRoIAlign", POOLING)
    inputs, outputs = specs("PyramidRoIAlign")
    wrong: list[Any] = []

    def ask(one: Plugin) -> None:
        for _ in range(200):
            clone = one.clone()
            wrong.extend(s for s in clone.infer(inputs) if s not in outputs)
            wrong.extend([f] for f in [one.fields()] if f["strides"] != [8, 16])
            clone.destroy()

    threads = [threading.Thread(target=ask, args=(plugin,)) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []
