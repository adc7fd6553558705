"""`cn2 demo`, end to end with a tiny checkpoint: export, detection, drawing, metrics."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from cn2.runtime import demo
from cn2.runtime.pictures import open_picture
from cn2.trainer.build import build_detector
from cn2.trainer.checkpoint import save_checkpoint
from command_line import cn2
from factories import coco_annotations, tiny_config, write_dataset

Capture = pytest.CaptureFixture[str]


@pytest.fixture
def bundled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A tiny untrained checkpoint and two annotated pictures in the bundled ones' place."""
    torch.manual_seed(0)
    config = tiny_config()
    checkpoint = tmp_path / "tiny.safetensors"
    model = build_detector(config)
    save_checkpoint(checkpoint, model, config, license="CC0-1.0", provenance="a test")
    annotations = coco_annotations([(64, 96), (50, 40)], [[(1, [8, 8, 30, 30])], []])
    _, pictures = write_dataset(tmp_path, annotations)
    (tmp_path / "annotations.json").rename(pictures / "annotations.json")
    monkeypatch.setattr(demo, "CHECKPOINT", checkpoint)
    monkeypatch.setattr(demo, "PICTURES", pictures)
    monkeypatch.setattr(demo, "REPEATS", 2)
    return pictures


@pytest.mark.usefixtures("bundled", "quick_export")
def test_demo_writes_model_pictures_json_and_tables(tmp_path: Path, capfd: Capture) -> None:
    out = tmp_path / "out" / "demo"
    ran = cn2(capfd, "demo", "--out", out, "--score", "0")
    assert (ran.code, ran.errors) == (0, [])
    assert sorted(path.name for path in out.iterdir()) == [
        *("detections.json", "picture_0.png", "picture_1.png", "tiny.onnx")
    ]
    document = json.loads((out / "detections.json").read_text())
    assert document["model"]["file"] == str(out / "tiny.onnx")
    assert [(image["width"], image["height"]) for image in document["images"]] == [
        *((96, 64), (40, 50))
    ]
    assert all(image["detections"] for image in document["images"])  # everything above 0
    assert open_picture(out / "picture_1.png").shape == (50, 40, 3)
    header = next(line for line in ran.out.splitlines() if "images/s" in line)
    assert header.split() == [*("file", "objects", "decode", "prep.", "infer", "post.", "images/s")]
    assert "COCO metrics on these 2 pictures:" in ran.out
    assert "AP50" in ran.out
    table = ran.out[ran.out.index(header) :]
    assert max(map(len, table.splitlines())) <= 80


def test_demo_without_its_checkpoint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: Capture
) -> None:
    monkeypatch.setattr(demo, "CHECKPOINT", tmp_path / "gone.safetensors")
    ran = cn2(capfd, "demo", "--out", tmp_path / "out")
    assert ran.code == 2
    assert "the bundled checkpoint is missing" in ran.errors[0]


def test_demo_into_an_unwritable_folder(tmp_path: Path, capfd: Capture) -> None:
    (tmp_path / "file").touch()
    ran = cn2(capfd, "demo", "--out", tmp_path / "file")
    assert ran.code == 2
    assert "expected a folder that can be written" in ran.errors[0]
