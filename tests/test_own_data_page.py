"""docs/train-on-your-own-data.md: its commands, one after another, on a few small pictures."""

from __future__ import annotations

import json
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PAGE = ROOT / "docs" / "train-on-your-own-data.md"
# A training of two steps; the resumed one has a third. Later settings win over the page's.
SHORT = ["batch=2", "steps=2", "warmup_steps=1", "save_every=1", "base_lr=0.0001"]
PREFIXES = {
    "cn2": [sys.executable, "-m", "cn2.runtime.cli"],
    "torchrun": [sys.executable, "-m", "torch.distributed.run"],
}


def commands() -> list[list[str]]:
    """All command lines of the page, as words."""
    text = PAGE.read_text(encoding="utf-8")
    blocks = "".join(re.findall(r"^```sh\n(.*?)^```", text, re.DOTALL | re.MULTILINE))
    return [shlex.split(line) for line in blocks.replace("\\\n", " ").splitlines()]


def short(words: list[str]) -> list[str]:
    """The command with a training that takes seconds, in two processes where it is several."""
    words = [*PREFIXES[words[0]], *words[1:]]
    if "train" not in words:
        return words
    if "--nproc-per-node" in words:
        words[words.index("--nproc-per-node") + 1] = "2"
    words += ["--device", "cpu", *(word for key in SHORT for word in ("--set", f"train.{key}"))]
    return [*words, "--set", "train.steps=3"] if "--resume" in words else words


@pytest.mark.slow
def test_the_page_leads_to_detections(tmp_path: Path) -> None:
    (tmp_path / "runtime").symlink_to(ROOT / "runtime")
    scenes = [*PREFIXES["cn2"], "scenes", "photos", "--count", "4", "--seed", "0"]
    subprocess.run(scenes, cwd=tmp_path, check=True)
    for split in ("train", "val", "test"):
        (tmp_path / f"{split}.json").write_bytes(
            (tmp_path / "photos" / "annotations.json").read_bytes()
        )
    for words in commands():
        subprocess.run(short(words), cwd=tmp_path, check=True)
    steps = (tmp_path / "runs" / "mine" / "states").iterdir()
    assert any("3" in path.name for path in steps)  # it went on after the two
    assert (tmp_path / "runs" / "four" / "best.safetensors").is_file()
    assert (tmp_path / "runs" / "mine" / "check" / "contact_sheet.jpg").is_file()
    # The scenes are what the bundled weights know, and three tiny steps do not undo that.
    assert json.loads((tmp_path / "test_scores.json").read_text())["AP50"] > 0.8
    found = json.loads((tmp_path / "found.json").read_text())
    assert len(found["images"]) == 4
    assert all(image["detections"] for image in found["images"])
    assert len(list((tmp_path / "drawn").rglob("*.jpg"))) == 4
