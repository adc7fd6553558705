"""YOLO read as COCO; what it may hold, and what is refused."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from cn2.runtime.annotations import load_annotations, names_its_pictures, read_annotations
from cn2.runtime.errors import AnnotationError, DependencyError
from dataset_formats import (
    SIZE,
    objects,
    picture,
    yolo_line,
)


def yolo_folder(root: Path, text: str, names: str = "cat\ndog\n") -> Path:
    """labels/a.txt with a picture images/a.png and classes.txt beside them."""
    picture(root / "images" / "a.png")
    (root / "labels").mkdir()
    (root / "labels" / "a.txt").write_text(text)
    (root / "classes.txt").write_text(names)
    return root / "labels"


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("1 0.5 0.5 0.2 0.5", ("dog", [40, 20, 20, 40])),
        ("0.0 0.5 0.5 0.2 0.5", ("cat", [40, 20, 20, 40])),  # a class number with a point
        ("0 0.95 0.5 0.2 0.5", ("cat", [85, 20, 20, 40])),  # reaches out of the picture
        ("0 1.004 0.5 0.0 0.5", ("cat", [100.4, 20, 0, 40])),  # rounding; no width
        ("1 0.1 0.25 0.3 0.5 0.2 1.0", ("dog", [10, 20, 20, 60])),  # a triangle
        ("0 .1 .1 .5 .1 .5 .6 .1 .6", ("cat", [10, 8, 40, 40])),  # four corners
    ],
)
def test_lines_of_a_yolo_label(
    line: str, expected: tuple[str, list[float]], tmp_path: Path
) -> None:
    content = load_annotations(yolo_folder(tmp_path, f"\n{line}\n\n"))
    ((name, box, crowd),) = objects(content)["a.png"]
    assert (name, crowd) == (expected[0], 0)
    assert box == pytest.approx(expected[1])
    assert content["annotations"][0]["area"] == pytest.approx(box[2] * box[3])
    assert content["categories"] == [{"id": 0, "name": "cat"}, {"id": 1, "name": "dog"}]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("0 0.5 0.5 0.2", "got 4 numbers"),
        ("0 0.5 0.5 0.2 0.1 0.9", "got 6 numbers; is the last a confidence?"),
        ("2 0.5 0.5 0.2 0.2", r"expected a class of 0\.\.1, got 2"),
        ("-1 0.5 0.5 0.2 0.2", r"expected a class of 0\.\.1, got -1"),
        ("0.5 0.5 0.5 0.2 0.2", r"expected a class of 0\.\.1, got 0\.5"),
        ("nan 0.5 0.5 0.2 0.2", r"expected a class of 0\.\.1, got nan"),
        ("0 nan 0.5 0.2 0.2", "between 0 and 1, got 'nan"),
        ("0 0.5 0.5 -0.005 0.2", "between 0 and 1, got '0.5 0.5 -0.005"),
        ("0 231.5 120 40 52", r"got '231\.5 120 40 52'; are these pixels\?"),
        ("0 0.5 0.5 0.2 inf", "between 0 and 1"),
        ("cat 0.5 0.5 0.2 0.2", "in numbers, got 'cat"),
    ],
)
def test_bad_lines_name_file_and_line(line: str, message: str, tmp_path: Path) -> None:
    folder = yolo_folder(tmp_path, f"0 0.5 0.5 0.5 0.5\n{line}\n")
    with pytest.raises(AnnotationError, match=message) as caught:
        load_annotations(folder)
    assert str(caught.value).startswith(f"{folder / 'a.txt'}: line 2: ")
    assert "\n" not in str(caught.value)
    complaints: list[str] = []
    content = load_annotations(folder, complain=complaints.append)
    assert len(complaints) == len(content["annotations"]) == 1


def test_yolo_pictures_without_labels_and_labels_without_pictures(tmp_path: Path) -> None:
    folder = yolo_folder(tmp_path, "0 0.5 0.5 0.5 0.5")
    picture(tmp_path / "images" / "sub" / "b.jpg", (60, 40), orientation=6)
    content = load_annotations(folder)
    assert objects(content)["sub/b.jpg"] == []
    sizes = {image["file_name"]: (image["width"], image["height"]) for image in content["images"]}
    assert sizes == {"a.png": (100, 80), "sub/b.jpg": (60, 40)}  # upright
    (folder / "a.txt").write_text("")  # empty: without objects
    assert load_annotations(folder)["annotations"] == []
    (folder / "gone.txt").write_text("0 0.5 0.5 0.5 0.5")
    with pytest.raises(AnnotationError, match=r"gone\.txt: no picture of that name"):
        load_annotations(folder)


def test_a_broken_picture_stays_in_a_yolo_set_for_the_decoder_to_judge(tmp_path: Path) -> None:
    folder = yolo_folder(tmp_path, "0 0.5 0.5 0.5 0.5")
    (tmp_path / "images" / "a.png").write_text("words")
    assert len(load_annotations(folder)["annotations"]) == 1


def test_a_yolo_folder_needs_classes_and_pictures(tmp_path: Path) -> None:
    folder = yolo_folder(tmp_path, "0 0.5 0.5 0.5 0.5")
    (tmp_path / "images").rename(tmp_path / "photos")
    with pytest.raises(AnnotationError, match="expected pictures of these labels"):
        load_annotations(folder)
    assert len(load_annotations(folder, tmp_path / "photos")["images"]) == 1
    (tmp_path / "classes.txt").write_text("cat\n\ndog")
    with pytest.raises(AnnotationError, match="got none in line 2"):
        load_annotations(folder, tmp_path / "photos")
    (tmp_path / "classes.txt").write_text("cat\ncat\n")
    with pytest.raises(AnnotationError, match="'cat' occurs twice"):
        load_annotations(folder, tmp_path / "photos")
    (tmp_path / "classes.txt").unlink()
    with pytest.raises(AnnotationError, match=r"labels: expected classes\.txt"):
        load_annotations(folder, tmp_path / "photos")


@pytest.fixture
def yolo(tmp_path: Path) -> Path:
    """data.yaml of two splits: train with a.png and b.png, val with c.png."""
    for split, names in {"train": "ab", "val": "c"}.items():
        for name in names:
            picture(tmp_path / "images" / split / f"{name}.png")
            label = tmp_path / "labels" / split / f"{name}.txt"
            label.parent.mkdir(parents=True, exist_ok=True)
            label.write_text("0 0.5 0.5 0.2 0.5\n")
    path = tmp_path / "data.yaml"
    path.write_text("train: images/train\nval: images/val\nnc: 2\nnames: [cat, no]\n")
    return path


def test_splits_of_a_data_yaml(yolo: Path) -> None:
    def files(path: Path, **options: str) -> list[str]:
        return [image["file_name"] for image in load_annotations(path, **options)["images"]]

    assert files(yolo) == ["c.png"]
    assert files(yolo, split="train") == ["a.png", "b.png"]
    assert files(yolo.with_name("data.yaml:train")) == ["a.png", "b.png"]
    assert files(yolo.parent, split="train") == ["a.png", "b.png"]  # the folder of a data.yaml
    read = read_annotations(yolo)
    assert (read.folder, read.format) == (yolo.parent / "images" / "val", "yolo")
    assert [c["name"] for c in read.content["categories"]] == ["cat", "no"]  # no YAML booleans
    assert names_its_pictures(yolo.with_name("data.yaml:train"))
    assert not names_its_pictures(yolo.parent / "labels")
    with pytest.raises(AnnotationError, match="no split 'test'; the file has train, val"):
        load_annotations(yolo, split="test")
    with pytest.raises(AnnotationError, match="names its own pictures"):
        load_annotations(yolo, yolo.parent / "images")


@pytest.mark.parametrize(
    ("text", "count"),
    [
        ("path: /another/machine\ntrain: images/train", 2),  # the file's own folder then
        ("train: ../images/train", 2),  # as an exporter writes what lies beside the file
        ("train: [images/train, images/val]", 3),
        ("train: list.txt", 2),
    ],
)
@pytest.mark.parametrize("relative", [False, True])
def test_places_in_a_data_yaml(
    text: str, count: int, relative: bool, yolo: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (yolo.parent / "list.txt").write_text(
        f"images/train/a.png\n\n{yolo.parent / 'images/val/c.png'}\n"
    )
    yolo.write_text(f"{text}\nnames:\n  0: cat\n  1: dog\n")
    monkeypatch.chdir(yolo.parent)
    content = load_annotations(Path("data.yaml") if relative else yolo, split="train")
    assert len(content["images"]) == len(content["annotations"]) == count


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("train: images/train", "expected `names`"),
        ("train: images/train\nnames: {0: cat, 2: dog}", "without gaps"),
        ("train: images/train\nnc: 3\nnames: [cat]", "`nc` says 3 classes, `names` has 1"),
        ("train: images/gone\nnames: [cat]", r"nothing at .*images/gone"),
        ("train: labels\nnames: [cat]", "no picture in"),
        ("train: images/train\nnames: [cat]\nkpt_shape: [17, 3]", "poses"),
        ("train: outside.txt\nnames: [cat]", r"line 1: .*got '\.\./secret\.png'"),
        ("train: gone.txt\nnames: [cat]", r"line 1: no picture"),
        ("train: [", "got no YAML"),
        ("- train", "got no table"),
        ("[" * 5000, "got no YAML"),
        ("!!python/object/apply:os.system [true]", "got no table"),
    ],
)
def test_a_broken_data_yaml(text: str, message: str, yolo: Path) -> None:
    (yolo.parent / "outside.txt").write_text("../secret.png\n")
    (yolo.parent / "gone.txt").write_text("images/train/gone.png\n")
    yolo.write_text(text)
    with pytest.raises(AnnotationError, match=message) as caught:
        load_annotations(yolo, split="train")
    assert "\n" not in str(caught.value)


def test_a_data_yaml_without_pyyaml(yolo: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "yaml", None)
    with pytest.raises(DependencyError, match=r"pip install 'cn2\[eval\]'"):
        load_annotations(yolo)


def test_a_yolo_set_without_any_label_is_refused(yolo: Path) -> None:
    (yolo.parent / "labels" / "val").rename(yolo.parent / "label")
    with pytest.raises(AnnotationError, match="expected a label file for each of 1 pictures"):
        load_annotations(yolo)


def test_yolo_lines_of_the_writer() -> None:
    """The test's own writer, held to numbers by hand."""
    assert yolo_line(3, [40, 20, 20, 40], SIZE) == "3 0.500000 0.500000 0.200000 0.500000"
