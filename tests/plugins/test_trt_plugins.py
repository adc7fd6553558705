"""TensorRT plugins: what TensorRT asks before it runs them. What they compute:
test_trt_plugin_results.py.
"""

from __future__ import annotations

import threading
from typing import Any

import numpy as np
import pytest

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
from plugin_cases import (
    ALL,
    CLASSED,
    CONVOLUTION,
    DETECTIONS,
    POOLING,
    PROPOSALS,
    Attributes,
    specs,
)


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


@pytest.mark.parametrize(
    ("name", "attributes", "place", "said"),
    [
        ("PyramidRoIAlign", POOLING, 0, "rois: expected 3 dimensions, got 1"),
        ("PyramidRoIAlign", POOLING, 1, "features: expected 4 dimensions, got 1"),
        ("ProposalNMS", PROPOSALS, 0, "boxes: expected 3 dimensions, got 1"),
        ("DetectionNMS", DETECTIONS, 0, "boxes: expected 4 dimensions, got 1"),
        ("DeformConv", CONVOLUTION, 1, "weight: expected 4 dimensions, got 1"),
    ],
)
def test_ranks_that_are_refused(
    plugins: PluginLibrary, name: str, attributes: Attributes, place: int, said: str
) -> None:
    """Before there are sizes, the outputs' shapes are asked for."""
    inputs, _ = specs(name)
    inputs[place] = Spec((7,))
    with pytest.raises(ValueError, match=said):
        plugins.create(name, attributes).infer(inputs)


def test_inputs_that_are_missing(plugins: PluginLibrary) -> None:
    pooling = plugins.create("PyramidRoIAlign", POOLING)
    with pytest.raises(ValueError, match="expected rois and 2 features, got 2 inputs"):
        pooling.configure(specs("PyramidRoIAlign")[0][:2])
    with pytest.raises(ValueError, match="boxes: expected 3 dimensions, got no input"):
        plugins.create("ProposalNMS", PROPOSALS).infer([])
    with pytest.raises(ValueError, match=r"scores: expected an input \[2, 11\], got none"):
        plugins.create("ProposalNMS", PROPOSALS).configure(specs("ProposalNMS")[0][:1])
    unclassed = plugins.create("ProposalNMS", PROPOSALS)
    with pytest.raises(ValueError, match="expected attribute classed = 1 with input classes"):
        unclassed.configure(specs("ProposalNMS", classed=True)[0])


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
