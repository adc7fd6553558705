"""Data sets by path: several joined, classes by name, and twelve kinds of broken files."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cn2.runtime.errors import AnnotationError
from cn2.runtime.evaluation import read_annotations
from cn2.trainer.data.datasets import DataSource, load_dataset, pair_sources
from dataset_formats import write_voc, write_yolo
from factories import coco_annotations, write_dataset

Record = dict[str, Any]


def source(folder: Path, content: Record) -> DataSource:
    path, pictures = write_dataset(folder, content)
    return DataSource(annotations=path, images=pictures)


def scene(*boxes: tuple[int, list[float]], names: dict[int, str] | None = None) -> Record:
    """One picture of 64 x 96 pixels; classes disc 1, box 3, star 7, or others."""
    content = coco_annotations([(64, 96)], [list(boxes)])
    if names:
        content["categories"] = [{"id": i, "name": name} for i, name in names.items()]
    return content


def test_sets_are_joined_by_class_names_with_ids_made_unique(tmp_path: Path) -> None:
    first = source(tmp_path / "a", scene((7, [1, 2, 10, 20]), (1, [0, 0, 5, 5])))
    others = {1: "star", 2: "moon", 3: "box"}
    second = source(
        tmp_path / "b", scene((1, [3, 3, 9, 9]), (2, [4, 4, 8, 8]), (3, [5, 5, 7, 7]), names=others)
    )
    data = load_dataset([first, second])
    assert data.classes == {1: "disc", 3: "box", 7: "star", 8: "moon"}
    assert data.class_names == ("disc", "box", "star", "moon")
    assert [picture.image_id for picture in data.pictures] == [10, 11]
    assert [picture.path.parent for picture in data.pictures] == [first.images, second.images]
    np.testing.assert_array_equal(data.pictures[0].classes, [2, 0])
    np.testing.assert_array_equal(data.pictures[1].classes, [2, 3, 1])
    np.testing.assert_array_equal(data.pictures[1].boxes[0], [3, 3, 12, 12])
    rows = data.annotations["annotations"]
    assert [row["id"] for row in rows] == [100, 101, 102, 103, 104]
    assert [row["image_id"] for row in rows] == [10, 10, 11, 11, 11]
    assert [row["category_id"] for row in rows] == [7, 1, 7, 8, 3]
    assert [image["id"] for image in data.annotations["images"]] == [10, 11]


def test_sets_of_three_formats_are_one(tmp_path: Path) -> None:
    content = scene((7, [1, 2, 10, 20]), (1, [0, 0, 5, 5]), (3, [7, 7, 8, 8]))
    coco = source(tmp_path, content)
    assert coco.images is not None
    yolo = DataSource(annotations=write_yolo(content, coco.images, tmp_path / "yolo"))
    voc = DataSource(annotations=write_voc(content, coco.images, tmp_path / "voc"))
    data = load_dataset([coco, yolo, voc])
    assert data.classes == {1: "disc", 3: "box", 7: "star"}
    for picture in data.pictures:
        np.testing.assert_allclose(picture.boxes, data.pictures[0].boxes, atol=1e-4)
        np.testing.assert_array_equal(picture.classes, [2, 0, 1])
    assert len({picture.path for picture in data.pictures}) == 3


def test_validation_classes_are_those_of_the_training_by_name(tmp_path: Path) -> None:
    val = source(tmp_path, scene((1, [3, 3, 9, 9]), names={1: "star", 2: "moon"}))
    data = load_dataset([val], {1: "disc", 7: "star"})
    assert data.classes == {1: "disc", 7: "star"}
    np.testing.assert_array_equal(data.pictures[0].classes, [1])
    assert data.annotations["annotations"][0]["category_id"] == 7
    with pytest.raises(AnnotationError, match=r"annotation 100: class 'star' is none of the 1 "):
        load_dataset([val], {1: "disc"})


def test_a_mistake_in_a_later_set_names_its_own_file_and_id(tmp_path: Path) -> None:
    first = source(tmp_path / "a", scene((1, [1, 1, 5, 5])))
    second = source(tmp_path / "b", scene((1, [1, 1, 5, 5])))
    assert second.images is not None
    (second.images / "picture_0.png").unlink()
    with pytest.raises(AnnotationError, match=r"/b/annotations\.json: image 10: no file"):
        load_dataset([first, second])


def test_folders_are_paired_with_annotations() -> None:
    def pair(annotations: list[str], images: list[str]) -> list[Path | None]:
        paths, folders = map(Path, annotations), map(Path, images)
        found = pair_sources(list(paths), list(folders), split="train", option="--train")
        return [one.images for one in found]

    assert pair(["a.json", "b.json"], ["A", "B"]) == [Path("A"), Path("B")]
    assert pair(["a.json", "b.json"], ["A"]) == [Path("A"), Path("A")]
    assert pair(["a.json", "d.yaml", "d.yaml:val"], ["A"]) == [Path("A"), None, None]
    assert pair(["a.json", "d.yaml", "b.json"], ["A", "B"]) == [Path("A"), None, Path("B")]
    assert pair(["a.json", "b.json"], []) == [None, None]
    with pytest.raises(ValueError, match=r"--train-images: expected one .* the 3 --train .* got 2"):
        pair(["a.json", "b.json", "c.json"], ["A", "B"])
    with pytest.raises(ValueError, match=r"the 0 --train .* got 1"):
        pair(["d.yaml"], ["A"])


# Twelve kinds of broken files: what is done to a sound one, the words of the refusal (None: legal),
# and how many sound annotations a check goes on with (None: it cannot).

Spoil = Callable[[Path, Record], None]


def rewrite(change: Callable[[Record], object]) -> Spoil:
    """Change the records, and write them again."""

    def spoil(path: Path, content: Record) -> None:
        change(content)
        path.write_text(json.dumps(content))

    return spoil


def replace(change: Callable[[bytes], bytes]) -> Spoil:
    """Change the file's bytes."""
    return lambda path, _: path.write_bytes(change(path.read_bytes())) and None


