"""`cn2 eval`: metrics by category id, and what does not match is named."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from cn2.runtime import eval_command
from cn2.runtime.errors import AnnotationError
from cn2.runtime.eval_command import check_classes, shorten
from command_line import Ran, cn2, write_annotations, write_grey
from dataset_formats import write_voc, write_yolo
from fake_backend import make_manifest
from tiny_onnx import write_tiny_onnx

Capture = pytest.CaptureFixture[str]
WHOLE = [0, 0, 96, 64]  # what the tiny model finds as class "red", category 1, in every picture
METRICS = ("AP", "AP50", "AP75", "APs", "APm", "APl", "AR100")


@pytest.fixture
def dataset(tmp_path: Path) -> tuple[Path, Path]:
    """Two dark pictures, each wholly a "red" object; (annotations, folder)."""
    pictures = [write_grey(tmp_path / "p" / name, 1, (64, 96)) for name in ("a.png", "b.png")]
    boxes = [(1, 1, WHOLE), (2, 1, WHOLE)]
    return write_annotations(tmp_path / "ann.json", pictures, boxes), tmp_path / "p"


def evaluate(capfd: Capture, tmp_path: Path, dataset: tuple[Path, Path], *options: object) -> Ran:
    model = write_tiny_onnx(tmp_path / "tiny.onnx")
    words = ("eval", model, "--annotations", dataset[0], "--images", dataset[1])
    return cn2(capfd, *words, *options)


def change(path: Path, **parts: object) -> None:
    path.write_text(json.dumps({**json.loads(path.read_text()), **parts}))


def test_metrics_of_a_perfect_model(
    tmp_path: Path, dataset: tuple[Path, Path], capfd: Capture
) -> None:
    ran = evaluate(capfd, tmp_path, dataset, "--json", "-")
    assert (ran.code, ran.errors) == (0, [])
    found = ran.json()
    assert {key: found[key] for key in METRICS} == {
        **dict.fromkeys(METRICS, pytest.approx(1.0)),
        "APs": None,  # the objects are of 96 x 64 = 6144 pixels: all of them medium
        "APl": None,
    }
    assert found["images"] == 2
    assert found["failed"] == []
    assert found["per_class"]["red"] == {
        "AP": pytest.approx(1),
        "AP50": pytest.approx(1),
        "objects": 2,
    }
    assert found["per_class"]["blue"] == {"AP": None, "AP50": None, "objects": 0}
    assert found["model"]["preset"] == "fake"


def test_table(tmp_path: Path, dataset: tuple[Path, Path], capfd: Capture) -> None:
    lines = evaluate(capfd, tmp_path, dataset).out.splitlines()
    assert lines[0].split() == list(METRICS)
    assert lines[1].split() == ["1.000", "1.000", "1.000", "-", "1.000", "-", "1.000"]
    assert lines[3].split() == ["class", "objects", "AP", "AP50"]
    assert lines[4].split() == ["red", "2", "1.000", "1.000"]


def test_lvis(tmp_path: Path, dataset: tuple[Path, Path], capfd: Capture) -> None:
    """Each picture is a red one to the model; red is verified in the second one alone."""
    content = json.loads(dataset[0].read_text())
    for image in content["images"]:
        image.update(neg_category_ids=[], not_exhaustive_category_ids=[])
        image["coco_url"] = f"http://images.example/val2017/{image.pop('file_name')}"
    for category, frequency in zip(content["categories"], "rcf", strict=True):
        category["frequency"] = frequency
    change(dataset[0], **content | {"annotations": content["annotations"][1:]})
    ran = evaluate(capfd, tmp_path, dataset, "--json", tmp_path / "found.json")
    assert (ran.code, ran.errors) == (0, [])
    found = json.loads((tmp_path / "found.json").read_text())
    assert {key: found[key] for key in ("AP", "APr", "APc", "APf", "AR100", "AR300")} == {
        **dict.fromkeys(("AP", "APr", "AR100", "AR300"), pytest.approx(1)),
        "APc": None,
        "APf": None,
    }
    assert found["per_class"]["red"]["frequency"] == "r"
    lines = ran.out.splitlines()
    assert lines[0].split() == [*METRICS[:-1], "APr", "APc", "APf", "AR100", "AR300"]
    assert lines[1].split()[-5:] == ["1.000", "-", "-", "1.000", "1.000"]


def test_lvis_in_part_is_told_before_the_work(
    tmp_path: Path, dataset: tuple[Path, Path], capfd: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    content = json.loads(dataset[0].read_text())
    content["images"][0].update(neg_category_ids=[], not_exhaustive_category_ids=[])
    for category in content["categories"]:
        category["frequency"] = "r"
    change(dataset[0], **content)
    monkeypatch.setattr("cn2.runtime.detector.Detector.__call__", lambda *_: pytest.fail("worked"))
    ran = evaluate(capfd, tmp_path, dataset)
    assert ran.code == 2
    assert ran.errors[0].startswith("image 2: expected 'neg_category_ids' as a list")


@pytest.mark.parametrize("form", ["yolo", "voc"])
def test_other_formats_score_the_same(
    form: str, tmp_path: Path, dataset: tuple[Path, Path], capfd: Capture
) -> None:
    """Their classes, numbered 0, 1, 2 or 1, 2, 3, are the model's 1, 3, 7 by name."""
    boxes = [(1, 1, WHOLE), (2, 1, [0, 0, 20, 20]), (2, 7, [40, 0, 20, 20])]
    write_annotations(dataset[0], [dataset[1] / "a.png", dataset[1] / "b.png"], boxes)
    expected = evaluate(capfd, tmp_path, dataset, "--json", "-").json()
    write = write_yolo if form == "yolo" else write_voc
    path = write(json.loads(dataset[0].read_text()), dataset[1], tmp_path / form, "val")
    ran = cn2(capfd, "eval", tmp_path / "tiny.onnx", "--annotations", path, "--json", "-")
    assert (ran.code, ran.errors) == (0, [])
    found = ran.json()
    assert 0 < found["AP50"] < 1
    assert {key: found[key] for key in METRICS} == {key: expected[key] for key in METRICS}
    assert found["per_class"]["red"] == expected["per_class"]["red"]


