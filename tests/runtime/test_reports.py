"""Results files are whole or absent; tables fit."""

from __future__ import annotations

import json
import os
import threading
from pathlib import Path

import pytest

from cn2.runtime import reports
from cn2.runtime.errors import OutputError


def test_json_goes_to_a_file_and_makes_its_folder(tmp_path: Path) -> None:
    path = tmp_path / "new" / "found.json"
    reports.ready_file(str(path))
    reports.write_json(str(path), {"label": "Köln", "score": 0.5})
    assert json.loads(path.read_text("utf-8")) == {"label": "Köln", "score": 0.5}
    assert [entry.name for entry in path.parent.iterdir()] == ["found.json"]


def test_json_to_stdout(capsys: pytest.CaptureFixture[str]) -> None:
    reports.ready_file("-")
    reports.write_json("-", [1])
    assert json.loads(capsys.readouterr().out) == [1]


def test_a_failed_write_leaves_the_older_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "found.json"
    path.write_text("old")

    def half(self: Path, content: bytes) -> int:
        with open(self, "wb") as file:
            file.write(content[:2])
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", half)
    with pytest.raises(OutputError, match=r"found\.json: cannot be written \(No space left"):
        reports.write_json(str(path), {"a": 1})
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_nan_never_reaches_a_file(tmp_path: Path) -> None:
    with pytest.raises(ValueError):
        reports.write_json(str(tmp_path / "x.json"), {"AP": float("nan")})
    assert list(tmp_path.iterdir()) == []


def test_a_link_is_replaced_and_its_target_stays(tmp_path: Path) -> None:
    target, link, hard = tmp_path / "target", tmp_path / "link", tmp_path / "hard"
    target.write_bytes(b"old")
    os.symlink(target, link)
    os.link(target, hard)
    for path in (link, hard):
        reports.write_whole(path, b"new")
        assert not path.is_symlink()
        assert path.read_bytes() == b"new"
    assert target.read_bytes() == b"old"
    assert len(list(tmp_path.iterdir())) == 3


def test_a_link_in_dev_stays(tmp_path: Path) -> None:
    """As root, replacing /dev/stdout would work."""
    with (tmp_path / "x").open("wb") as file:
        link = Path(f"/dev/fd/{file.fileno()}")
        if not link.is_symlink():
            pytest.skip("/dev/fd holds no links here")
        reports.ready_file(str(link))
        reports.write_whole(link, b"new")
    assert (tmp_path / "x").read_bytes() == b"new"


def test_an_input_is_no_destination(tmp_path: Path) -> None:
    picture, link, hard = tmp_path / "a.jpg", tmp_path / "link.json", tmp_path / "hard.json"
    picture.write_bytes(b"old")
    os.symlink(picture, link)
    os.link(picture, hard)
    for path in (picture, link, hard, tmp_path / "." / "a.jpg"):
        with pytest.raises(OutputError, match=r"got one that is read \(.*a\.jpg\); choose another"):
            reports.ready_file(str(path), [tmp_path / "gone.jpg", picture])
    reports.ready_file(str(tmp_path / "new.json"), [picture, tmp_path / "new.json"])


def test_a_pipe_stays_a_pipe(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    received: list[bytes] = []
    reader = threading.Thread(target=lambda: received.append(pipe.read_bytes()))
    reader.start()
    reports.write_whole(pipe, b"new")
    reader.join(timeout=10)
    assert received == [b"new"]
    assert pipe.is_fifo()


def test_the_file_mode_follows_the_umask(tmp_path: Path) -> None:
    umask = os.umask(0o022)
    try:
        reports.write_whole(tmp_path / "x", b"")
    finally:
        os.umask(umask)
    assert (tmp_path / "x").stat().st_mode & 0o777 == 0o644


def test_an_unusable_folder_is_told_before_the_work(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.touch()
    with pytest.raises(OutputError, match=r"expected a folder that can be written.*it is a file"):
        reports.ready_folder(file)
    with pytest.raises(OutputError, match="Not a directory"):
        reports.ready_folder(file / "below")
    with pytest.raises(OutputError, match="expected a file to write, got a folder"):
        reports.ready_file(str(tmp_path))
    with pytest.raises(OutputError, match="expected a folder that can be written"):
        reports.ready_file(str(file / "x.json"))


def test_tables_align_and_are_not_cut_in_a_pipe() -> None:
    long = "folder/" * 20 + "a[b].jpg"
    text = reports.format_table(["file", "ms"], [[long, "1.0"], ["b", "100.0"]])
    lines = text.splitlines()
    assert lines[1] == f"{long}    1.0"
    assert lines[2] == "b" + " " * (len(long) + 1) + "100.0"
    assert lines[0].endswith("   ms")


def test_tables_without_rows_are_their_header() -> None:
    assert reports.format_table(["file", "ms"], []) == "file  ms"


@pytest.mark.parametrize(
    ("value", "digits", "text"), [(None, 1, "-"), (12.345, 1, "12.3"), (0.5, 3, "0.500")]
)
def test_numbers(value: float | None, digits: int, text: str) -> None:
    assert reports.format_number(value, digits) == text
