"""fp16 files: what is lowered and what is not, and that both forms find what fp32 finds."""

from __future__ import annotations

from collections import Counter
from contextlib import closing
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto
from torch import nn

from cn2.export.agreement import Found, match
from cn2.export.onnx_file import export_onnx
from cn2.export.precision import PrecisionError, fold_norms, lower
from cn2.export.precision_emulation import EmulatedBackend
from cn2.runtime.backends.base import RawDetections
from cn2.runtime.manifest import OperatorForm
from cn2.trainer.build import build_detector
from cn2.trainer.deformable import DeformableConv2d
from cn2.trainer.detector import TwoStageDetector
from cn2.trainer.layers import FrozenBatchNorm2d
from cn2.trainer.presets import PRESETS
from exported import Exported, canvases, export_to, lively_detector
from factories import shrunk, tiny_config, tiny_one_stage_config
from native_libraries import needs_library

HALF, SINGLE = TensorProto.FLOAT16, TensorProto.FLOAT
# Outputs as spread as these amplify rounding, and boxes crowd, so that it decides which one stays.
MATCHED, SCORE_ATOL = 0.75, 0.004


FORMS = ["fused", *(pytest.param(f, marks=pytest.mark.slow) for f in ("standard", "one-stage"))]


@pytest.fixture(scope="module", params=FORMS)
def lowered(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Exported:
    """Each form of the tiny detector, and the one without a second stage."""
    if request.param == "fused":
        return request.getfixturevalue("tiny_fp16")  # type: ignore[no-any-return]
    name, ops = {"standard": ("tiny", "standard"), "one-stage": ("one_stage", "fused")}[
        request.param
    ]
    whole, folder = request.getfixturevalue(name), tmp_path_factory.mktemp("fp16")
    return export_to(folder, whole.model, whole.config, ops, "fp16")


def inferred_types(proto: onnx.ModelProto) -> dict[str, int]:
    """The element type of every value, weights included."""
    full = onnx.shape_inference.infer_shapes(proto, strict_mode=True, data_prop=True)
    values = [*full.graph.value_info, *full.graph.input, *full.graph.output]
    types = {value.name: value.type.tensor_type.elem_type for value in values}
    return types | {weight.name: weight.data_type for weight in full.graph.initializer}


def test_the_numbers(lowered: Exported) -> None:
    """On a canvas and batch that were not the exporter's example."""
    images, sizes = canvases(3, 96, 160, seed=4)
    expected = lowered.torch_run(images, sizes)
    for backend in (lowered.backend, EmulatedBackend(lowered.path)):
        found = backend.infer(images, sizes)
        for row in range(3):
            single, half = detections(expected, row), detections(found, row)
            assert len(single) >= 5
            pairs = match(single, half)
            assert len(pairs) >= MATCHED * max(len(single), len(half))
            scores = [abs(single.scores[a] - half.scores[b]) for a, b in pairs]
            assert 0 < np.median(scores) < SCORE_ATOL


def detections(found: RawDetections, row: int) -> Found:
    """Those of one picture."""
    count = int(found.num_detections[row])
    return Found(
        boxes=found.boxes[row, :count],
        scores=found.scores[row, :count],
        classes=found.classes[row, :count],
    )


def test_inputs_and_outputs_keep_their_types(lowered: Exported) -> None:
    graph = onnx.load(lowered.path).graph
    types = {v.name: v.type.tensor_type.elem_type for v in (*graph.input, *graph.output)}
    assert types == {
        "images": TensorProto.UINT8,
        "image_sizes": TensorProto.INT32,
        "score_threshold": SINGLE,
        "num_detections": TensorProto.INT32,
        "boxes": SINGLE,
        "scores": SINGLE,
        "classes": TensorProto.INT32,
    }
    assert lowered.backend.manifest.precision == "fp16"


def test_what_is_lowered(lowered: Exported) -> None:
    """Every convolution and matrix product but the last ones; they, norms and scores are fp32."""
    check_types(lowered, SCORES)


NORMS = ("InstanceNormalization", "Softmax", "Exp", "TopK")
SCORES = (*NORMS, "Sigmoid")  # where no other one is: a swish of the BiFPN, a mask


def check_types(lowered: Exported, single: tuple[str, ...]) -> None:
    """Of all nodes; those in `single` are in fp32."""
    proto = onnx.load(lowered.path)
    types = inferred_types(proto)
    for node in proto.graph.node:
        own = {types[name] for name in (*node.input, *node.output) if types.get(name) is not None}
        floats = own & {HALF, SINGLE}
        if node.op_type in ("Conv", "Gemm"):
            assert floats == {SINGLE if is_last(node.input[1]) else HALF}, node.input[1]
        elif node.op_type in single:
            assert floats == {SINGLE}
        elif node.op_type in ("ProposalNMS", "DetectionNMS"):
            assert HALF not in floats
        elif node.op_type not in ("Cast", "PyramidRoIAlign"):
            assert len(floats) <= 1, node  # nothing mixes
    pooled = [n for n in proto.graph.node if n.op_type == "PyramidRoIAlign"]
    for node in pooled:
        kinds = [types[name] for name in (*node.input, *node.output)]
        assert kinds == [SINGLE] + [HALF] * (len(kinds) - 1)  # rois, features, pooled features


PREDICT = ("heatmap", "regression", "class_logits", "deltas", "head.logits", "centerness")


def is_last(weight: str) -> bool:
    """Whether a weight is of a layer that scores or positions are read from."""
    return any(word in weight for word in PREDICT) and "tower" not in weight


def test_no_norm_is_left_and_weights_are_stored_in_fp16(lowered: Exported) -> None:
    proto = onnx.load(lowered.path)
    kinds = Counter(node.op_type for node in proto.graph.node)
    assert kinds["BatchNormalization"] == 0
    weights = [w for w in proto.graph.initializer if len(w.dims) > 1 and not is_last(w.name)]
    assert {w.data_type for w in weights if ".weight" in w.name and "norm" not in w.name} == {HALF}


def test_the_body_pools_in_fp32(lowered: Exported) -> None:
    """RoiAlign takes boxes of its features' type: these must not be rounded."""
    proto = onnx.load(lowered.path)
    for function in proto.functions:
        if function.name == "PyramidRoIAlign":
            casts = {n.input[0]: target(n) for n in function.node if n.op_type == "Cast"}
            assert all(casts[feature] == SINGLE for feature in function.input[1:])
            last = function.node[-1]
            assert (last.op_type, target(last), last.output) == ("Cast", HALF, ["pooled"])


def target(cast: onnx.NodeProto) -> int:
    """The type that a Cast makes."""
    return next(a.i for a in cast.attribute if a.name == "to")


@needs_library("cn2_ort_ops")
def test_the_kernels_take_fp16_and_find_what_the_bodies_find(tiny_fp16: Exported) -> None:
    images, sizes = canvases(2, 96, 160, seed=4)
    with closing(tiny_fp16.opened(fused=False)) as opened:
        bodies = opened.infer(images, sizes)
    with closing(tiny_fp16.opened(fused=True)) as opened:
        assert opened.fused
        kernels = opened.infer(images, sizes)
    for row in range(2):
        by_bodies, by_kernels = detections(bodies, row), detections(kernels, row)
        assert len(by_bodies) >= 5
        pairs = match(by_bodies, by_kernels)
        assert len(pairs) >= MATCHED * max(len(by_bodies), len(by_kernels))
        assert all(abs(by_bodies.scores[a] - by_kernels.scores[b]) < SCORE_ATOL for a, b in pairs)


@pytest.mark.parametrize("deformable", [False, True])
def test_folding_changes_nothing(deformable: bool) -> None:
    """In training mode the norms have learnt statistics that are not 0 and 1."""
    torch.manual_seed(0)
    conv = DeformableConv2d(4, 6, bias=True) if deformable else nn.Conv2d(4, 6, 3, bias=False)
    frozen = FrozenBatchNorm2d(8)
    model = nn.Sequential(
        nn.Sequential(conv, nn.BatchNorm2d(6), nn.ReLU()),
        nn.Sequential(nn.MaxPool2d(2), nn.Conv2d(6, 8, 1), frozen),
    )
    for buffer in (frozen.running_mean, frozen.weight, frozen.bias):
        buffer.normal_()
    x = torch.randn(5, 4, 12, 14)
    model(x)
    model.eval()
    expected = model(x)
    fold_norms(model)
    assert not any(isinstance(m, nn.BatchNorm2d | FrozenBatchNorm2d) for m in model.modules())
    torch.testing.assert_close(model(x), expected, atol=1e-5, rtol=1e-5)


def test_a_norm_that_cannot_be_folded_is_refused() -> None:
    model = nn.Sequential(nn.ReLU(), nn.BatchNorm2d(3))
    with pytest.raises(ValueError, match="1: expected a norm after a convolution"):
        fold_norms(model)


def test_the_detector_itself_stays_as_it_is() -> None:
    model = lively_detector(tiny_config())
    before = {name: value.clone() for name, value in model.state_dict().items()}
    lower(model)
    after = model.state_dict()
    assert before.keys() == after.keys()
    assert all(torch.equal(after[name], value) for name, value in before.items())


@pytest.mark.parametrize("value", [7e4, float("nan")])
def test_a_weight_beyond_fp16_is_refused(value: float) -> None:
    model = lively_detector(tiny_one_stage_config())
    with torch.no_grad():
        model.neck.output[0].weight[0, 0, 0, 0] = value
    with pytest.raises(PrecisionError, match=r"up to 65504, got .* in neck\.output\.0"):
        lower(model)


def test_a_weight_that_stays_in_fp32_may_be_large() -> None:
    model = lively_detector(tiny_one_stage_config())
    with torch.no_grad():
        model.first_stage.head.class_heatmaps.weight[0, 0, 0, 0] = 7e4
    weight = lower(model).first_stage.head.class_heatmaps.layer.weight
    assert weight[0, 0, 0, 0] == 7e4


@pytest.mark.parametrize("preset", PRESETS)
def test_every_preset_is_lowered(preset: str) -> None:
    """All weights but those of norms, fusions and the layers that predict; these keep theirs."""
    model = build_detector(shrunk(PRESETS[preset]())).eval()
    lowered = lower(model)
    heads = [lowered.first_stage.head]
    if isinstance(lowered, TwoStageDetector):
        heads += lowered.second_stage.stages
    predicting = [
        p
        for head in heads
        for name, part in head.named_children()
        for p in part.parameters()
        if "tower" not in name and name != "layers"
    ]
    norms = [p for m in lowered.modules() if isinstance(m, nn.GroupNorm) for p in m.parameters()]
    whole = {id(p) for p in (*predicting, *norms)}
    assert predicting
    for name, parameter in lowered.named_parameters():
        single = id(parameter) in whole or name.endswith(
            (".weights", "level_scales", "freq_weight")
        )
        assert parameter.dtype == (torch.float32 if single else torch.float16), name


# A row for each kind of part: neck and its norm, first stage, deformable tower, second stage.
KINDS: dict[str, OperatorForm] = {
    "dla34-bifpn-p3": "fused",
    "dla34-bifpn-p5": "standard",
    "x101-dcn-fpn": "fused",
    "centernet-dla34-s4": "standard",
    "retinanet-r50-fpn": "fused",
    "atss-r50-fpn-cascade": "fused",
    "gfl-r50-fpn-faster": "standard",
    "faster-rcnn-r50-fpn": "fused",
    "r50-fpn-lvis-fed": "standard",
}


@pytest.mark.slow
@pytest.mark.parametrize("preset", KINDS)
def test_files_of_all_kinds(preset: str, tmp_path: Path) -> None:
    """They load, which checks all types, run as themselves and as emulation, and find the same."""
    config = shrunk(PRESETS[preset]())
    exported = export_to(tmp_path, lively_detector(config), config, KINDS[preset], "fp16")
    check_types(exported, NORMS)
    images, sizes = canvases(2, 128, 256, seed=1)
    expected = exported.torch_run(images, sizes, 0.01)
    for backend in (exported.backend, EmulatedBackend(exported.path)):
        found = backend.infer(images, sizes, 0.01)
        for row in range(2):
            single, half = detections(expected, row), detections(found, row)
            assert len(single) >= 5
            assert len(match(single, half)) >= len(single) / 2


@pytest.mark.slow
def test_a_fixed_canvas_and_batch(tmp_path: Path) -> None:
    config = tiny_config()
    model, path = lively_detector(config), tmp_path / "fixed.onnx"
    export_onnx(model, config, path, size=(96, 160), batch=3, ops="fused", precision="fp16")
    exported = Exported(model=model, config=config, path=path)
    test_what_is_lowered(exported)
    test_the_numbers(exported)
