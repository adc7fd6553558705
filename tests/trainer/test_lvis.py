"""LVIS data in a training: pictures named by address alone, scored by LVIS's rules, joined sets."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

from cn2.runtime.evaluation import is_federated
from cn2.trainer.build import build_detector
from cn2.trainer.data.datasets import DataSource, load_dataset
from cn2.trainer.distributed import Ranks
from cn2.trainer.validate import validate
from factories import coco_annotations, tiny_config, write_dataset

URL = "http://images.example/{}/{}"
HERE = Ranks(device=torch.device("cpu"))
BOX = (1, [10.0, 10.0, 40.0, 30.0])


def lvis(names: dict[int, str] | None = None) -> dict[str, Any]:
    """Two pictures: one with a disc, one without; boxes and stars are verified in neither."""
    content = coco_annotations([(64, 96), (64, 96)], [[BOX], []])
    for image in content["images"]:
        image.update(neg_category_ids=[1, 7], not_exhaustive_category_ids=[7])
    for category, frequency in zip(content["categories"], "rcf", strict=True):
        category["frequency"] = frequency
        category["name"] = (names or {}).get(category["id"], category["name"])
    return content


def write_lvis(folder: Path, content: dict[str, Any], split: str = "val2017") -> DataSource:
    """Pictures in a folder of the split, and an annotation file with addresses alone."""
    path, pictures = write_dataset(folder, content)
    (pictures / split).mkdir()
    for image in content["images"]:
        name = image.pop("file_name")
        shutil.move(pictures / name, pictures / split / name)
        image["coco_url"] = URL.format(split, name)
    path.write_text(json.dumps(content))
    return DataSource(annotations=path, images=pictures)


@pytest.mark.parametrize("below", [True, False], ids=["split/name", "name alone"])
def test_pictures_are_found_by_their_address(tmp_path: Path, below: bool) -> None:
    source = write_lvis(tmp_path, lvis())
    assert source.images is not None
    folder = source.images if below else source.images / "val2017"
    data = load_dataset([DataSource(annotations=source.annotations, images=folder)])
    names = ["picture_0.png", "picture_1.png"]
    assert [p.path for p in data.pictures] == [source.images / "val2017" / name for name in names]
    assert all(picture.path.is_file() for picture in data.pictures)


def test_validation_goes_by_the_rules_of_lvis(tmp_path: Path) -> None:
    torch.manual_seed(0)
    config = tiny_config()
    data = load_dataset([write_lvis(tmp_path, lvis())])
    metrics, results = validate(build_detector(config), data, config, HERE)
    assert results
    assert (metrics["APc"], metrics["APf"]) == (None, None)
    assert metrics["APr"] == metrics["AP"]
    assert {name: row["frequency"] for name, row in metrics["per_class"].items()} == {
        "disc": "r",
        "box": "c",
        "star": "f",
    }


def test_joined_sets_of_lvis_stay_one(tmp_path: Path) -> None:
    """The second set numbers disc and star the other way round; its lists follow."""
    second = lvis({1: "star", 7: "disc"})
    for category, frequency in zip(second["categories"], "fcr", strict=True):
        category["frequency"] = frequency
    second["images"][0]["neg_category_ids"] = [1, 3, 99]
    sources = [write_lvis(tmp_path / "a", lvis()), write_lvis(tmp_path / "b", second)]
    content = load_dataset(sources).annotations
    assert is_federated(content)
    assert [c["frequency"] for c in content["categories"]] == ["r", "c", "f"]
    assert [image["neg_category_ids"] for image in content["images"]] == [
        [1, 7],
        [1, 7],
        [7, 3],
        [7, 1],
    ]
    assert [image["not_exhaustive_category_ids"] for image in content["images"]] == [
        [7],
        [7],
        [1],
        [1],
    ]


def test_lvis_joined_with_another_set_is_scored_as_coco(tmp_path: Path) -> None:
    path, pictures = write_dataset(tmp_path / "b", coco_annotations([(64, 96)], [[BOX]]))
    sources = [
        write_lvis(tmp_path / "a", lvis()),
        DataSource(annotations=path, images=pictures),
    ]
    assert not is_federated(load_dataset(sources).annotations)


def test_joined_sets_without_a_class_of_the_detector(tmp_path: Path) -> None:
    sources = [write_lvis(tmp_path / "a", lvis()), write_lvis(tmp_path / "b", lvis())]
    classes = {1: "disc", 3: "box", 7: "star", 9: "ring"}
    data = load_dataset(sources, classes)
    assert data.classes == classes
    assert is_federated(data.annotations)
