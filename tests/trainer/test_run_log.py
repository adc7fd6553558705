"""The log of a run: appended to, cut back on resume, read after a kill."""

import json
import os
from pathlib import Path

import pytest

from cn2.runtime.errors import OutputError
from cn2.trainer import progress
from cn2.trainer.progress import RunLog, read_log

TORN = '{"kind": "train", "time": 1.0, "st'  # as far as a kill let it be written


@pytest.fixture
def log(tmp_path: Path) -> RunLog:
    """Steps 10 to 50, a scoring at 30, and a last line that was torn at step 60."""
    log = RunLog(tmp_path / "log.jsonl")
    for step in (10, 20, 30, 40, 50):
        log.write("train", step=step, loss=1 / step)
        if step == 30:
            log.write("validation", step=step, AP=0.25)
    with log.path.open("a") as file:
        file.write(TORN)
    return log


def steps(log: RunLog) -> list[tuple[str, int]]:
    return [(row["kind"], row["step"]) for row in read_log(log.path)]


def test_the_log_is_one_object_per_line(tmp_path: Path) -> None:
    log = RunLog(tmp_path / "log.jsonl")
    log.write("train", step=1, loss=0.5)
    log.write("validation", AP=None)
    rows = [json.loads(line) for line in log.path.read_text().splitlines()]
    assert [row["kind"] for row in rows] == ["train", "validation"]
    assert rows[0]["loss"] == 0.5
    assert rows[1]["AP"] is None
    assert read_log(log.path) == rows


@pytest.mark.parametrize("tail", [b"", TORN.encode(), b"\0\0\0\0", b"\xff\xfe{", b"12", b"[]"])
def test_a_torn_last_line_is_left_out(tmp_path: Path, tail: bytes) -> None:
    path = tmp_path / "log.jsonl"
    path.write_bytes(b'{"kind": "train", "step": 1}\n' + tail)
    assert read_log(path) == [{"kind": "train", "step": 1}]
    RunLog(path).rewind(1)
    assert path.read_bytes() == b'{"kind": "train", "step": 1}\n'


def test_a_last_line_that_lacks_only_its_end_is_whole(tmp_path: Path) -> None:
    path = tmp_path / "log.jsonl"
    path.write_text('{"step": 1}\n{"step": 2}')
    assert read_log(path) == [{"step": 1}, {"step": 2}]
    RunLog(path).rewind(2)
    RunLog(path).write("train", step=3)
    assert [row["step"] for row in read_log(path)] == [1, 2, 3]


def test_rewind_forgets_what_comes_after_the_step(log: RunLog) -> None:
    before = log.path.read_text().splitlines()
    log.rewind(30)
    assert steps(log) == [("train", 10), ("train", 20), ("train", 30), ("validation", 30)]
    assert log.path.read_text().splitlines() == before[:4]  # to the letter
    log.write("train", step=40, loss=0.1)
    assert steps(log)[-1] == ("train", 40)
    assert [path.name for path in log.path.parent.iterdir()] == ["log.jsonl"]


@pytest.mark.parametrize(("step", "left"), [(0, 0), (9, 0), (10, 1), (29, 2), (50, 6), (99, 6)])
def test_rewind_to_any_step(log: RunLog, step: int, left: int) -> None:
    log.rewind(step)
    assert len(steps(log)) == left
    assert log.path.read_text().count("\n") == left


def test_rewind_keeps_rows_without_a_step_and_needs_no_file(tmp_path: Path) -> None:
    log = RunLog(tmp_path / "log.jsonl")
    log.rewind(0)
    assert not log.path.exists()
    log.write("note", text="begun")
    log.write("train", step=1)
    log.rewind(0)
    assert [row["kind"] for row in read_log(log.path)] == ["note"]


def test_a_damaged_line_in_the_middle_is_named(log: RunLog) -> None:
    with log.path.open("a") as file:
        file.write('\n{"step": 60}\n')
    before = log.path.read_bytes()
    for read in (lambda: read_log(log.path), lambda: log.rewind(30)):
        with pytest.raises(ValueError, match=r"log\.jsonl, line 7: expected a JSON object, got"):
            read()
    assert log.path.read_bytes() == before


def test_a_crash_while_rewinding_leaves_the_old_log(
    log: RunLog, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = log.path.read_bytes()

    def no_space(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", no_space)
    with pytest.raises(OutputError, match=r"log\.jsonl: cannot be written \(No space left"):
        log.rewind(30)
    assert log.path.read_bytes() == before
    assert [path.name for path in log.path.parent.iterdir()] == ["log.jsonl"]


def test_a_log_that_needs_no_cut_is_not_written(
    log: RunLog, monkeypatch: pytest.MonkeyPatch
) -> None:
    log.rewind(50)
    monkeypatch.setattr(progress, "write_whole", lambda *_: pytest.fail("written again"))
    log.rewind(50)
    assert len(steps(log)) == 6


def test_a_log_that_cannot_be_written_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match="cannot be written"):
        RunLog(tmp_path / "gone" / "log.jsonl").write("train", step=1)
