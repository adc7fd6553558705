"""`cn2 train --check`: each kind of thing that it finds, its report, and its sheet of samples."""

from __future__ import annotations

import io
import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from rich.console import Console

from cn2.runtime.cli import run
from cn2.runtime.errors import OutputError
from cn2.trainer import presets
from cn2.trainer.check.contact_sheet import CAPTION, CELL, GAP, HEADING, choose_samples
from cn2.trainer.check.files import decode_some, look_at, same_bytes
from cn2.trainer.check.findings import Finding, shorten
from cn2.trainer.check.run import Report, check_datasets
from cn2.trainer.check.scan import scan_set, training_size
from cn2.trainer.check.tables import report_tables
from cn2.trainer.config import Config
from cn2.trainer.data.datasets import DataSource
from cn2.trainer.train_config import ResizeCropConfig
from factories import (
    coco_annotations,
    picture,
    short_edges,
    tiny_config,
    tiny_one_stage_config,
    write_dataset,
)

Record = dict[str, Any]
FINE = [10.0, 8.0, 30.0, 20.0]


def write(folder: Path, content: Record, first_seed: int = 0) -> DataSource:
    """A set on disk; other seeds make other pictures of the same names."""
    path, pictures = write_dataset(folder, content)
    for k, image in enumerate(content["images"]):
        pixels = picture(image["height"], image["width"], seed=first_seed + k)
        Image.fromarray(pixels).save(pictures / image["file_name"])
    return DataSource(annotations=path, images=pictures)


def many(count: int = 10) -> Record:
    """A sound set: `count` objects of each class, on two pictures."""
    rows = [(c, [v + k for v in FINE]) for k in range(count) for c in (1, 3, 7)]
    half = len(rows) // 2
    return coco_annotations([(64, 96), (80, 60)], [rows[:half], rows[half:]])


@pytest.fixture
def sources(tmp_path: Path) -> tuple[DataSource, DataSource]:
    """Two sound sets of other pictures."""
    return write(tmp_path / "a", many()), write(tmp_path / "b", many(), first_seed=50)


def check(
    sources: tuple[DataSource, DataSource], out: Path, config: Config | None = None
) -> Report:
    return check_datasets(config or tiny_config(), [sources[0]], sources[1], out)


def named(report: Report) -> dict[tuple[str, str], Finding]:
    """Findings other than notes by kind and set."""
    return {(f.kind, f.set): f for f in report.findings if f.severity != "note"}


def edit(source: DataSource, change: Any) -> None:
    content = json.loads(source.annotations.read_text())
    change(content)
    source.annotations.write_text(json.dumps(content))


def test_sound_sets_have_nothing_to_tell(
    sources: tuple[DataSource, DataSource], tmp_path: Path
) -> None:
    report = check(sources, tmp_path / "run", wide_limits())
    assert list(report.findings) == []
    assert report.clean
    document = json.loads((tmp_path / "run" / "check" / "report.json").read_text())
    assert (document["errors"], document["warnings"], document["preset"]) == (0, 0, "tiny")
    train, val = document["sets"]
    assert (train["set"], val["set"], train["format"]) == ("train", "val", "coco")
    assert (train["pictures"], train["decoded"], train["objects"]) == (2, 2, 30)
    assert train["classes"] == [
        {"id": 1, "name": "disc", "objects": 10, "pictures": 2},
        {"id": 3, "name": "box", "objects": 10, "pictures": 2},
        {"id": 7, "name": "star", "objects": 10, "pictures": 2},
    ]
    assert train["picture_sizes"] == {
        "smallest": [60, 80],
        "median": [96, 64],
        "largest": [96, 64],
        "distinct": 2,
        "portrait": 1,
    }
    # Widths and heights 30 + k by 20 + k, k from 0 to 9; below 32² up to k = 7 (37 x 27 = 999).
    assert train["objects_by_area"] == {"small": 24, "medium": 6, "large": 0}
    assert train["most_objects"] == 15


def wide_limits() -> Config:
    """The tiny detector, with room for all objects of `many`."""
    config = tiny_config()
    first = config.model.first_stage
    many_proposals = replace(first.test_filter, post_nms=100)
    return replace(
        config,
        model=replace(config.model, first_stage=replace(first, test_filter=many_proposals)),
    )


