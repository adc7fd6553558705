"""Formats of annotations: what all have in common, COCO's own, picture headers, any bytes."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cn2.runtime.annotations import load_annotations, read_annotations
from cn2.runtime.errors import AnnotationError, PictureError
from cn2.runtime.evaluation import coco_metrics, match_classes
from cn2.runtime.formats.headers import upright_size
from dataset_formats import (
    SIZE,
    objects,
    picture,
    write_voc,
    write_yolo,
)


def shaken(content: dict[str, Any], shift: dict[str, int]) -> list[dict[str, Any]]:
    """Detections: the ground truth moved, scored by size; file name -> image id in `shift`."""
    files = {image["id"]: image["file_name"] for image in content["images"]}
    return [
        {
            "image_id": shift[files[row["image_id"]]],
            "category_id": row["category_id"],
            "bbox": [v + ((row["id"] * (k + 3)) % 9 - 4) for k, v in enumerate(row["bbox"])],
            "score": 1 / (1 + row["id"] % 97),
        }
        for row in content["annotations"]
    ]


@pytest.mark.parametrize(("form", "tolerance"), [("yolo", 0.001), ("voc", 0.0)])
def test_bccd_reads_back_as_it_was_written(
    form: str, tolerance: float, shared: Path, tmp_path: Path
) -> None:
    """Boxes agree, and so does every metric of detections that are partly right."""
    folder = shared / "data" / "bccd"
    coco = load_annotations(folder / "annotations" / "instances_val.json", folder / "images")
    write = write_yolo if form == "yolo" else write_voc
    path = write(coco, folder / "images", tmp_path, "val")
    content = load_annotations(path)
    expected, found = objects(coco), objects(content)
    assert sorted(found) == sorted(expected)
    for name, rows in expected.items():
        assert [(c, crowd) for c, _, crowd in found[name]] == [(c, crowd) for c, _, crowd in rows]
        np.testing.assert_allclose(
            [box for _, box, _ in found[name]], [box for _, box, _ in rows], atol=tolerance
        )
    sizes = {(image["width"], image["height"]) for image in content["images"]}
    assert sizes == {(640, 480)}
    own = {image["file_name"]: image["id"] for image in content["images"]}
    match_classes(content, {c["id"]: c["name"] for c in coco["categories"]})
    theirs = {image["file_name"]: image["id"] for image in coco["images"]}
    metrics = coco_metrics(coco, shaken(coco, theirs))
    again = coco_metrics(content, shaken(coco, own))
    assert 0.3 < metrics["AP"] < 0.95
    assert again.pop("per_class").keys() == metrics.pop("per_class").keys()
    assert again == pytest.approx(metrics, abs=2e-3)


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("suffix", ["jpg", "png", "webp", "tif"])
def test_header_sizes_are_those_of_the_decoded_picture(
    orientation: int, suffix: str, tmp_path: Path
) -> None:
    from cn2.runtime.pictures import open_picture

    path = picture(tmp_path / f"p.{suffix}", (20, 33), orientation)
    assert upright_size(path) == open_picture(path).shape[:2]


def test_headers_of_files_that_are_no_pictures(tmp_path: Path) -> None:
    (tmp_path / "text.jpg").write_text("words")
    with pytest.raises(PictureError, match=r"text\.jpg: expected a picture"):
        upright_size(tmp_path / "text.jpg")
    with pytest.raises(PictureError, match="no such file"):
        upright_size(tmp_path / "none.jpg")


def test_paths_that_show_no_format(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(AnnotationError, match="got a folder without any of them"):
        load_annotations(tmp_path / "empty")
    with pytest.raises(AnnotationError, match="No such file"):
        load_annotations(tmp_path / "none.json")
    with pytest.raises(AnnotationError, match=r"none\.yaml: cannot be read"):
        load_annotations(tmp_path / "none.yaml")


def test_coco_pictures_lie_beside_the_file_where_no_folder_is_given(tmp_path: Path) -> None:
    path = tmp_path / "_annotations.coco.json"
    path.write_text(json.dumps({"images": [], "annotations": [], "categories": []}))
    assert read_annotations(path).folder == tmp_path
    assert read_annotations(path, tmp_path / "x").folder == tmp_path / "x"


@pytest.mark.parametrize(
    ("url", "wanted"),
    [
        ("http://images.example/train2017/7.jpg", "train2017/7.jpg"),
        ("http://images.example/train2017/7.jpg?a=b/c#d/e", "train2017/7.jpg"),
        ("http://images.example/deep/er/val2017/8.jpg", "val2017/8.jpg"),
        ("http://images.example/val2017/flat.jpg", "flat.jpg"),  # it lies in the folder itself
        ("http://images.example/9.jpg", "9.jpg"),
        ("val2017/9.jpg", "val2017/9.jpg"),
    ],
)
def test_coco_pictures_are_named_by_their_address(url: str, wanted: str, tmp_path: Path) -> None:
    picture(tmp_path / "flat.jpg")
    path = tmp_path / "lvis.json"
    content = {"images": [{"id": 1, "coco_url": url}], "annotations": [], "categories": []}
    path.write_text(json.dumps(content))
    assert load_annotations(path)["images"][0]["file_name"] == wanted


@pytest.mark.parametrize(
    ("image", "message"),
    [
        (
            {"coco_url": "http://images.example/a/b.jpg/"},
            "expected .file_name. as str, got nothing",
        ),
        ({"coco_url": "http://images.example/a/../b.jpg"}, "inside the folder of pictures"),
        ({"coco_url": "http://images.example/a/.."}, "expected .file_name. as str, got nothing"),
        ({"coco_url": "9.jpg"}, "expected 'file_name' as str, got nothing"),
        ({"coco_url": "http://[/a.jpg"}, "expected 'file_name' as str, got nothing"),
        ({"coco_url": "http://images.example/a\n/b.jpg"}, "expected 'file_name' as str"),
        ({"coco_url": 5}, "expected 'file_name' as str, got nothing"),
        ({"coco_url": "http://images.example/a/b.jpg", "file_name": None}, "got None"),
    ],
)
def test_addresses_that_name_no_picture(
    image: dict[str, object], message: str, tmp_path: Path
) -> None:
    path = tmp_path / "lvis.json"
    path.write_text(
        json.dumps({"images": [{"id": 1, **image}], "annotations": [], "categories": []})
    )
    with pytest.raises(AnnotationError, match=message):
        load_annotations(path)


def test_classes_are_matched_by_name() -> None:
    names = {5: "cat", 3: "dog", 1: "emu", 2: "fox"}
    content = {
        "images": [],
        "categories": [{"id": i, "name": name} for i, name in names.items()],
        "annotations": [{"id": k, "category_id": i} for k, i in enumerate(names)],
    }
    known = match_classes(content, {1: "dog", 7: "cat", 2: "fox"})
    assert known == {1: "dog", 7: "cat", 2: "fox", 8: "emu"}
    assert [row["category_id"] for row in content["annotations"]] == [7, 1, 8, 2]
    assert content["categories"] == [
        {"id": 7, "name": "cat"},
        {"id": 1, "name": "dog"},
        {"id": 8, "name": "emu"},
        {"id": 2, "name": "fox"},
    ]


PIECES = [b"nan", b"-1", b"1e999", b"null", b"\0", b"\xff", b"..", b"/", b"<", b"&x;", b"[", b"{"]
PIECES += [b"9" * 50, b"\n", b" ", b"*a", b"&a ", b"!!int ", b": ", b"- ", b'"', b"<!DOCTYPE a>"]
PIECES += [b"0", b"5", b".", b""] * 4


@pytest.mark.parametrize("spoiled", ["yaml", "label", "xml", "list", "json"])
def test_any_bytes_give_sound_records_or_one_line(spoiled: str, tmp_path: Path) -> None:
    """Random small damage: no other exception, and no annotation that nothing belongs to."""
    picture(tmp_path / "p" / "a.png")
    content = {
        "images": [{"id": 1, "file_name": "a.png", **SIZE}],
        "categories": [{"id": 1, "name": "cat"}, {"id": 2, "name": "dog"}],
        "annotations": [
            {"id": 1, "image_id": 1, "category_id": 1, "bbox": [1, 1, 3, 4]},
            {"id": 2, "image_id": 1, "category_id": 2, "bbox": [1, 2, 3, 4.5], "iscrowd": 1},
        ],
    }
    yaml = write_yolo(content, tmp_path / "p", tmp_path / "y", "val")
    listed = write_voc(content, tmp_path / "p", tmp_path / "v", "val")
    json_file = tmp_path / "p" / "a.json"
    json_file.write_text(json.dumps(content))
    file, path = {
        "yaml": (yaml, yaml),
        "label": (tmp_path / "y" / "labels" / "val" / "a.txt", yaml),
        "xml": (tmp_path / "v" / "Annotations" / "a.xml", listed),
        "list": (listed, listed),
        "json": (json_file, json_file),
    }[spoiled]
    sound, draw, read = file.read_bytes(), random.Random(spoiled), 0
    for _ in range(60):
        place = draw.randrange(len(sound))
        end = place + draw.choice([0, 1, 1])
        file.write_bytes(sound[:place] + draw.choice(PIECES) + sound[end:])
        complaints: list[str] = []
        try:
            found = load_annotations(path, complain=complaints.append)
        except AnnotationError as error:
            complaints.append(str(error))
        else:
            read += 1
            images = {image["id"] for image in found["images"]}
            classes = {category["id"] for category in found["categories"]}
            for row in found["annotations"]:
                assert row["image_id"] in images
                assert row["category_id"] in classes
                assert np.isfinite(row["bbox"]).all()
                assert min(row["bbox"][2:]) >= 0
        assert not any("\n" in complaint for complaint in complaints)
    assert read > 0
