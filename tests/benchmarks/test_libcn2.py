"""benchmarks/libcn2.py: both sides in turns, their stages, and resizes against their references."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from benchmark_scripts import imported
from native_libraries import needs_library
from tiny_onnx import write_tiny_onnx

pytestmark = needs_library("cn2")


@pytest.fixture(scope="module")
def libcn2() -> Iterator[ModuleType]:
    with imported("libcn2") as scripts:
        yield scripts["libcn2"]


def test_a_document_of_all_stages(
    libcn2: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(libcn2, "RESIZES", ((48, 64, 24, 32), (30, 40, 50, 60)))
    monkeypatch.setattr(libcn2, "cpu_cores", lambda: 2)
    model, out = write_tiny_onnx(tmp_path / "m.onnx"), tmp_path / "out.json"
    counts = ["--runs", "3", "--warmup", "1", "--resizes", "3", "--pictures", "2"]
    libcn2.main(["--model", str(model), "--out", str(out), *counts])
    document = json.loads(out.read_text())
    assert [row["threads"] for row in document["nano"]] == [1, 2]
    for row in document["nano"]:
        for side in ("libcn2", "python"):
            median = {stage: values["median"] for stage, values in row[side].items()}
            assert 0 < median["outside"] < median["whole"]
            assert 0 < median["preprocess"] + median["postprocess"] <= median["whole"]
        assert row["whole_ratio"] > 0
    assert [row["to"] for row in document["resize"]] == [[24, 32], [50, 60]]
    for row in document["resize"]:
        for kind in ("linear", "antialias"):
            assert row[kind]["largest_difference"] == 0
            assert row[kind]["libcn2_ms"] > 0


def test_other_counts_are_an_error(
    libcn2: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A race between two that find different things would measure nothing."""
    monkeypatch.setattr(libcn2.NativeDetector, "__call__", lambda self, picture: 77)
    model = write_tiny_onnx(tmp_path / "m.onnx")
    with pytest.raises(RuntimeError, match="libcn2 finds 77 objects, Python 2"):
        libcn2.main(["--model", str(model), "--out", str(tmp_path / "x.json"), "--runs", "1"])


def test_the_readme_tells_the_run_of_most_threads() -> None:
    def run(threads: int, ratio: float, outside: float) -> dict[str, Any]:
        return {
            "threads": threads,
            "whole_ratio": ratio,
            "libcn2": {"outside": {"median": outside}},
        }

    found = {"picture": [480, 640], "nano": [run(2, 0.951, 0.4), run(1, 0.9, 0.2)]}
    with imported("libcn2_tables") as scripts:
        rows = scripts["libcn2_tables"].libcn2_rows(found)
    assert "640x480 picture to detections on 2 threads" in rows[0][0]
    assert [row[1:] for row in rows] == [("0.95", "at most 1"), ("0.40", "below 0.5")]
