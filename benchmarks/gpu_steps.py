"""The steps of the GPU suite: which there are, and running each in a process with a limit."""

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
from dataclasses import dataclass
from pathlib import Path

from gpu_job import Job, Row, skip

STEP = Path(__file__).resolve().parent / "gpu_step.py"
ROOT = STEP.parent.parent
BUILD = ROOT / "build" / "cuda"
STAMP = BUILD / "compiled.json"  # there if the last `compile` succeeded: for which GPU
DRY_ARCHITECTURE = "86"  # where there is no GPU to compile for
FORMS = ("standard", "fused", "fp16")
LIMITS_S = {  # of one step; the suite's own limit cuts them, too
    "compile": 240,
    "kernels": 90,
    "export": 180,
    "torch": 100,
    "onnxruntime": 60,
    "libcn2": 45,
    "tensorrt": 90,
}
SLOW_MACHINE = 10  # times as long may a step of a dry run take
ON_GPU = ("torch", "onnxruntime", "libcn2", "tensorrt")


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What is to be done, in this order."""

    side_by_side: Sequence[Job]
    one_by_one: Sequence[Job]


def make_plan(presets: Sequence[str], steps: Sequence[str], like: Job) -> Plan:
    """The jobs of some presets.

    Args:
        steps: those of LIMITS_S that are wanted.
        like: all that is the same for each job.
    """

    def job(step: str, preset: str = "", form: str = "") -> Job:
        return Job(**{**vars(like), "step": step, "preset": preset, "form": form})

    # The largest files first: the last one to end decides how long it takes.
    exports = [job("export", preset, form) for preset in presets for form in reversed(FORMS)]
    return Plan(
        side_by_side=[*([job("compile")] if "compile" in steps else []), *exports]
        if "export" in steps
        else [job("compile")] * ("compile" in steps),
        one_by_one=[
            *([job("kernels")] if "kernels" in steps else []),
            *(job(step, preset) for preset in presets for step in ON_GPU if step in steps),
        ],
    )


def run_plan(
    plan: Plan, workers: int, deadline: float, tell: Callable[[str], None]
) -> Iterator[Row]:
    """Run all steps; what is left at the deadline is skipped.

    Args:
        workers: processes side by side, where nothing is timed.
        deadline: of `time.monotonic`.
        tell: takes a line about each step that ends.
    Yields:
        The steps' rows, and a row "step" for each: how it ended and how long it took.
    """

    def run(job: Job) -> list[Row]:
        rows = list(run_step(job, deadline))
        tell(describe(rows))
        return rows

    with ThreadPoolExecutor(workers) as pool:
        for rows in pool.map(run, plan.side_by_side):
            yield from rows
    for job in plan.one_by_one:
        yield from run(job)


def run_step(job: Job, deadline: float, command: Sequence[str] = ()) -> Iterator[Row]:
    """Run a step in a process of its own.

    Yields:
        Its rows, also those from before it died; why it ended early, if it did; a row "step".
    """
    patience = SLOW_MACHINE if job.dry_run else 1
    limit_s = min(patience * LIMITS_S[job.step], deadline - time.monotonic())
    begin = time.monotonic()
    if limit_s <= 0:
        yield skip(job.name, "the suite's time was up; run it with fewer --presets or --steps")
        yield {"kind": "step", "step": job.name, "seconds": 0.0, "ended": "not begun"}
        return
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
    """End a step and all that it has started."""
    with suppress(ProcessLookupError):  # all are gone
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def read_rows(file: tempfile._TemporaryFileWrapper[bytes]) -> Iterator[Row]:  # type: ignore[type-arg]
    """The whole lines; a process that is ended may leave half of one."""
    file.seek(0)
    for line in file.read().decode("utf-8", "replace").splitlines(keepends=True):
        if line.endswith("\n") and line.startswith("{"):
            yield json.loads(line)


def last_line(file: tempfile._TemporaryFileWrapper[bytes]) -> str:  # type: ignore[type-arg]
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
