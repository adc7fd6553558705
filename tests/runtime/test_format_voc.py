"""Pascal VOC read as COCO; what it may hold, and what is refused."""

from __future__ import annotations

from pathlib import Path

import pytest

from cn2.runtime.annotations import load_annotations, read_annotations
from cn2.runtime.errors import AnnotationError
from dataset_formats import (
    objects,
    picture,
    voc_file,
    voc_object,
)


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
