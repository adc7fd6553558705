"""Running the steps of the GPU suite: each in a process of its own, within its time."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from itertools import repeat
from pathlib import Path
from typing import IO

from gpu_job import Job, Row, skip
from gpu_plan import LEAST_S, LIMITS_S, PREPARING_S, Stage

STEP = Path(__file__).resolve().parent / "gpu_step.py"
ROOT = STEP.parent.parent
BUILD = ROOT / "build" / "cuda"
STAMP = BUILD / "compiled.json"  # there if the last `compile` succeeded: for which GPU
DRY_ARCHITECTURE = "86"  # where there is no GPU to compile for
SLOW_MACHINE = 10  # times as long may a step of a dry run take
NO_TIME = "no time left; run it with fewer --presets or --steps"
ENDING_S = 10  # that a process may take to end when it is killed


def run_plan(
    stages: Sequence[Stage],
    workers: int,
    deadline: float,
    tell: Callable[[str], None],
    *,
    run: Callable[[Job, float], Iterator[Row]] | None = None,
    now: Callable[[], float] = time.monotonic,
) -> Iterator[Row]:
    """Run all steps, each within its limit; what no longer fits is skipped.

    Args:
        workers: processes side by side, where nothing is timed.
        deadline: of `now`.
        tell: takes a line about each step that ends.
        run: does a job in so many seconds; None: `run_step`.
    Yields:
        The steps' rows, and a row "step" for each: how it ended and how long it took.
    """

    def do(job: Job, end: float) -> list[Row]:
        limit_s = min(patience(job) * LIMITS_S[job.step], end - now())
        rows = list((run or run_step)(job, limit_s) if limit_s >= LEAST_S else not_begun(job))
        tell(describe(rows))
        return rows

    for stage in stages:
        end = min(deadline, now() + patience(next(stage.jobs)) * PREPARING_S)
        with ThreadPoolExecutor(workers) as pool:
            for rows in pool.map(do, stage.side_by_side, repeat(end)):
                yield from rows
        for job in stage.one_by_one:
            yield from do(job, deadline)


def patience(job: Job) -> int:
    """How many times its limit a step may take."""
    return SLOW_MACHINE if job.dry_run else 1


def not_begun(job: Job) -> Iterator[Row]:
    """Rows of a step that does not fit."""
    yield skip(job.name, NO_TIME)
    yield {"kind": "step", "step": job.name, "seconds": 0.0, "ended": "not begun"}


def run_step(job: Job, limit_s: float, command: Sequence[str] = ()) -> Iterator[Row]:
    """Run a step in a process of its own, and end it and all that it started at its limit.

    Yields:
        Its rows, also those from before it died; why it ended early, if it did; a row "step".
    """
    begin = time.monotonic()
    words = [*(command or (sys.executable, str(STEP))), *job.words()]
    with tempfile.TemporaryFile() as said, tempfile.TemporaryFile() as rows:
        process = subprocess.Popen(
            words,
            stdout=rows,
            stderr=said,
            start_new_session=True,
            cwd=ROOT,
            env=os.environ | library_folder(job),
        )
        try:
            status = process.wait(limit_s)
            ended = "done" if status == 0 else f"died with {status}"
        except subprocess.TimeoutExpired:
            ended = f"stopped after {limit_s:.0f} s"
        finally:
            end_session(process)
        yield from read_rows(rows)
        if ended != "done":
            yield skip(f"the rest of {job.name}", f"{ended}; {last_line(said)}")
    seconds = round(time.monotonic() - begin, 2)
    yield {"kind": "step", "step": job.name, "seconds": seconds, "ended": ended}


def library_folder(job: Job) -> dict[str, str]:
    """Where a step finds the native libraries: what `compile` has built whole, and for this GPU.

    What a dry run has compiled, for a GPU that need not be there, is good for a dry run.
    """
    try:
        architecture = json.loads(STAMP.read_text())["architecture"]
    except (OSError, ValueError, KeyError):
        return {}
    fits = job.dry_run or architecture != DRY_ARCHITECTURE
    return {"CN2_LIBRARY_DIR": str(BUILD)} if fits else {}


def end_session(process: subprocess.Popen[bytes]) -> None:
    """End a step and all that it has started; one that hangs in the driver is left there."""
    with suppress(ProcessLookupError):  # all are gone
        os.killpg(process.pid, signal.SIGKILL)
    with suppress(subprocess.TimeoutExpired):
        process.wait(ENDING_S)


def read_rows(file: IO[bytes]) -> Iterator[Row]:
    """The whole lines; a process that is ended may leave half of one."""
    file.seek(0)
    for line in file.read().decode("utf-8", "replace").splitlines(keepends=True):
        if line.endswith("\n") and line.startswith("{"):
            yield json.loads(line)


def last_line(file: IO[bytes]) -> str:
    """What a step said last."""
    file.seek(0)
    lines = file.read().decode("utf-8", "replace").strip().splitlines()
    return lines[-1].strip() if lines else "it said nothing"


def describe(rows: Sequence[Row]) -> str:
    """A line of progress about a step."""
    step = rows[-1]
    measured = sum(row["kind"] in ("row", "kernel") for row in rows)
    skipped = sum(row["kind"] == "skip" for row in rows)
    return (
        f"{step['step']}: {step['ended']} in {step['seconds']:.1f} s, {measured} rows, "
        f"{skipped} skipped"
    )
