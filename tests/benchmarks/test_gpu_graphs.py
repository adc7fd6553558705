"""The GPU suite's CUDA graphs: what would keep a detector out of one, and what it waits for."""

from __future__ import annotations

from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch

from factories import tiny_config
from fake_backend import make_manifest
from gpu_suite import scripts

__all__ = ["scripts"]


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
    from cn2.export.precision import lower
    from cn2.trainer.build import build_detector
    from factories import tiny_one_stage_config

    for config in (tiny_config(), tiny_one_stage_config()):
        model = build_detector(config).eval()
        for one in (model, lower(model)):
            assert scripts["gpu_capture"].find_hazards(one, config.input.divisor) == []


class FakeStream:
    def __init__(self) -> None:
        self.waited_for: list[object] = []

    def wait_stream(self, other: object) -> None:
        self.waited_for.append(other)


def test_a_graph_waits_for_its_inputs(
    scripts: dict[str, ModuleType], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Written on torch's own stream, when it is captured as when they are only replaced."""
    from cn2.runtime.preprocess import place_picture
    from cn2.trainer.build import build_detector

    stream, manifest = FakeStream(), make_manifest()

    class Runner(scripts["gpu_torch"].GraphRunner):  # type: ignore[name-defined, misc]
        def capture(self) -> tuple[None, list[torch.Tensor]]:
            self.stream = stream
            return None, []

    monkeypatch.setattr(torch.cuda, "current_stream", lambda: "torch's own")
    runner = Runner(build_detector(tiny_config()), manifest, "fp32", "cpu")
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
