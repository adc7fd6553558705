"""The class lists in the package are those of the shared tables, and are read when asked for."""

from __future__ import annotations

import json
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from cn2.trainer import class_lists
from cn2.trainer.class_lists import class_list
from cn2.trainer.presets import PRESETS


def test_the_committed_lists_are_what_the_script_writes(shared: Path, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "cn2.trainer.class_lists", shared / "data", tmp_path]
    subprocess.run(command, check=True)
    folder = Path(class_lists.__file__).parent
    written = sorted(tmp_path.glob("*.json"))
    assert [path.name for path in written] == [
        "lvis-v1.json",
        "nuimages.json",
        "objects365-v1.json",
    ]
    for path in written:
        assert path.read_bytes() == (folder / path.name).read_bytes()


def test_lvis(shared: Path) -> None:
    found = class_list("lvis-v1")
    records = json.loads((shared / "data/lvis_v1_categories.json").read_text())
    assert found.category_ids == tuple(range(1, 1204))
    for column, key in (
        (found.names, "name"),
        (found.frequencies, "frequency"),
        (found.image_counts, "image_count"),
    ):
        assert list(column) == [record[key] for record in records]
    assert Counter(found.frequencies) == {"r": 337, "c": 461, "f": 405}


def test_objects365_and_nuimages() -> None:
    found = class_list("objects365-v1")
    assert found.category_ids == tuple(range(1, 366))
    assert (found.names[0], found.names[2], len(set(found.names))) == ("person", "chair", 365)
    found = class_list("nuimages")
    assert found.category_ids == tuple(range(10))
    assert (found.names[0], found.names[9]) == ("car", "barrier")
    assert found.frequencies == found.image_counts == ()


def test_an_unknown_list_is_named_with_those_there_are() -> None:
    with pytest.raises(ValueError, match="lvis-v1, objects365-v1, nuimages, got 'lvis'"):
        class_list("lvis")  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("preset", "name"),
    [
        ("r50-fpn-lvis", "lvis-v1"),
        ("r50-fpn-lvis-fed", "lvis-v1"),
        ("r50-fpn-o365", "objects365-v1"),
    ],
)
def test_presets_have_their_classes(preset: str, name: class_lists.ClassListName) -> None:
    config, classes = PRESETS[preset](), class_list(name)
    assert (config.class_names, config.category_ids) == (classes.names, classes.category_ids)