def test_pictures_lie_beside_a_coco_file_where_no_folder_is_named(
    tmp_path: Path, dataset: tuple[Path, Path], capfd: Capture
) -> None:
    moved = dataset[0].rename(dataset[1] / "_annotations.coco.json")
    model = write_tiny_onnx(tmp_path / "tiny.onnx")
    assert cn2(capfd, "eval", model, "--annotations", moved).code == 0


def test_half_of_the_pictures_found(
    tmp_path: Path, dataset: tuple[Path, Path], capfd: Capture
) -> None:
    boxes = [(1, 1, WHOLE), (2, 1, [0, 0, 20, 20]), (2, 7, [40, 0, 20, 20])]
    write_annotations(dataset[0], [dataset[1] / "a.png", dataset[1] / "b.png"], boxes)
    found = evaluate(capfd, tmp_path, dataset, "--json", "-").json()
    # One of two reds is found, by the first of two equal scores; no blue is.
    assert found["per_class"]["red"]["AP50"] == pytest.approx(51 / 101, abs=1e-6)
    assert found["per_class"]["blue"]["AP50"] == 0
    assert found["AP50"] == pytest.approx(51 / 202, abs=1e-6)


def test_missing_pictures_are_named_before_the_work(
    tmp_path: Path, dataset: tuple[Path, Path], capfd: Capture
) -> None:
    (dataset[1] / "b.png").unlink()
    ran = evaluate(capfd, tmp_path, dataset)
    assert ran.code == 2
    (line,) = ran.errors
    assert line == (
        f"{dataset[1]}: 1 of the 2 annotated pictures are not there: b.png; is it the right folder?"
    )


