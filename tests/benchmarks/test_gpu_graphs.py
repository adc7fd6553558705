"""The GPU suite's CUDA graphs: what would keep a detector out of one, and what it waits for."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from cn2.export.precision import lower
from cn2.runtime.canvas import CanvasRule
from cn2.runtime.preprocess import place_picture
from cn2.trainer.build import build_detector
from cn2.trainer.presets import PRESETS
from factories import picture, shrunk, tiny_config, tiny_one_stage_config
from fake_backend import make_manifest
from gpu_suite import scripts
from native_libraries import missing

__all__ = ["scripts"]
EMULATED = Path(__file__).resolve().parents[2] / "build/native/libcn2_kernels_cuda_emulated.so"


class Hazardous(torch.nn.Module):
    def __init__(self, kind: str) -> None:
        super().__init__()
        self.kind = kind
        self.weight = torch.nn.Parameter(torch.ones(3))

    def forward(self, images: torch.Tensor, sizes: torch.Tensor, threshold: torch.Tensor) -> Any:
        x = images.float() * self.weight
        match self.kind:
            case "waits":
                return torch.nonzero(x)
            case "host":
                return x.cpu()
            case "constant":
                return x + torch.tensor([1.0, 2.0, 3.0]).to(x.device)
        return x * threshold + 2


@pytest.mark.parametrize(
    ("kind", "hazards"),
    [
        ("none", []),
        ("waits", ["aten::nonzero"]),
        ("host", ["aten::_to_copy"]),
        ("constant", ["aten::_to_copy"]),
    ],
)
def test_what_a_cuda_graph_cannot_hold_is_found(
    scripts: dict[str, ModuleType], kind: str, hazards: list[str]
) -> None:
    assert scripts["gpu_capture"].find_hazards(Hazardous(kind), 8) == hazards


def test_detectors_can_be_captured(scripts: dict[str, ModuleType]) -> None:
    """Heat maps, anchors, distributions; proposals within levels, boxes of each class."""
    framework = ("faster-rcnn-r50-fpn", "atss-r50-fpn", "gfl-r50-fpn")
    configs = [shrunk(PRESETS[name]()) for name in framework]
    for config in (tiny_config(), tiny_one_stage_config(), *configs):
        model = build_detector(config).eval()
        for one in (model, lower(model)):
            hazards = scripts["gpu_capture"].find_hazards(one, config.input.divisor)
            assert hazards == [], config.preset


class FakeStream:
    def __init__(self) -> None:
        self.waited_for: list[object] = []

    def wait_stream(self, other: object) -> None:
        self.waited_for.append(other)


def test_a_graph_waits_for_its_inputs(
    scripts: dict[str, ModuleType], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Written on torch's own stream, when it is captured as when they are only replaced."""
    stream, manifest = FakeStream(), make_manifest()

    class Runner(scripts["gpu_torch"].GraphRunner):  # type: ignore[name-defined, misc]
        def capture(self) -> tuple[None, list[torch.Tensor]]:
            self.stream = stream
            return None, []

    monkeypatch.setattr(torch.cuda, "current_stream", lambda: "torch's own")
    exported = SimpleNamespace(manifest=manifest, pictures=None)
    runner = Runner(build_detector(tiny_config()), exported, "fp32", "cpu", None)
    bright, dark = (
        place_picture(np.full((64, 96, 3), value, np.uint8), manifest.canvas) for value in (200, 0)
    )
    runner.load([dark], 0.5)
    held = runner.inputs[0]
    assert stream.waited_for == ["torch's own"]
    runner.load([bright], 0.5)
    assert runner.inputs[0] is held
    assert int(held.max()) == 200
    assert stream.waited_for == ["torch's own"] * 2


def test_a_detector_begins_with_pictures_where_our_kernels_are(
    scripts: dict[str, ModuleType],
) -> None:
    """The kernels emulated, whose device is the CPU: it finds what it finds from canvases."""
    if not EMULATED.is_file():
        missing(f"{EMULATED.name}: not built; make native")
    gpu_torch, job = scripts["gpu_torch"], scripts["gpu_job"]
    rule = CanvasRule(short_edge=64, long_edge=96, divisor=32, interpolation="linear")
    manifest = replace(make_manifest(), canvas=rule)
    pixels = [np.asarray(picture(*size, seed=7)) for size in ((48, 70), (100, 150))]
    placed = [place_picture(one, rule) for one in pixels]
    assert placed[0].canvas.shape == placed[1].canvas.shape
    known = scripts["gpu_measure"].Pictures(placed, pixels)
    exported = SimpleNamespace(manifest=manifest, pictures=known)
    torch.manual_seed(0)
    model = build_detector(tiny_config())
    answers, starts = [], []
    for kernels in (None, gpu_torch.Launchers(EMULATED)):
        runner = gpu_torch.TorchRunner(model, exported, "fp32", "cpu", kernels)
        runner.load(placed[::-1], 0.0)
        answers.append(runner.run())
        starts.append(runner.starts_at)
        shapes = [tuple(tensor.shape) for tensor in runner.inputs]
    assert shapes == [(100, 150, 3), (48, 70, 3), ()]
    assert starts == [job.HOST_CANVAS, job.PICTURE]
    assert answers[0].num_detections.min() > 0
    for one, other in zip(*answers, strict=True):
        np.testing.assert_array_equal(one, other)
