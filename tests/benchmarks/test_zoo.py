"""benchmarks/zoo.py and the tables of docs/zoo.md: counting, going on, rows with dashes."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
import torch
import torchvision.ops
from torch import Tensor, nn

from benchmark_scripts import imported
from cn2.trainer import presets
from command_line import write_grey
from factories import tiny_config


@pytest.fixture(scope="module")
def scripts() -> Iterator[dict[str, ModuleType]]:
    with imported("models", "fps", "zoo_models", "zoo_tables", "zoo") as modules:
        yield modules


class Counted(nn.Module):
    """A grouped convolution, a deformable one, a linear layer."""

    def __init__(self) -> None:
        super().__init__()
        self.plain = nn.Conv2d(8, 6, 3, stride=2, padding=1, groups=2)
        self.deformed = nn.Parameter(torch.zeros(10, 6, 3, 3))
        self.linear = nn.Linear(10, 5)

    def forward(self, images: Tensor) -> Tensor:
        x = self.plain(images)
        offsets = x.new_zeros(len(x), 18, *x.shape[2:])
        mask = x.new_ones(len(x), 9, *x.shape[2:])
        x = torchvision.ops.deform_conv2d(x, offsets, self.deformed, padding=1, mask=mask)
        return self.linear(x.mean(dim=(2, 3)))


def test_macs_are_those_of_the_formula(scripts: dict[str, ModuleType]) -> None:
    images, cells = torch.zeros(3, 8, 12, 16), 6 * 8
    plain, deformed, linear = 6 * 4 * 9 * cells, 10 * 6 * 9 * cells, 10 * 5
    assert scripts["zoo"].macs_of(Counted(), images) == 3 * (plain + deformed + linear)


def test_all_sixteen_models_with_the_presets_of_the_conformance_page(
    scripts: dict[str, ModuleType], shared: Path
) -> None:
    wanted = json.loads((shared / "conformance" / "zoo.json").read_text())
    wanted.pop("_")
    found = {model.config: model.preset for model in scripts["zoo_models"].ZOO}
    assert found == {name: settings["preset"] for name, settings in wanted.items()}
    assert len(scripts["zoo_models"].ZOO) == 16


def measure_tiny(
    scripts: dict[str, ModuleType], folder: Path, patch: pytest.MonkeyPatch
) -> dict[str, Any]:
    """The row of a detector of 8 channels under the name r50-fpn; pictures are of 48x64."""
    config = replace(tiny_config(), preset="r50-fpn")
    patch.setitem(presets.PRESETS, "r50-fpn", lambda: config)
    write_grey(folder / "pictures" / "a.jpg")
    row, size = folder / "row.json", ["--runs", "2", "--warmup", "2", "--threads", "1"]
    words = ["--presets", "r50-fpn", "--row", str(row), "--images", str(folder / "pictures")]
    assert scripts["zoo"].main([*words, *size]) == 0
    found: dict[str, Any] = json.loads(row.read_text())
    assert found["canvas"] == [64, 96]  # of 480x640 at a short edge of 64, a long one of 96
    assert 0 < found["gmacs"] < 0.1
    assert 10_000 < found["parameters"] < 100_000
    return found


def test_a_row_has_what_its_parts_say(
    scripts: dict[str, ModuleType], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spread = {"median": 2.0, "p90": 3.0, "p99": 4.0}
    timed = {
        "proposals": 16,
        "runs": 2,
        "threads": 1,
        "peak_rss_mb": 9.0,
        "canvases": {"64x96": 1},
        "versions": {"onnxruntime": "1"},
        "latency_ms": {"whole": spread, "inference": {**spread, "median": 1.0}},
    }
    monkeypatch.setattr(scripts["zoo"], "measure", lambda *_: [timed])
    monkeypatch.setattr(scripts["models"], "export_onnx", write_nothing)
    found = measure_tiny(scripts, tmp_path, monkeypatch)
    assert found["onnx_bytes"] == 123
    assert (found["whole_ms"], found["network_ms"]["median"]) == (spread, 1.0)
    assert (found["proposals"], found["runs"], found["weights"]) == (16, 2, "random")


def write_nothing(_model: object, _config: object, path: Path, **_: object) -> None:
    path.write_bytes(bytes(123))


@pytest.mark.slow  # an export and a process of `cn2 bench`; fps.py's test has them too
@pytest.mark.usefixtures("quick_export")
def test_a_row_is_measured(
    scripts: dict[str, ModuleType], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = measure_tiny(scripts, tmp_path, monkeypatch)
    assert (found["proposals"], found["runs"], found["threads"]) == (16, 2, 1)
    assert found["canvases"] == {"64x96": 1}
    assert found["whole_ms"]["median"] > found["network_ms"]["median"] > 0
    assert 4 * found["parameters"] < found["onnx_bytes"] < 4 * found["parameters"] + 10**6


def test_rows_are_merged_and_what_is_there_is_skipped(
    scripts: dict[str, ModuleType],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    zoo, out, calls = scripts["zoo"], tmp_path / "zoo.json", []

    def run(command: list[str], cwd: Path) -> SimpleNamespace:
        preset, answer = (command[command.index(word) + 1] for word in ("--presets", "--row"))
        calls.append(preset)
        if preset != "r50-fpn":
            Path(answer).write_text(json.dumps({"parameters": len(calls)}))
        return SimpleNamespace(returncode=int(preset == "r50-fpn"))

    def content() -> dict[str, Any]:
        return json.loads(out.read_text())["presets"]

    monkeypatch.setattr(zoo.subprocess, "run", run)
    known = dict.fromkeys(["r50-fpn", "dla34-bifpn-p5", "dla34-bifpn-p3"])
    monkeypatch.setattr(zoo, "PRESETS", known)
    assert zoo.main(["--out", str(out)]) == 1  # one fails, twelve are not there
    assert calls == ["dla34-bifpn-p3", "dla34-bifpn-p5", "r50-fpn"]
    assert content() == {"dla34-bifpn-p3": {"parameters": 1}, "dla34-bifpn-p5": {"parameters": 2}}
    assert "r50-fpn" in capsys.readouterr().err
    assert zoo.main(["--presets", "dla34-bifpn-p3", "--out", str(out)]) == 0  # again, as asked
    assert content()["dla34-bifpn-p3"] == {"parameters": 4}
    zoo.main(["--out", str(out)])
    assert calls[4:] == ["r50-fpn"]


def test_table_of_the_zoo(scripts: dict[str, ModuleType], tmp_path: Path) -> None:
    row = {
        "parameters": 47_618_043,
        "canvas": [512, 768],
        "gmacs": 44.15,
        "onnx_bytes": 190_270_584,
        "whole_ms": {"median": 342.4},
        "network_ms": {"median": 330.6},
        "runs": 100,
        "threads": 2,
        "machine": {"cpu": "a processor"},
        "versions": {"onnxruntime": "1.32.0"},
    }
    (tmp_path / "zoo.json").write_text(json.dumps({"presets": {"dla34-bifpn-p3": row}}))
    lines = scripts["zoo_tables"].zoo_table(tmp_path).splitlines()
    cells = "`dla34-bifpn-p3` | 47.6 | 512x768 | 44.1 | 190 | 342 | 331"
    end = "40 | 50 | non-commercial (neck) |"
    assert lines[2] == f"| `CenterNet2_DLA-BiFPN-P3_4x` | {cells} | 43.8 | {end}"
    assert lines[3] == f"| `CenterNet2_DLA-BiFPN-P3_24x` | {cells} | 45.6 | {end}"
    dashes = " | ".join(["–"] * 9)
    name = "`nuImages_CenterNet2_DLA_640_8x` | `dla34-s4-nuimages`"
    assert lines[17] == f"| {name} | {dashes} | Apache-2.0 |"
    assert lines[19].startswith(
        "CPU: a processor, 2 threads, ONNX Runtime 1.32.0; median of 100 ca"
    )
    assert "`dla34-s4-nuimages`." in lines[19]
    assert len(lines) == 20
    assert "Not measured yet" in scripts["zoo_tables"].zoo_table(tmp_path / "none")


def test_table_of_the_resize(scripts: dict[str, ModuleType], tmp_path: Path) -> None:
    make = scripts["zoo_tables"].resize_table
    assert make(tmp_path) == "Not measured yet."
    values = {"median": 0.0116, "p90": 0.0483, "max": 1.0}
    times = {
        kind: {"threads": 1, "latency_ms": {"preprocess": {"median": ms}}}
        for kind, ms in (("antialias", 11.99), ("linear", 0.55))
    }
    trained = {
        "preset": "nano",
        "weights": "trained",
        "resized": [384, 512],
        "grey_levels": {"mean": 1.647, "max": 64},
        "coco": {
            "pictures": 20,
            "detections": {"antialias": 1672, "linear": 1673},
            "in_both": 1468,
            "score_difference": values,
            "box_px": values,
        },
        "scenes": {"scenes": 40, "antialias": {"AP": 0.81915}, "linear": {"AP": 0.81946}},
        "time": {**times, "whole_ratio": 0.9227},
    }
    empty = {**trained["coco"], "score_difference": None, "box_px": None}
    random = {**trained, "weights": "fixture x", "scenes": None, "coco": empty}
    machine = {"cpu": "a processor", "load_average_before": 0.5}
    document = {"machine": machine, "same_iou": 0.5, "rows": [trained, random]}
    (tmp_path / "resize.json").write_text(json.dumps(document))
    lines = make(tmp_path).splitlines()
    assert lines[2] == (
        "| `nano` | trained | 384x512 | 1.6 / 64 | 1672 / 1673 / 1468 | 0.012 / 0.048 "
        "| 0.01 / 0.05 | 0.819 / 0.819 | 12.0 / 0.6 | 0.92 |"
    )
    assert (
        "| random | 384x512 | 1.6 / 64 | 1672 / 1673 / 1468 | – | – | – | 12.0 / 0.6 |" in lines[3]
    )
    assert lines[5].startswith("20 COCO pictures")