def test_files_that_cannot_be_used(sources: tuple[DataSource, DataSource], tmp_path: Path) -> None:
    train, val = sources
    assert train.images is not None
    assert val.images is not None
    (train.images / "picture_0.png").unlink()
    (train.images / "picture_1.png").write_text("words")
    torn = val.images / "picture_0.png"
    torn.write_bytes(torn.read_bytes()[:-2000])
    edit(val, lambda c: c["images"][1].update(height=60, width=80))
    report = check(sources, tmp_path / "run")
    found = named(report)
    assert not report.clean
    for key, words in {
        ("missing", "train"): ["picture_0.png", "no file"],
        ("broken", "train"): ["picture_1.png", "expected a picture"],
        ("undecodable", "val"): ["picture_0.png", "cannot be read"],
        ("size", "val"): ["picture_1.png (image 11)", "80x60 annotated, 60x80 in file"],
    }.items():
        assert (found[key].severity, found[key].count) == ("error", 1)
        assert all(word in found[key].examples[0] for word in words)
    assert {key for key, f in found.items() if f.severity == "error"} == {
        ("missing", "train"),
        ("broken", "train"),
        ("undecodable", "val"),
        ("size", "val"),
    }


def test_boxes_outside_without_area_and_twice(
    sources: tuple[DataSource, DataSource], tmp_path: Path
) -> None:
    def change(content: Record) -> None:
        rows = content["annotations"]
        rows[0]["bbox"] = [90.0, 8.0, 30.0, 20.0]  # of a picture 96 wide
        rows[1]["bbox"] = [10.0, 8.0, 0.0, 20.0]
        rows[2]["bbox"] = [100.0, 8.0, 5.0, 20.0]
        rows[6] = {**rows[3], "id": rows[6]["id"]}

    edit(sources[0], change)
    found = named(check(sources, tmp_path / "run"))
    assert found["outside", "train"].examples == (
        "annotation 100, picture_0.png (image 10): disc [90, 8, 120, 28]",
    )
    assert found["degenerate", "train"].count == 2
    assert found["degenerate", "train"].examples[0].startswith("annotation 101, picture_0.png")
    assert found["same-box", "train"].count == 1
    assert found["outside", "train"].severity == "warning"


def test_objects_lost_at_the_training_size(
    sources: tuple[DataSource, DataSource], tmp_path: Path
) -> None:
    """The picture of 64 x 96 is trained at 32 x 48: of a box 7 x 30, 3.5 pixels are left."""
    small = replace(tiny_config(), train=replace(tiny_config().train, resize=short_edges(16, 32)))
    edit(sources[0], lambda c: c["annotations"][0].update(bbox=[10, 8, 7, 30]))
    edit(sources[0], lambda c: c["annotations"][1].update(bbox=[10, 8, 8, 30]))
    found = named(check(sources, tmp_path / "run", small))
    assert found["tiny", "train"].count == 1
    assert found["tiny", "train"].examples[0].startswith("annotation 100,")
    assert "1 of 30 (3.3 %) objects are narrower than 4 px" in found["tiny", "train"].what
    gap = ((0.0, 9.0), (12.0, 30.0), (30.0, 1e6))  # half diagonals
    first = replace(small.model.first_stage, sizes_of_interest=gap)
    found = named(
        check(
            sources, tmp_path / "run", replace(small, model=replace(small.model, first_stage=first))
        )
    )
    # Boxes of 30 + k by 20 + k at half the size on the first picture: half diagonals from 9.01;
    # on the other, of 80 x 60, at 32 / 60.
    expected = sum(
        9 < np.hypot(30 + k, 20 + k) / 2 * scale < 12
        for k in range(10)
        for c in (0, 1, 2)
        for scale in [0.5 if 3 * k + c < 15 else 32 / 60]
        if 3 * k + c > 1
    )
    assert found["no-level", "train"].count == expected > 0


def test_more_objects_than_can_be_found(
    sources: tuple[DataSource, DataSource], tmp_path: Path
) -> None:
    edit(sources[0], lambda c: [row.update(image_id=10) for row in c["annotations"][:20]])
    report = check(sources, tmp_path / "run")  # 16 proposals
    found = named(report)["crowded", "train"]
    assert found.examples == ("picture_0.png (image 10): 20 objects",)
    assert "can find, 16;" in found.what
    assert "test_filter.post_nms and model.second_stage.detections" in found.what
    one_stage = check(sources, tmp_path / "one", tiny_one_stage_config())
    what = named(one_stage)["crowded", "train"].what
    assert what.endswith("model.first_stage.test_filter.post_nms")


def test_classes_rare_unused_and_unknown(
    sources: tuple[DataSource, DataSource], tmp_path: Path
) -> None:
    train, val = sources

    def starve(content: Record) -> None:
        rows = content["annotations"]
        content["annotations"] = [r for r in rows if r["category_id"] != 7][:17]

    def rename(content: Record) -> None:
        content["categories"][0]["name"] = "Disc "

    edit(train, starve)  # 9 discs, 8 boxes, no star
    edit(val, rename)
    found = named(check(sources, tmp_path / "run"))
    assert found["unused-class", "train"].examples == ("star",)
    assert found["rare-class", "train"].examples == ("disc: 9 objects", "box: 8 objects")
    assert found["unknown-class", "val"].severity == "error"
    assert found["unknown-class", "val"].examples == ("Disc : 10 objects",)
    assert found["unlearned-class", "val"].examples == ("star: 10 objects",)
    assert found["alike-classes", "train"].examples == ("Disc  / disc",)


