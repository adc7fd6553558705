"""`cn2 export`: one real run, and what is refused."""

from __future__ import annotations

import re
import shutil
from pathlib import Path
from typing import Any

import onnx
import pytest
from PIL import Image

from cn2.export import onnx_file
from cn2.export.commands import parse_batch, parse_size
from cn2.runtime import Detector
from cn2.runtime.manifest import Manifest
from cn2.trainer.checkpoint import save_checkpoint
from cn2.trainer.config import Config
from command_line import cn2
from exported import Exported, lively_detector
from factories import picture, tiny_config


def write_checkpoint(path: Path, seed: int = 0) -> Path:
    config = tiny_config()
    save_checkpoint(path, lively_detector(config, seed), config, license="CC0-1.0", provenance="")
    return path


@pytest.fixture
def workplace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a checkpoint and two pictures, as the current one."""
    monkeypatch.chdir(tmp_path)
    write_checkpoint(tmp_path / "tiny.safetensors")
    (tmp_path / "pictures").mkdir()
    for seed, size in enumerate([(48, 64), (90, 50)]):
        Image.fromarray(picture(*size, seed)).save(tmp_path / "pictures" / f"{seed}.png")
    return tmp_path


@pytest.fixture
def quick(tiny: Exported, monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """Instead of exporting anew, copies the tiny file; notes the options it was given."""
    calls: list[dict[str, Any]] = []

    def copied(_model: object, config: Config, path: Path, **options: Any) -> Manifest:
        calls.append({**options, "interpolation": config.input.interpolation})
        shutil.copy(tiny.path, path)
        return tiny.backend.manifest

    monkeypatch.setattr(onnx_file, "export_onnx", copied)
    return calls


def graph_bytes(path: Path) -> bytes:
    """A file's content without what it says of its origin."""
    proto = onnx.load(path)
    del proto.metadata_props[:]
    return proto.SerializeToString(deterministic=True)


def test_export(workplace: Path, tiny: Exported, capfd: pytest.CaptureFixture[str]) -> None:
    ran = cn2(capfd, "export", "tiny.safetensors", "-o", "tiny.onnx", "--verify", "pictures")
    assert (ran.code, ran.errors) == (0, [])
    table = dict(line.split(maxsplit=1) for line in ran.out.splitlines()[:2])
    assert table["file"].startswith("tiny.onnx (")
    assert table["preset"].strip() == "tiny, 3 classes"
    assert "unexplained" in ran.out
    assert sorted(p.name for p in workplace.glob("*tiny*")) == ["tiny.onnx", "tiny.safetensors"]
    with Detector.open("tiny.onnx") as fast, Detector.open("tiny.safetensors") as slow:
        scene = picture(64, 96, seed=9)
        assert len(fast(scene)) == len(slow(scene)) > 0
        assert fast.manifest.checkpoint_sha256 == slow.manifest.checkpoint_sha256 != ""
    # The same weights, read from a file and exported a second time: the same bytes.
    assert graph_bytes(Path("tiny.onnx")) == graph_bytes(tiny.path)


def test_the_bundled_pictures_are_the_default(
    workplace: Path, quick: list[dict[str, Any]], capfd: pytest.CaptureFixture[str]
) -> None:
    ran = cn2(capfd, "export", "tiny.safetensors", "-o", "tiny.onnx")
    assert ran.code == 0
    assert re.search(r"^pictures +8 *$", ran.out, re.MULTILINE)
    assert quick[0]["size"] is None
    assert quick[0]["batch"] is None
    assert quick[0]["proposals"] is None
    assert quick[0]["interpolation"] == "linear"  # as the checkpoint has it


def test_options_arrive(
    workplace: Path, quick: list[dict[str, Any]], capfd: pytest.CaptureFixture[str]
) -> None:
    words = ["--size", "64x96", "--batch", "4", "--proposals", "9", "--verify", "pictures"]
    words += ["--interpolation", "antialias", "--ops", "fused"]
    assert cn2(capfd, "export", "tiny.safetensors", "-o", "a.onnx", *words).code == 0
    form = {name: quick[0][name] for name in ("size", "batch", "proposals", "ops")}
    assert form == {"size": (64, 96), "batch": 4, "proposals": 9, "ops": "fused"}
    assert quick[0]["interpolation"] == "antialias"
    assert quick[0]["origin"].license == "CC0-1.0"


def test_a_file_that_does_not_agree_is_not_kept(
    workplace: Path, quick: list[dict[str, Any]], capfd: pytest.CaptureFixture[str]
) -> None:
    write_checkpoint(workplace / "other.safetensors", seed=1)
    (workplace / "model.onnx").write_bytes(b"an older one")
    ran = cn2(capfd, "export", "other.safetensors", "-o", "model.onnx", "--verify", "pictures")
    assert ran.code == 2
    assert len(ran.errors) == 1
    assert "expected the file to find what torch finds" in ran.errors[0]
    assert (workplace / "model.onnx").read_bytes() == b"an older one"
    assert len(quick) == 1
    assert sorted(p.suffix for p in workplace.iterdir() if p.is_file()) == [
        ".onnx",
        ".safetensors",
        ".safetensors",
    ]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--ops", "mixed"], "--ops: expected standard or fused, got 'mixed'"),
        (["--precision", "int8"], "--precision: expected fp32 or fp16, got 'int8'"),
        (["--size", "640"], "--size: expected HxW in pixels, for example 384x512, got '640'"),
        (["--size", "60x96"], "multiples of 32, got (60, 96)"),
        (["--dynamic", "--size", "64x96"], "expected one of them, got both"),
        (["--interpolation", "area"], "--interpolation: expected antialias or linear, got 'area'"),
        (["--batch", "0"], "--batch: expected dynamic or a number from 1, got '0'"),
        (["--batch", "many"], "--batch: expected dynamic or a number from 1, got 'many'"),
        (["--proposals", "0"], "expected proposals, detections, batch >= 1"),
        (["--verify", "nowhere"], "nowhere: expected a folder with pictures"),
        (["-o", "none/model.onnx"], "none/model.onnx: expected a folder"),
        (["-o", "pictures"], "pictures: expected a file to write, got a folder"),
    ],
)
def test_what_cannot_be_is_refused_in_one_line(
    workplace: Path, capfd: pytest.CaptureFixture[str], words: list[str], message: str
) -> None:
    out = [] if "-o" in words else ["-o", "model.onnx"]
    ran = cn2(capfd, "export", "tiny.safetensors", *out, *words)
    assert ran.code == 2
    assert len(ran.errors) == 1
    assert message in ran.errors[0]
    assert list(workplace.glob("*.onnx")) == []


def test_what_is_no_checkpoint(workplace: Path, capfd: pytest.CaptureFixture[str]) -> None:
    for name, message in (("none.safetensors", "no such file"), ("pictures/0.png", "safetensors")):
        ran = cn2(capfd, "export", name, "-o", "model.onnx")
        assert (ran.code, len(ran.errors)) == (2, 1)
        assert message in ran.errors[0]


def test_sizes_and_batches_are_read() -> None:
    assert parse_size("384x512") == (384, 512)
    assert parse_size(" 64X96 ") == (64, 96)
    assert (parse_batch("dynamic"), parse_batch("8")) == (None, 8)
    for text in ("x", "3x", "axb", "-1x5", "1x2x3", "999999x1"):
        with pytest.raises(ValueError, match="expected HxW"):
            parse_size(text)
