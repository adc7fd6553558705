"""Presets as engines of TensorRT-RTX, plugins included, for GPUs that are not here."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import onnx
import pytest
import torch

from cn2.export.describe import describe
from cn2.export.engine.audit import FP16_SHARE
from cn2.export.engine.model import PLUGINS
from cn2.export.engine.profiles import own_sizes
from cn2.export.onnx_file import export_onnx
from cn2.runtime.engine_file import read_engine
from cn2.runtime.manifest import Precision
from cn2.trainer.build import build_detector
from cn2.trainer.presets import PRESETS
from command_line import cn2
from exported import Exported, export_to, lively_detector
from factories import shrunk
from native_libraries import needs_library

pytestmark = needs_library("cn2_trt_plugins")
Capture = pytest.CaptureFixture[str]
TARGETS = {"fp32": ("sm_86", "sm_89", "sm_120"), "fp16": ("sm_75", "sm_86", "sm_89", "sm_120")}
CASCADE = {"PyramidRoIAlign": 3, "ProposalNMS": 1, "DetectionNMS": 1}
DEFORMABLE = "r2-101-dcn-fpn"
PRESETS_BUILT = ("nano", "dla34-bifpn-p3", "dla34-bifpn-p5", "r50-fpn", DEFORMABLE)


def check_engine(file: Path, precision: str, folder: Path, capfd: Capture) -> None:
    """Build a cascade's file for all targets of a precision, and look at what it says."""
    path, targets = folder / "a.engine", TARGETS[precision]
    words = ("--runtime", "tensorrt-rtx", "--target", ",".join(targets))
    ran = cn2(capfd, "build", file, "-o", path, *words)
    assert (ran.code, ran.errors) == (0, [])
    about = read_engine(path)
    assert (about.targets, about.precision) == (targets, precision)
    audit = about.build["audit"]
    assert audit["lowered_islands"] == []
    if precision == "fp16":
        assert FP16_SHARE <= audit["fp16_share"] < 1
    else:
        assert set(audit["multiply_adds"]) == {"fp32"}
    assert path.stat().st_size > 0.9 * file.stat().st_size  # the weights are in it


def count_plugins(file: Path) -> Counter[str]:
    nodes = onnx.load(file).graph.node
    return Counter(node.op_type for node in nodes if node.op_type in PLUGINS)


def test_nano(nano_fused: Exported, tmp_path: Path, capfd: Capture) -> None:
    assert count_plugins(nano_fused.path) == CASCADE
    check_engine(nano_fused.path, "fp32", tmp_path, capfd)


def test_fp16(tiny_fp16: Exported, tmp_path: Path, capfd: Capture) -> None:
    assert count_plugins(tiny_fp16.path) == CASCADE
    check_engine(tiny_fp16.path, "fp16", tmp_path, capfd)


@pytest.mark.slow
@pytest.mark.parametrize("precision", ["fp32", "fp16"])
@pytest.mark.parametrize("preset", PRESETS_BUILT)
def test_a_preset(
    preset: str,
    precision: str,
    tmp_path: Path,
    capfd: Capture,
) -> None:
    torch.manual_seed(0)
    config = PRESETS[preset]()
    file = tmp_path / f"{preset}.onnx"
    size = own_sizes(describe(config).canvas)[1]
    model = build_detector(config)
    export_onnx(model, config, file, size=size, batch=1, ops="fused", precision=precision)
    plugins = count_plugins(file)
    assert (plugins.pop("DeformConv", 0) > 0) is (preset == DEFORMABLE)
    assert plugins == CASCADE
    check_engine(file, precision, tmp_path, capfd)


FRAMEWORK = {  # of Table 1: a classifying first stage, boxes of each class, a cascade behind ATSS
    "gfl-r50-fpn": {"ProposalNMS": 1},
    "faster-rcnn-r50-fpn": {"PyramidRoIAlign": 1, "ProposalNMS": 1, "DetectionNMS": 1},
    "atss-r50-fpn-cascade": CASCADE,
}


# In fp16 only the second: the fp32 outputs of dense heads are a large share of so narrow a network.
@pytest.mark.slow
@pytest.mark.parametrize(
    ("preset", "precision"),
    [*((preset, "fp32") for preset in FRAMEWORK), ("faster-rcnn-r50-fpn", "fp16")],
)
def test_a_small_detector_of_the_framework(
    preset: str, precision: Precision, tmp_path: Path, capfd: Capture
) -> None:
    config = shrunk(PRESETS[preset]())
    exported = export_to(tmp_path, lively_detector(config), config, "fused", precision)
    assert count_plugins(exported.path) == FRAMEWORK[preset]
    check_engine(exported.path, precision, tmp_path, capfd)