def test_the_same_picture_twice_and_in_both_sets(
    sources: tuple[DataSource, DataSource], tmp_path: Path
) -> None:
    train, val = sources
    assert train.images is not None
    assert val.images is not None
    shutil.copy(train.images / "picture_0.png", train.images / "copy.png")
    edit(
        train,
        lambda c: c["images"].append({**c["images"][0], "id": 99, "file_name": "copy.png"}),
    )
    assert set(named(check(sources, tmp_path / "run"))) == {("duplicate", "train")}
    shutil.copy(train.images / "picture_1.png", val.images / "picture_1.png")
    found = named(check(sources, tmp_path / "run"))
    assert set(found) == {("duplicate", "train"), ("leak", "val")}
    assert found["leak", "val"].count == 1
    assert str(train.images / "picture_1.png") in found["leak", "val"].examples[0]
    both = named(check((train, train), tmp_path / "run"))  # scored on what was learned
    assert both["leak", "val"].count == 2
    assert both["duplicate", "train"].count == 1


def test_broken_records_are_collected_and_the_rest_is_looked_at(
    sources: tuple[DataSource, DataSource], tmp_path: Path
) -> None:
    def change(content: Record) -> None:
        content["annotations"][0]["bbox"] = [1, 2, -3, 4]
        content["annotations"][1]["category_id"] = 99
        content["annotations"][2]["id"] = content["annotations"][3]["id"]
        content["images"].append({"id": 98, "file_name": "../a.png"})
        content["images"].append({"id": 97, "file_name": "picture_0.png"})

    edit(sources[0], change)
    report = check(sources, tmp_path / "run")
    found = named(report)
    assert found["annotation", "train"].count == 4
    assert "'../a.png'" in found["annotation", "train"].examples[0]
    assert found["no-size", "train"].examples == ("picture_0.png (image 97)",)
    assert report.sets[0]["objects"] == 27
    assert report.sets[0]["pictures"] == 3


@pytest.mark.parametrize("content", ["", "{", '{"images": []}'])
def test_an_unreadable_set_is_an_error_and_the_other_is_looked_at(
    content: str, sources: tuple[DataSource, DataSource], tmp_path: Path
) -> None:
    sources[0].annotations.write_text(content)
    report = check(sources, tmp_path / "run")
    assert [one["set"] for one in report.sets] == ["val"]
    assert set(named(report)) == {("unreadable", "train")}
    both = check((sources[0], sources[0]), tmp_path / "run")
    assert both.sets == []
    assert not both.clean


def test_empty_sets(tmp_path: Path) -> None:
    empty = write(tmp_path, {"images": [], "annotations": [], "categories": []})
    found = named(check((empty, empty), tmp_path / "run"))
    assert set(found) == {("no-picture", "train"), ("no-picture", "val")}


def test_several_training_sets_are_told_apart(
    sources: tuple[DataSource, DataSource], tmp_path: Path
) -> None:
    report = check_datasets(tiny_config(), sources, sources[1], tmp_path / "run")
    assert [one["set"] for one in report.sets] == ["train", "train 2", "val"]
    assert named(report)["leak", "val"].count == 2


def test_time_for_decoding_is_bounded(sources: tuple[DataSource, DataSource]) -> None:
    assert sources[0].images is not None
    paths = sorted(sources[0].images.iterdir())
    assert decode_some(paths, seconds=-1) == (0, [])
    assert decode_some(paths, seconds=60) == (2, [])


def test_headers_and_copies(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"same")
    (tmp_path / "b").write_bytes(b"same")
    (tmp_path / "c").write_bytes(b"also")  # as long, other bytes
    (tmp_path / "empty.jpg").write_bytes(b"")
    paths = [tmp_path / name for name in "abc"]
    assert same_bytes([*paths, tmp_path / "a", tmp_path / "gone"]) == [paths[:2]]
    empty, gone = look_at([tmp_path / "empty.jpg", tmp_path / "a\0"])
    assert (empty.size, empty.bytes, gone.size, gone.bytes) == (None, 1, None, 0)


def test_training_sizes() -> None:
    assert training_size(480, 640, short_edges(16, 48)) == (48, 64)
    assert training_size(480, 640, ResizeCropConfig(size=320)) == (240, 320)


def test_ten_thousand_boxes_are_no_trouble(tmp_path: Path) -> None:
    rows = [(1, [k % 60, k % 31, 20.0, 20.0 + k / 1000]) for k in range(10_000)]
    source = write(tmp_path, coco_annotations([(64, 96)], [rows]))
    report = check((source, source), tmp_path / "run")
    assert report.sets[0]["most_objects"] == 10_000
    assert report.seconds < 10