def test_an_unreadable_picture_counts_as_empty_and_is_told(
    tmp_path: Path, dataset: tuple[Path, Path], capfd: Capture
) -> None:
    (dataset[1] / "b.png").write_text("words")
    ran = evaluate(capfd, tmp_path, dataset, "--json", tmp_path / "x.json")
    assert ran.code == 2
    assert ran.errors[0].startswith(f"{dataset[1] / 'b.png'}: expected a picture")
    assert ran.errors[1].startswith("1 of 2 pictures could not be read")
    found = json.loads((tmp_path / "x.json").read_text())
    assert [entry["file"] for entry in found["failed"]] == [str(dataset[1] / "b.png")]
    assert found["AP50"] == pytest.approx(51 / 101, abs=1e-6)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("words", "got no JSON"),
        ('{"images": []}', "expected a list under 'annotations'"),
        ('{"images": [], "annotations": [], "categories": []}', "share no category id"),
    ],
)
def test_bad_annotations(
    text: str, message: str, tmp_path: Path, dataset: tuple[Path, Path], capfd: Capture
) -> None:
    dataset[0].write_text(text)
    ran = evaluate(capfd, tmp_path, dataset)
    assert ran.code == 2
    (line,) = ran.errors
    assert message in line


def test_no_picture_at_all(tmp_path: Path, dataset: tuple[Path, Path], capfd: Capture) -> None:
    change(dataset[0], images=[], annotations=[])
    ran = evaluate(capfd, tmp_path, dataset)
    assert ran.errors == ["annotations: expected at least one picture under 'images', got none"]


def test_other_classes_under_the_same_ids_are_an_error(
    tmp_path: Path, dataset: tuple[Path, Path], capfd: Capture
) -> None:
    change(dataset[0], categories=[{"id": 1, "name": "cell"}, {"id": 2, "name": "platelet"}])
    ran = evaluate(capfd, tmp_path, dataset)
    assert ran.code == 2
    assert "1 is 'red' in the model and 'cell' in the annotations" in ran.errors[0]


def test_a_missing_evaluator_is_told_before_the_work(
    tmp_path: Path, dataset: tuple[Path, Path], capfd: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(eval_command.importlib.util, "find_spec", lambda _: None)
    monkeypatch.setattr("cn2.runtime.detector.Detector.__call__", lambda *_: pytest.fail("worked"))
    ran = evaluate(capfd, tmp_path, dataset)
    assert ran.errors == ["faster-coco-eval is not installed; pip install 'cn2[eval]'"]


def test_classes_of_one_side_only_are_warned_of(caplog: pytest.LogCaptureFixture) -> None:
    check_classes(
        make_manifest(),  # 1 red, 3 green, 7 blue
        [{"id": 1, "name": "Red"}, {"id": 3, "name": "leaf"}, {"id": 9, "name": "sky"}],
    )
    assert [record.getMessage() for record in caplog.records] == [
        "classes: taken for the same: 3 is 'green' in the model and 'leaf' in the annotations",
        "classes of the annotations alone: sky; the model cannot find them, they count as missed",
        "classes of the model alone: blue; detections of them are left out",
    ]


def test_no_shared_id_names_both_sides() -> None:
    with pytest.raises(AnnotationError) as caught:
        check_classes(make_manifest(), [{"id": 2, "name": "cell"}])
    assert "the model's (1 red, 3 green, 7 blue) and the annotations' (2 cell)" in str(caught.value)


@pytest.mark.parametrize(
    ("names", "text"),
    [
        ([], ""),
        (["a"], "a"),
        (list("abcde"), "a, b, c, d, e"),
        (list("abcdefg"), "a, b, c, d, e and 2 more"),
    ],
)
def test_shorten(names: list[str], text: str) -> None:
    assert shorten(names) == text


@pytest.mark.parametrize("victim", ["ann.json", "tiny.onnx", "p/b.png"])
def test_json_replaces_nothing_that_is_read(
    victim: str, tmp_path: Path, dataset: tuple[Path, Path], capfd: Capture
) -> None:
    before = dataset[0].read_bytes()
    ran = evaluate(capfd, tmp_path, dataset, "--json", tmp_path / victim)
    assert (ran.code, ran.notes) == (2, [])
    (line,) = ran.errors
    assert line.startswith(f"{tmp_path / victim}: expected a file to write, got one that is read")
    assert dataset[0].read_bytes() == before
