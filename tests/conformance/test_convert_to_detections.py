"""From an official file to detections, by the commands that a user types."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch

from command_line import cn2
from conformance.official import fixture_weights, load_fixture

NAME = "CenterNet2_DLA-BiFPN-P3_4x"
PIXELS, SCORE = 0.1, 1e-3  # from the conformance page, for float32


@pytest.mark.slow
def test_convert_export_detect(
    shared: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    fixture = load_fixture(shared, NAME)
    weights = fixture_weights(shared, fixture)
    official, ours, model = (tmp_path / f"model.{end}" for end in ("pth", "safetensors", "onnx"))
    torch.save({"model": {name: torch.from_numpy(v) for name, v in weights.items()}}, official)
    converted = cn2(capfd, "convert", official, "-o", ours, "--json", tmp_path / "report.json")
    assert (converted.code, converted.errors) == (0, [])
    report = json.loads((tmp_path / "report.json").read_text())
    assert len(report["used"]) == len(weights)
    assert report["left_over"] == report["not_needed"] == []
    exported = cn2(capfd, "export", ours, "-o", model)
    assert (exported.code, exported.errors) == (0, [])
    for said in (converted.out, exported.out, cn2(capfd, "info", model).out):
        assert "non-commercial" in said
    metadata = {entry.key: entry.value for entry in onnx.load(model).metadata_props}
    manifest = json.loads(metadata["cn2.manifest"])
    assert "non-commercial" in manifest["weights_license"]
    assert report["sha256"] in manifest["provenance"]
    detected = cn2(
        capfd,
        "detect",
        model,
        shared / "conformance/image_shared.png",
        "--score",
        0.05,
        "--json",
        "-",
    )
    found = detected.json()["images"][0]["detections"]
    expected = {key: fixture.arrays[f"det/{key}"] for key in ("boxes", "scores", "classes")}
    assert [d["class_id"] for d in found] == expected["classes"].tolist()
    np.testing.assert_allclose([d["box"] for d in found], expected["boxes"], atol=PIXELS)
    np.testing.assert_allclose([d["score"] for d in found], expected["scores"], atol=SCORE)
