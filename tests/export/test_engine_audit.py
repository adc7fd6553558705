"""The audit: multiply-adds counted by hand, islands that are not fp32, and what is refused."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from onnx import NodeProto, helper

from cn2.export.engine.audit import (
    Audit,
    Work,
    audit_network,
    multiply_adds,
    require_precision,
)
from cn2.export.engine.inspector import (
    built_multiply_adds,
    built_text,
    describe_built,
    require_built_precision,
)
from cn2.export.engine.network import check_turing, inputs_of
from cn2.runtime.errors import BuildError
from engine_networks import (
    BATCH,
    FLOAT,
    HALF,
    HEIGHT,
    PROFILE,
    WIDTH,
    rtx_without_plugins,
    small_network,
    weights,
)

PIXELS = BATCH * HEIGHT * WIDTH


def node(kind: str, inputs: str, output: str, **attributes: Any) -> NodeProto:
    return helper.make_node(kind, inputs.split(), [output], name=f"the_{output}", **attributes)


def convolution(inputs: str, output: str, **attributes: Any) -> NodeProto:
    return node("Conv", inputs, output, **{"pads": [1, 1, 1, 1], **attributes})


@pytest.mark.parametrize(
    ("nodes", "constants", "count"),
    [
        ([convolution("x w", "y")], {"w": weights(8, 3, 3, 3)}, PIXELS * 8 * 3 * 9),
        # with a stride of 2 a quarter of the outputs
        (
            [convolution("x w", "y", strides=[2, 2])],
            {"w": weights(8, 3, 3, 3)},
            PIXELS // 4 * 8 * 3 * 9,
        ),
        # in three groups each output has one input channel
        (
            [convolution("x w", "y", group=3)],
            {"w": weights(6, 1, 3, 3)},
            PIXELS * 6 * 9,
        ),
        # each input meets 5 channels at 2 x 2 taps
        (
            [node("ConvTranspose", "x w", "y", strides=[2, 2])],
            {"w": weights(3, 5, 2, 2)},
            PIXELS * 3 * 5 * 4,
        ),
        # (2, 3, 16, 24) x (24, 7)
        ([node("MatMul", "x w", "y")], {"w": weights(WIDTH, 7)}, BATCH * 3 * HEIGHT * WIDTH * 7),
        # (6, 16 * 24) x (16 * 24, 7), and a row of the second per output
        (
            [
                node("Reshape", "x shape", "flat"),
                node("Gemm", "flat w", "y", transB=1),
            ],
            {"w": weights(7, HEIGHT * WIDTH), "shape": np.array([-1, HEIGHT * WIDTH])},
            BATCH * 3 * HEIGHT * WIDTH * 7,
        ),
        ([node("Relu", "x", "y")], {}, 0),
    ],
)
def test_multiply_adds(nodes: list[NodeProto], constants: dict[str, Any], count: int) -> None:
    network = small_network(nodes, "y", **constants)
    audit = audit_network(rtx_without_plugins(), network, PROFILE)
    assert audit.multiply_adds() == ({"fp32": count} if count else {})
    images = inputs_of(network)["images"]
    assert tuple(images.shape) == (-1, -1, -1, 3)  # as before


def test_multiply_adds_of_a_deformable_convolution() -> None:
    """Outputs (2, 8, 5, 6), weight (8, 4, 3, 3)."""

    def tensor(*shape: int) -> Any:
        return SimpleNamespace(shape=shape)

    inputs = [tensor(2, 4, 5, 6), tensor(8, 4, 3, 3)]
    layer = SimpleNamespace(
        name="d",
        type="plugin",
        get_input=lambda index: inputs[index],
        get_output=lambda index: tensor(2, 8, 5, 6),
    )
    network: Any = SimpleNamespace(plugins={"d": "DeformConv"})
    assert multiply_adds(rtx_without_plugins().module, network, layer) == 2 * 8 * 5 * 6 * 4 * 9


def test_fp16_and_fp32_are_told_apart() -> None:
    network = small_network(
        [
            convolution("h w16", "a"),
            convolution("a v16", "b"),
            node("Cast", "b", "c", to=FLOAT),
            node("Conv", "c last", "d"),
            node("Sigmoid", "d", "y"),
        ],
        "y",
        w16=weights(8, 3, 3, 3, dtype=np.float16),
        v16=weights(8, 8, 3, 3, dtype=np.float16),
        last=weights(4, 8, 1, 1),
    )
    audit = audit_network(rtx_without_plugins(), network, PROFILE)
    low, high = PIXELS * 8 * (3 + 8) * 9, PIXELS * 4 * 8
    assert audit.multiply_adds() == {"fp16": low, "fp32": high}
    assert audit.share("fp16") == pytest.approx(low / (low + high))
    assert audit.islands == ()
    require_precision(audit, "fp16", "m.onnx")
    require_precision(audit, "fp32", "m.onnx")


@pytest.mark.parametrize(
    ("tail", "kind"),
    [
        # the last convolution itself gives fp16
        ([node("Cast", "a", "c", to=FLOAT), node("Sigmoid", "c", "y")], FLOAT),
        # a score between the last convolution and the output
        ([node("Sigmoid", "a", "s"), node("Cast", "s", "y", to=FLOAT)], FLOAT),
        # the output itself
        ([node("Sigmoid", "a", "y")], HALF),
    ],
)
def test_a_lowered_island_is_found_and_refused(tail: list[NodeProto], kind: int) -> None:
    network = small_network(
        [convolution("h w", "a"), *tail], "y", kind, w=weights(8, 3, 3, 3, dtype=np.float16)
    )
    audit = audit_network(rtx_without_plugins(), network, PROFILE)
    assert "a" in audit.islands
    with pytest.raises(BuildError, match=r"m\.onnx: expected boxes and scores in fp32.*\(.*a"):
        require_precision(audit, "fp16", "m.onnx")


def test_too_little_fp16_is_refused_and_names_the_rest() -> None:
    work = (
        Work(layer="backbone", precision="fp16", multiply_adds=900),
        Work(layer="small", precision="fp32", multiply_adds=1),
        Work(layer="large", precision="fp32", multiply_adds=99),
    )
    with pytest.raises(BuildError, match=r"at least 95% .* in fp16, got 90.0%; .* large .*small"):
        require_precision(Audit(work=work, islands=()), "fp16", "m.onnx")
    require_precision(Audit(work=work, islands=()), "fp32", "m.onnx")


def test_a_network_without_work_has_no_share() -> None:
    assert Audit(work=(), islands=()).share("fp16") == 0


def test_a_matrix_product_of_fp32_is_refused_for_turing() -> None:
    network = small_network([node("MatMul", "x w", "y")], "y", w=weights(WIDTH, 7))
    library = rtx_without_plugins()
    check_turing(library, network, ("sm_86",), "m.onnx")
    with pytest.raises(BuildError, match=r"--target sm_75: .*the_y is one; leave sm_75 out"):
        check_turing(library, network, ("sm_75", "sm_86"), "m.onnx")
    low = small_network(
        [node("MatMul", "h w", "a"), node("Cast", "a", "y", to=FLOAT)],
        "y",
        w=weights(WIDTH, 7, dtype=np.float16),
    )
    check_turing(library, low, ("sm_75",), "m.onnx")


AUDIT = Audit(
    work=(
        Work(layer="conv1", precision="fp16", multiply_adds=700),
        Work(layer="conv2", precision="fp16", multiply_adds=250),
        Work(layer="last", precision="fp32", multiply_adds=40),
        Work(layer="lost", precision="fp16", multiply_adds=10),
    ),
    islands=(),
)


def built(*types: str) -> dict[str, Any]:
    """What the inspector says of an engine of three layers, the first two of them one."""
    names = (
        "[ONNX Layer: conv1]\x1e[ONNX Layer: relu]",
        "[ONNX Layer: conv2]",
        "[ONNX Layer: last]",
    )
    return {
        "Layers": [
            {
                "Name": "fused",
                "Inputs": [{"Name": "i", "Format/Datatype": kind}],
                "Metadata": name,
            }
            for name, kind in zip(names, types, strict=True)
        ]
    }


def test_the_built_engine_is_counted() -> None:
    half, single = "Channel major FP16 format where channel % 8 == 0", "Row major linear FP32"
    found = built_multiply_adds(built(half, "Half", single), AUDIT)
    assert found == {"fp16": 950, "fp32": 40, "unknown": 10}
    require_built_precision({"multiply_adds": found}, "fp16", "m.onnx")
    found = built_multiply_adds(built(half, single, single), AUDIT)
    assert found == {"fp16": 700, "fp32": 290, "unknown": 10}
    with pytest.raises(BuildError, match="of the built engine's multiply-adds in fp16, got"):
        require_built_precision({"multiply_adds": found}, "fp16", "m.onnx")
    require_built_precision({"multiply_adds": found}, "fp32", "m.onnx")
    require_built_precision({"skipped": "no GPU"}, "fp16", "m.onnx")


def test_layers_that_only_have_names_are_unknown() -> None:
    assert built_multiply_adds({"Layers": ["conv1", "conv2"]}, AUDIT) == {"unknown": 1000}


@pytest.mark.parametrize(
    ("sums", "known", "told"),
    [
        ({"fp16": 950, "fp32": 40, "unknown": 10}, 0.99, False),
        ({"fp16": 950, "unknown": 50}, 0.95, False),  # still known to be enough
        ({"fp16": 949, "unknown": 51}, 0.949, True),
        ({"unknown": 1000}, 0.0, True),
    ],
)
def test_what_the_inspector_does_not_name_is_told(
    sums: dict[str, int], known: float, told: bool
) -> None:
    found = describe_built(sums)
    assert found == {"multiply_adds": sums, "known_share": known}
    text = built_text(found)
    assert ("inspector does not name" in text) is told
    assert all(f"{count / 1000:.1%} in {name}" in text for name, count in sums.items())
    require_built_precision(found, "fp16", "m.onnx")  # nothing is known to be wrong


def test_an_engine_that_was_not_looked_into() -> None:
    assert built_text({"skipped": "no GPU"}) == "not looked into: no GPU"