def test_samples_cover_rare_classes(tmp_path: Path) -> None:
    boxes: list[list[tuple[int, list[float]]]] = [[(1, FINE)] for _ in range(20)]
    boxes[13] = [(7, FINE)]
    boxes[17] = [(3, FINE)]
    source = write(tmp_path, coco_annotations([(64, 96)] * 20, boxes))
    scan = scan_set("train", source, tiny_config().train.resize, [])
    chosen = choose_samples(scan, 4)
    assert {13, 17} <= set(chosen)
    assert len(set(chosen)) == 4
    assert choose_samples(scan, 50) == list(range(20))


def test_the_sheet_shows_boxes_in_their_places(tmp_path: Path) -> None:
    """A black picture of 48 x 64 fills a cell of 320 x 427; its box has the class's colour."""
    source = write(tmp_path, coco_annotations([(48, 64)], [[(1, [16.0, 24.0, 32.0, 12.0])]]))
    assert source.images is not None
    Image.new("RGB", (64, 48)).save(source.images / "picture_0.png")
    report = check((source, source), tmp_path / "run")
    sheet = np.array(Image.open(report.folder / "contact_sheet.jpg")).astype(int)
    assert sheet.shape == (2 * (HEADING + CELL[0] + CAPTION + GAP), 4 * (CELL[1] + GAP) + GAP, 3)
    cell = sheet[HEADING : HEADING + CELL[0], GAP : GAP + CELL[1]]
    reddish = cell[:, :, 0] > 120
    rows, columns = np.flatnonzero(reddish.any(axis=1)), np.flatnonzero(reddish.any(axis=0))
    scale = 320 / 48
    assert columns[0] == pytest.approx(16 * scale, abs=2)
    assert columns[-1] == pytest.approx(48 * scale, abs=2)
    assert rows[-1] == pytest.approx(36 * scale, abs=2)
    assert rows[0] == pytest.approx(24 * scale - 15, abs=6)  # the label on top


def test_the_tables_name_everything(sources: tuple[DataSource, DataSource], tmp_path: Path) -> None:
    edit(sources[0], lambda c: c["annotations"][0].update(bbox=[1, 2, -3, 4]))
    edit(sources[0], lambda c: c["annotations"].append({**c["annotations"][1], "id": 999}))
    report = check(sources, tmp_path / "run")
    stream = io.StringIO()
    console = Console(file=stream, width=120)
    console.print(report_tables(report.sets, report.findings))
    text = stream.getvalue()
    for words in (
        "pictures",
        "disc",
        "9  30.0%",
        "error",
        "annotation is broken",
        "annotation 999",
    ):
        assert words in text


def test_shorten_names() -> None:
    assert shorten(["a", "b"]) == "a, b"
    assert shorten("abcde", 2) == "a, b and 3 more"


def test_an_output_folder_that_cannot_be_written(
    sources: tuple[DataSource, DataSource], tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match="cannot be written"):
        check(sources, tmp_path / "file")


@pytest.mark.parametrize(("broken", "code"), [(False, 0), (True, 2)])
def test_from_the_command_line(
    broken: bool,
    code: int,
    sources: tuple[DataSource, DataSource],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setitem(presets.PRESETS, "tiny", tiny_config)
    train, val = sources
    if broken:
        edit(train, lambda c: c["annotations"][0].update(bbox=None))
    words = ["train", "tiny", "--train", train.annotations, "--train-images", train.images]
    words += ["--train", val.annotations, "--train-images", val.images, "--val", val.annotations]
    words += ["--val-images", val.images, "--out", tmp_path / "run", "--check"]
    assert run([str(word) for word in words]) == code
    told = capsys.readouterr()
    assert told.err == ""
    assert f"{int(broken)} errors, 1 warnings in" in told.out  # val is in training
    assert "train 2" in told.out
    assert sorted(p.name for p in (tmp_path / "run").rglob("*")) == [
        "check",
        "contact_sheet.jpg",
        "report.json",
    ]


@pytest.mark.parametrize(
    ("name", "pictures", "crowds"), [("bccd", (205, 87), (0, 0)), ("coco128", (128, 80), (10, 11))]
)
def test_real_sets_are_clean(
    name: str, pictures: tuple[int, int], crowds: tuple[int, int], shared: Path, tmp_path: Path
) -> None:
    folder = shared / "data" / name
    train, val = (
        DataSource(
            annotations=folder / "annotations" / f"instances_{split}.json", images=folder / "images"
        )
        for split in ("train", "val")
    )
    report = check_datasets(presets.nano(), [train], val, tmp_path, decode_seconds=0.5)
    assert report.clean
    assert tuple(one["pictures"] for one in report.sets) == pictures
    assert tuple(one["crowds"] for one in report.sets) == crowds
