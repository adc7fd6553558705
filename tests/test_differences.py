"""docs/differences.md names files and functions that are there, and settings as they are."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from cn2.trainer.config import apply_overrides
from cn2.trainer.presets import PRESETS

ROOT = Path(__file__).resolve().parent.parent
PAGE = (ROOT / "docs" / "differences.md").read_text(encoding="utf-8")
# A file in backticks, and the names in it that follow: `a/b.py` `first`, `second`
PLACES = re.findall(r"`([\w/]+\.py)`((?:,?\s+`\w+`)*)", PAGE)


def test_there_are_places_to_check() -> None:
    assert len(PLACES) >= 15
    assert sum(len(names) > 0 for _, names in PLACES) >= 14


@pytest.mark.parametrize(("path", "names"), PLACES)
def test_the_places_exist(path: str, names: str) -> None:
    if path == "bifpn_fcos.py":  # the official one, of which nothing is here
        return
    text = (ROOT / path).read_text(encoding="utf-8")
    for name in re.findall(r"\w+", names):
        assert re.search(rf"^ *(?:class|def) {name}\b", text, re.MULTILINE), f"{path}: {name}"


def test_the_settings_exist() -> None:
    settings = re.findall(r"`--set ([\w.]+=\w+)`", PAGE)
    assert len(settings) == 2
    for setting in settings:
        apply_overrides(PRESETS["r50-fpn"](), [setting])
