"""`cn2 detect --stage first` and `cn2 eval --proposals`: a first stage on its own."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from cn2.export.describe import Origin
from cn2.export.first_stage import first_stage_of
from cn2.trainer.checkpoint import save_checkpoint
from command_line import cn2
from exported import canvases, lively_detector
from factories import coco_annotations, tiny_config, tiny_one_stage_config, write_dataset

Capture = pytest.CaptureFixture[str]
BOXES = [
    [(1, [10.0, 8.0, 40.0, 36.0])],
    [(3, [60.0, 20.0, 30.0, 43.0]), (7, [2.0, 2.0, 10.0, 10.0])],
]


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    config = tiny_config()
    path = tmp_path_factory.mktemp("first") / "tiny.safetensors"
    save_checkpoint(path, lively_detector(config), config, license="", provenance="")
    return path


def test_proposals_are_those_of_the_first_stage() -> None:
    config = tiny_config()
    model = lively_detector(config)
    alone, manifest = first_stage_of(model, config, Origin(), None)
    assert (manifest.class_names, manifest.detections, manifest.proposals) == (
        ("object",),
        16,
        None,
    )
    images, sizes = (torch.from_numpy(part) for part in canvases(2, 64, 96))
    with torch.inference_mode():
        output = model.first_stage(model.features(images, sizes))
        expected = model.first_stage.propose(output, model.test_filter)
        found = alone(images, sizes, torch.tensor(0.3))
    likelihood = expected.objectness**2
    assert found.num_detections.tolist() == (likelihood > 0.3).sum(dim=1).tolist()
    assert 0 < int(found.num_detections[0]) < 16
    torch.testing.assert_close(found.scores, torch.where(likelihood > 0.3, likelihood, 0.0))
    assert not found.boxes[likelihood <= 0.3].any()
    assert (found.boxes <= torch.tensor([96, 64, 96, 64])).all()


def test_a_detector_of_one_stage_has_no_other() -> None:
    config = tiny_one_stage_config()
    with pytest.raises(ValueError, match="expected a detector of two stages, got tiny-one-stage"):
        first_stage_of(lively_detector(config), config, Origin(), None)


def test_the_commands(checkpoint: Path, tmp_path: Path, capfd: Capture) -> None:
    annotations, pictures = write_dataset(tmp_path, coco_annotations([(64, 96)] * 2, BOXES))
    ran = cn2(
        capfd, "eval", checkpoint, "--annotations", annotations, "--images", pictures,
        "--proposals", "--json", "-",
    )  # fmt: skip
    assert (ran.code, ran.errors) == (0, [])
    found = ran.json()
    recalls = [found[f"AR{count}"] for count in (64, 128, 256, 512, 1000)]
    assert recalls == sorted(recalls)
    assert 0 <= recalls[-1] <= 1
    assert found["images"] == 2
    ran = cn2(
        capfd, "detect", checkpoint, pictures, "--stage", "first", "--score", "0.1",
        "--out", tmp_path / "out", "--json", "-",
    )  # fmt: skip
    assert ran.code == 0
    document = ran.json()
    assert {d["label"] for image in document["images"] for d in image["detections"]} == {"object"}
    assert len(list((tmp_path / "out").rglob("*.png"))) == 2


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--stage", "second"), "stage: expected first or last, got second"),
        (("--stage", "first", "--backend", "onnxruntime"), "stage: expected a .safetensors"),
    ],
)
def test_refused(words: tuple[str, ...], message: str, checkpoint: Path, capfd: Capture) -> None:
    ran = cn2(capfd, "detect", checkpoint, checkpoint.parent, *words)
    assert ran.code == 2
    assert message in " ".join(ran.errors)
