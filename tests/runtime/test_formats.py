"""YOLO and Pascal VOC read back as COCO; what they may hold, and what is refused."""

from __future__ import annotations

import json
import random
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from cn2.runtime.annotations import load_annotations, names_its_pictures, read_annotations
from cn2.runtime.errors import AnnotationError, DependencyError, PictureError
from cn2.runtime.evaluation import coco_metrics, match_classes
from cn2.runtime.formats.headers import upright_size
from dataset_formats import voc_file, voc_object, write_voc, write_yolo, yolo_line

SIZE = {"width": 100, "height": 80}


def picture(path: Path, size: tuple[int, int] = (80, 100), orientation: int = 1) -> Path:
    """A grey picture of (height, width) as stored, with an EXIF orientation."""
    path.parent.mkdir(parents=True, exist_ok=True)
    image = Image.fromarray(np.full((*size, 3), 90, np.uint8))
    exif = Image.Exif()
    exif[0x0112] = orientation
    image.save(path, exif=exif)
    return path


def objects(content: dict[str, Any]) -> dict[str, list[tuple[str, list[float], int]]]:
    """File name -> (class, box, crowd) in the order of the file."""
    names = {category["id"]: category["name"] for category in content["categories"]}
    files = {image["id"]: image["file_name"] for image in content["images"]}
    found: dict[str, list[tuple[str, list[float], int]]] = {name: [] for name in files.values()}
    for row in content["annotations"]:
        found[files[row["image_id"]]].append(
            (names[row["category_id"]], row["bbox"], row["iscrowd"])
        )
    return found


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


def voc_folder(root: Path, text: str) -> Path:
    """Annotations/a.xml and JPEGImages/a.png."""
    picture(root / "JPEGImages" / "a.png")
    (root / "Annotations").mkdir()
    (root / "Annotations" / "a.xml").write_text(text)
    return root / "Annotations"


def test_voc_boxes_classes_and_difficult_ones(tmp_path: Path) -> None:
    part = "<part><name>head</name><bndbox><xmin>1</xmin></bndbox></part>"
    rows = [
        voc_object("dog", [0, 0, 100, 80]),
        voc_object("cat", [9, 9, 1, 2], "<difficult>1</difficult>" + part),
        voc_object("cat", [-1, 4, 10.5, 2], "<difficult>0</difficult>"),
    ]
    folder = voc_folder(tmp_path, voc_file("a.png", "".join(rows), 100, 80))
    content = load_annotations(folder)
    assert content["categories"] == [{"id": 1, "name": "cat"}, {"id": 2, "name": "dog"}]
    assert objects(content)["a.png"] == [
        ("dog", [0, 0, 100, 80], 0),
        ("cat", [9, 9, 1, 2], 1),
        ("cat", [-1, 4, 10.5, 2], 0),
    ]
    (tmp_path / "classes.txt").write_text("dog\ncat\n")
    assert load_annotations(folder)["categories"] == [
        {"id": 1, "name": "dog"},
        {"id": 2, "name": "cat"},
    ]
    (tmp_path / "classes.txt").write_text("dog\n")
    with pytest.raises(AnnotationError, match=r"class 'cat' is not in classes\.txt"):
        load_annotations(folder)


@pytest.mark.parametrize(
    "form", ["folder", "list", "root with lists", "root without", "beside the pictures"]
)
def test_where_voc_files_lie(form: str, tmp_path: Path) -> None:
    """The name in the file may be stale: the picture of the XML's own name is then the one."""
    folder = voc_folder(tmp_path, voc_file("old.png", voc_object("cat", [1, 1, 5, 5]), 0, 0))
    lists = tmp_path / "ImageSets" / "Main"
    if form in ("list", "root with lists"):
        lists.mkdir(parents=True)
        (lists / "val.txt").write_text("a\n")
        (folder / "b.xml").write_text("not in the list")
    if form == "beside the pictures":
        (tmp_path / "JPEGImages" / "a.png").rename(folder / "a.png")
        (tmp_path / "JPEGImages").rmdir()
    path = {"list": lists / "val.txt", "folder": folder, "beside the pictures": folder}
    read = read_annotations(path.get(form, tmp_path))
    assert read.format == "voc"
    (image,) = read.content["images"]
    assert image == {"id": 1, "file_name": "a.png", "height": 80, "width": 100}  # of the header
    assert (read.folder / "a.png").is_file()


BOMB = '<!DOCTYPE a [<!ENTITY x "lol"><!ENTITY y "&x;&x;&x;&x;">]>' + voc_file("&y;", "", 9, 9)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "no element found"),
        ("words", "syntax error"),
        (voc_file("a.png", voc_object("cat", [1, 1, 2, 2]), 100, 80)[:-30], "unclosed token"),
        ("<labels/>", "expected <annotation>, got <labels>"),
        (BOMB, "got a DOCTYPE"),
        ('<!DOCTYPE annotation SYSTEM "file:///etc/passwd"><annotation/>', "got a DOCTYPE"),
        ('<?xml version="1.0" encoding="klingon"?><annotation/>', "unknown encoding"),
        (voc_file("../a.png", "", 100, 80), r"got '\.\./a\.png'"),
        (voc_file("/etc/a.png", "", 100, 80), "got '/etc/a.png'"),
        (voc_file("a.png", voc_object("cat", [5, 5, -9, 9]), 9, 9), "object 1: expected xmin <="),
        (voc_file("a.png", voc_object("", [5, 5, 9, 9]), 9, 9), "object 1: expected a <name>"),
        (voc_file("a.png", voc_object("cat", [5, 5, 9, float("nan")]), 9, 9), "<ymax> .*'nan'"),
        (voc_file("a.png", "<object><name>cat</name></object>", 9, 9), "<xmin> .*'nothing'"),
        (voc_file("a.png", voc_object("cat", [5, 5, 9, 1e9]), 9, 9), "<ymax> as pixels within"),
    ],
)
def test_broken_voc_files_are_named(text: str, message: str, tmp_path: Path) -> None:
    folder = voc_folder(tmp_path, text)
    with pytest.raises(AnnotationError, match=message) as caught:
        load_annotations(folder)
    assert str(caught.value).startswith(f"{folder / 'a.xml'}: ")
    assert "\n" not in str(caught.value)


def test_voc_xml_in_utf16_is_legal(tmp_path: Path) -> None:
    folder = voc_folder(tmp_path, "")
    text = voc_file("a.png", voc_object("câlin", [1, 1, 5, 5]), 100, 80)
    (folder / "a.xml").write_bytes(
        f'<?xml version="1.0" encoding="utf-16"?>{text}'.encode("utf-16")
    )
    assert load_annotations(folder)["categories"] == [{"id": 1, "name": "câlin"}]


def test_voc_lists(tmp_path: Path) -> None:
    voc_folder(tmp_path, voc_file("a.png", "", 9, 9))
    listed = tmp_path / "ImageSets" / "Main" / "train.txt"
    listed.parent.mkdir(parents=True)
    for text, message in [
        ("a -1\n", r"line 1: expected the name .*got 'a -1'"),
        ("a\n../../x\n", r"line 2: .*got '\.\./\.\./x'"),
        ("\n", "expected the name of a picture a line, got none"),
        ("gone\n", r"gone\.xml: cannot be read"),
    ]:
        listed.write_text(text)
        with pytest.raises(AnnotationError, match=message):
            load_annotations(listed)


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


def test_yolo_lines_of_the_writer() -> None:
    """The test's own writer, held to numbers by hand."""
    assert yolo_line(3, [40, 20, 20, 40], SIZE) == "3 0.500000 0.500000 0.200000 0.500000"


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