def last(kind: str, **values: Any) -> Spoil:
    """Change the last record of a kind."""
    return rewrite(lambda content: content[kind][-1].update(values))


def crowd_of_boxes(content: Record) -> None:
    row = content["annotations"][0]
    content["annotations"] = [{**row, "id": k} for k in range(10_000)]


def unknown_fields(content: Record) -> None:
    for record in [content, *content["images"], *content["annotations"], *content["categories"]]:
        record["surprise"] = {"nested": [1, None]}


def to_latin1(data: bytes) -> bytes:
    return data.replace(b"disc", "scheiße".encode("latin-1"))


BROKEN: dict[str, tuple[Spoil, list[str] | None, int | None]] = {
    "annotation id twice": (last("annotations", id=100), ["annotation id 100", "twice"], 1),
    "image id twice": (
        rewrite(lambda c: c["images"].append(dict(c["images"][0]))),
        ["image id 10", "twice"],
        2,
    ),
    "picture not there": (last("images", file_name="gone.png"), ["image 10", "gone.png"], 2),
    "NaN box": (last("annotations", bbox=[1, 2, float("nan"), 4]), ["annotation 101", "nan"], 1),
    "negative box": (last("annotations", bbox=[1, 2, -3, 4]), ["annotation 101", "-3"], 1),
    "categories out of order": (rewrite(lambda c: c["categories"].reverse()), None, 2),
    "10,000 boxes on a picture": (rewrite(crowd_of_boxes), None, 10_000),
    "unknown fields": (rewrite(unknown_fields), None, 2),
    "empty": (replace(lambda _: b""), ["got an empty file"], None),
    "blank": (replace(lambda _: b" \n\n"), ["got an empty file"], None),
    "not JSON": (replace(lambda _: b"image,x,y\n"), ["got no JSON"], None),
    "truncated": (replace(lambda data: data[: len(data) // 2]), ["ends in the middle"], None),
    "brackets without end": (replace(lambda _: b"[" * 1_000_000), ["got no JSON"], None),
    "a number without end": (
        replace(lambda data: data.replace(b'"id": 100', b'"id": ' + b"9" * 100_000)),
        ["got no JSON"],
        None,
    ),
    "an id of 70 bits": (last("annotations", id=2**70), ["annotation number 1", "64 bits"], 1),
    "UTF-8 with its mark": (replace(lambda data: b"\xef\xbb\xbf" + data), None, 2),
    "UTF-16": (
        replace(lambda data: data.decode().encode("utf-16")),
        ["in UTF-8, got UTF-16", "iconv"],
        None,
    ),
    "UTF-16 without its mark": (
        replace(lambda data: data.decode().encode("utf-16-le")),
        ["in UTF-8, got UTF-16", "iconv"],
        None,
    ),
    "Latin-1": (replace(to_latin1), ["in UTF-8, got byte 0xdf", "iconv"], None),
    "absolute name": (last("images", file_name="/etc/hosts"), ["image 10", "'/etc/hosts'"], 0),
    "name above": (last("images", file_name="../a.png"), ["image 10", "'../a.png'"], 0),
    "name above, hidden": (
        last("images", file_name="x/../../pictures2/a.png"),
        ["image 10", "inside the folder"],
        0,
    ),
    "name that comes back": (last("images", file_name="x/../picture_0.png"), None, 2),
    "name with a zero": (last("images", file_name="a\0b.png"), ["'a\\x00b.png'"], 0),
    "name of two lines": (last("images", file_name="a\nb.png"), ["'a\\nb.png'"], 0),
    "half a letter": (last("categories", name="\ud83d"), ["category 7", "'\\ud83d'"], 2),
    "name too long": (last("images", file_name="a" * 5000), ["image 10", "no file"], 2),
}


@pytest.fixture
def sound(tmp_path: Path) -> tuple[DataSource, Record]:
    """A picture with two boxes."""
    content = scene((1, [1, 1, 4, 4]), (3, [2, 2, 8, 8]))
    made = source(tmp_path, content)
    assert made.images is not None
    (made.images / "x").mkdir()
    return made, content


@pytest.mark.parametrize("kind", BROKEN)
def test_broken_files_are_refused_in_one_line(kind: str, sound: tuple[DataSource, Record]) -> None:
    data, content = sound
    spoil, words, count = BROKEN[kind]
    spoil(data.annotations, content)
    started = time.perf_counter()
    if words is None:
        assert len(load_dataset([data]).pictures[0].boxes) == count
    else:
        with pytest.raises(AnnotationError) as caught:
            load_dataset([data])
        message = str(caught.value)
        assert "\n" not in message
        for word in [str(data.annotations), *words]:
            assert word in message
    assert time.perf_counter() - started < 2


@pytest.mark.parametrize("kind", BROKEN)
def test_a_check_goes_on_behind_broken_records(kind: str, sound: tuple[DataSource, Record]) -> None:
    data, content = sound
    spoil, words, count = BROKEN[kind]
    spoil(data.annotations, content)
    complaints: list[str] = []
    if count is None:
        with pytest.raises(AnnotationError):
            read_annotations(data.annotations, data.images, complain=complaints.append)
        return
    read = read_annotations(data.annotations, data.images, complain=complaints.append)
    assert len(read.content["annotations"]) == count
    if words is None or "no file" in words or "gone.png" in words:  # judged by what opens files
        assert complaints == []
    else:
        assert all(word in complaints[0] for word in words)


def huge_file(path: Path, count: int) -> None:
    """`count` annotations on count / 10 pictures of two classes."""
    image = '{"id": %d, "file_name": "p.png", "height": 64, "width": 96}'
    row = (
        '{"id": %d, "image_id": %d, "category_id": %d, "bbox": [1.25, 2.5, %d, 8.75], '
        '"area": 70.5, "iscrowd": 0, "segmentation": []}'
    )
    images = ", ".join(image % i for i in range(count // 10))
    rows = ", ".join(row % (i, i // 10, 1 + i % 2, 1 + i % 50) for i in range(count))
    categories = '[{"id": 1, "name": "a"}, {"id": 2, "name": "b"}]'
    path.write_text(
        f'{{"images": [{images}], "annotations": [{rows}], "categories": {categories}}}'
    )


def test_a_huge_file_takes_time_in_proportion(tmp_path: Path) -> None:
    """50,000 annotations; a million takes some 30 s and 0.5 GB on a slow, busy core."""
    path = tmp_path / "huge.json"
    huge_file(path, 50_000)
    (tmp_path / "p.png").write_bytes(b"")
    started = time.process_time()
    data = load_dataset([DataSource(annotations=path)])
    assert time.process_time() - started < 15
    assert len(data.pictures) == 5_000
    assert sum(len(picture.boxes) for picture in data.pictures) == 50_000
    assert os.path.getsize(path) > 5e6
