"""benchmarks/engines.py: what it measured, and the table made of it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from benchmark_scripts import imported

RESULTS = Path(__file__).resolve().parent.parent.parent / "benchmarks" / "results"
TARGETS = {"fp32": ["sm_86", "sm_89", "sm_120"], "fp16": ["sm_75", "sm_86", "sm_89", "sm_120"]}
PRESETS = ("nano", "dla34-bifpn-p3", "dla34-bifpn-p5", "r50-fpn", "r2-101-dcn-fpn")


@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_every_detector_was_built_for_every_gpu(precision: str) -> None:
    rows = json.loads((RESULTS / "engines.json").read_text("utf-8"))["rows"]
    found = {
        row["preset"]: row
        for row in rows
        if (row["precision"], row["targets"]) == (precision, TARGETS[precision])
    }
    assert set(found) == set(PRESETS)
    for row in found.values():
        assert row["audit"]["lowered_islands"] == []
        assert row["plugins"]["DetectionNMS"] == 1
        assert (row["audit"]["fp16_share"] >= 0.95) is (precision == "fp16")
    assert found["r2-101-dcn-fpn"]["plugins"]["DeformConv"] > 0


def test_the_table(tmp_path: Path) -> None:
    row = {
        "preset": "nano",
        "precision": "fp16",
        "canvas": [384, 512],
        "targets": ["sm_75", "sm_120"],
        "cpu_seconds": 1.44,
        "engine_mb": 9.2,
        "onnx_mb": 4.87,
        "plugins": {"ProposalNMS": 1, "PyramidRoIAlign": 3},
        "audit": {
            "multiply_adds": {"fp16": 1_932_902_400, "fp32": 9_028_608},
            "fp16_share": 0.9954,
        },
    }
    found = {
        "machine": {"cpu": "a CPU", "cores": 2},
        "versions": {"tensorrt-rtx": "1.7.1.116"},
        "rows": [row],
    }
    with imported("engine_tables") as scripts:
        table = scripts["engine_tables"].engine_table
        assert len(table(tmp_path).splitlines()) == 2  # nothing was measured
        (tmp_path / "engines.json").write_text(json.dumps(found))
        lines = table(tmp_path).splitlines()
    cells = "`nano` | fp16 | 384x512 | 75, 120 | 1.4 | 9 | 5 | 1.9 | 99.5% | 4"
    assert lines[2] == f"| {cells} |"
    assert lines[-1].startswith("TensorRT-RTX 1.7.1.116, a CPU, 2 cores")
