"""An engine's two files: whole, or refused, at any moment a writer may be killed."""

from __future__ import annotations

import fcntl
import hashlib
import os
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest

from cn2.export.engine import files
from cn2.export.engine.files import current_engine, place_engine, remove_leftovers, write_whole
from cn2.runtime.engine_file import EngineFile, read_plan, sidecar_path
from cn2.runtime.errors import OutputError
from engine_files import PLAN, make_engine_file, write_engine

KILLS = 50
# Forks a writer of one engine after the other, kills it, and prints what is left; KILLS times.
KILLER = """
import hashlib, os, random, signal, sys, time
from pathlib import Path
from cn2.export.engine.files import place_engine
from cn2.runtime.engine_file import read_plan
from cn2.runtime.errors import ModelFormatError
from engine_files import make_engine_file

def write_on(path, number):
    while True:
        plan = bytes([number % 256]) * 2_000_000
        place_engine(path, plan, make_engine_file(sha256=hashlib.sha256(plan).hexdigest()))
        number += 1

path, kills = Path(sys.argv[1]), int(sys.argv[2])
chance = random.Random(0)
for kill in range(kills):
    writer = os.fork()
    if not writer:
        write_on(path, kill)
    time.sleep(chance.uniform(0.0, 0.04))
    os.kill(writer, signal.SIGKILL)
    os.waitpid(writer, 0)
    try:
        plan = read_plan(path)[1]
        print("whole" if len(set(plan)) == 1 and len(plan) == 2_000_000 else "torn")
    except ModelFormatError:
        print("refused")
"""


def about(plan: bytes, key: str = "k") -> EngineFile:
    return make_engine_file(sha256=hashlib.sha256(plan).hexdigest(), build={"key": key})


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_both_files_are_written_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "a.engine"
    for plan in (PLAN, PLAN * 2):  # the second replaces the first
        place_engine(path, plan, about(plan))
        assert read_plan(path) == (about(plan), plan)
        assert names(tmp_path) == ["a.engine", "a.engine.json"]


def test_a_plan_that_is_not_the_jsons_is_not_written(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="expected a plan of sha256"):
        place_engine(tmp_path / "a.engine", PLAN, about(PLAN * 2))
    assert names(tmp_path) == []


def test_what_cannot_be_written_is_told_and_leaves_no_draft(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    for write in (
        lambda: place_engine(tmp_path / "a.engine", PLAN, about(PLAN)),
        lambda: write_whole(tmp_path / "b", PLAN),
    ):
        with pytest.raises(OutputError, match="No space left on device"):
            write()
    assert names(tmp_path) == []


@pytest.mark.parametrize(
    ("steps", "valid"),
    [
        (0, "old"),  # steps that happen before the kill: a draft of the plan,
        (1, "old"),  # a draft of the JSON,
        (2, "old"),  # the plan's rename: it is not what the old JSON says,
        (3, None),  # the JSON's rename,
        (4, "new"),  # the folder's sync
        (5, "new"),
    ],
)
def test_killed_after_any_step(
    steps: int, valid: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write_engine(tmp_path / "a.engine", about(PLAN, "old"))
    left = iter(range(steps))

    def counted(function: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any) -> Any:
            if next(left, None) is None:
                raise KilledError
            return function(*arguments)

        return call

    monkeypatch.setattr(files, "_write", counted(files._write))
    monkeypatch.setattr(os, "replace", counted(os.replace))
    monkeypatch.setattr(files, "sync_folder", counted(files.sync_folder))
    with pytest.raises(KilledError) if steps < 5 else nullcontext():
        place_engine(path, PLAN * 2, about(PLAN * 2, "new"))
    found = [key for key in ("old", "new") if current_engine(path, key) is not None]
    assert found == ([valid] if valid else [])


class KilledError(BaseException):
    """In place of kill -9, after which nothing else happens."""


def test_killed_while_it_writes(tmp_path: Path) -> None:
    """kill -9, fifty times: what is left is an engine that is whole, or one that is refused."""
    path = tmp_path / "a.engine"
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).resolve().parent.parent)}
    command = [sys.executable, "-c", KILLER, str(path), str(KILLS)]
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr
    seen = Counter(done.stdout.split())
    assert set(seen) <= {"whole", "refused"}
    assert sum(seen.values()) == KILLS
    assert seen["whole"] > 0
    place_engine(path, PLAN, about(PLAN))  # and the next build mends it
    assert read_plan(path)[1] == PLAN
    assert names(tmp_path) == ["a.engine", "a.engine.json"]  # the killed ones' drafts are gone


def test_drafts_of_running_writers_stay(tmp_path: Path) -> None:
    path = tmp_path / "a.engine"
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    for process in (ended.pid, os.getpid(), 1):  # 1 is somebody else's
        (tmp_path / f".a.engine.{process}.0f1e2d3c.tmp").touch()
        (tmp_path / f".b.engine.{process}.0f1e2d3c.tmp").touch()
    remove_leftovers(path)
    assert f".a.engine.{ended.pid}.0f1e2d3c.tmp" not in names(tmp_path)
    assert len(names(tmp_path)) == 5


@pytest.mark.parametrize("locks", [True, False])
def test_writers_side_by_side_leave_a_pair(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, locks: bool
) -> None:
    """Threads of one process, whose drafts have names of their own; without locks none fails."""
    if not locks:
        monkeypatch.setitem(sys.modules, "fcntl", None)
    path, place = tmp_path / "a.engine", os.replace

    def slowly(draft: Path, target: Path) -> None:
        place(draft, target)
        time.sleep(0.001)

    monkeypatch.setattr(os, "replace", slowly)

    def build(number: int) -> None:
        for _ in range(5):
            plan = PLAN + bytes([number])
            place_engine(path, plan, about(plan))

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(build, range(8)))
    assert names(tmp_path) == ["a.engine", "a.engine.json"]
    assert not locks or read_plan(path)[1][:-1] == PLAN


def test_a_folder_that_cannot_be_locked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As on some network drives."""

    def refuse(*_: object) -> None:
        raise OSError(9, "Bad file descriptor")

    monkeypatch.setattr(fcntl, "flock", refuse)
    place_engine(tmp_path / "a.engine", PLAN, about(PLAN))
    assert read_plan(tmp_path / "a.engine")[1] == PLAN


def test_only_the_same_whole_engine_is_current(tmp_path: Path) -> None:
    path = tmp_path / "a.engine"
    assert current_engine(path, "k") is None
    place_engine(path, PLAN, about(PLAN))
    assert current_engine(path, "k") == about(PLAN)
    assert current_engine(path, "other") is None
    path.write_bytes(PLAN[:-1])
    assert current_engine(path, "k") is None
    place_engine(path, PLAN, make_engine_file())  # not by cn2 build: it has no key
    assert current_engine(path, "k") is None
    sidecar_path(path).write_text("{")
    assert current_engine(path, "k") is None
