"""The GPU suite's plan and what a step may cost: what is most valuable is done, whatever hangs."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

from gpu_suite import make_job, scripts

__all__ = ["scripts"]


def test_words_of_a_job_are_read_back(scripts: dict[str, ModuleType], tmp_path: Path) -> None:
    job_type, read = scripts["gpu_job"].Job, scripts["gpu_job"].read_job
    for changes in ({}, {"images": tmp_path, "dry_run": True, "form": "fp16", "device": "cpu"}):
        job = job_type(step="torch", preset="nano", folder=tmp_path, batches=[1, 4], **changes)
        assert read(job.words()) == job


def python(code: str) -> list[str]:
    return [sys.executable, "-c", code]


ROW = 'print(\'{"kind": "row", "n": 1}\', flush=True); '


@pytest.mark.parametrize(
    ("code", "ended", "reason"),
    [
        (ROW + "import os; os.abort()", "died with -6", "died with -6; it said nothing"),
        (ROW + "import time; time.sleep(60)", "stopped after 5 s", "stopped after 5 s; it said"),
        (ROW + "1 / 0", "died with 1", "died with 1; ZeroDivisionError: division by zero"),
        (ROW + "print('{\"kind\": ', end='')", "done", None),
        (ROW + "print('a library says hello')", "done", None),
    ],
)
def test_a_step_that_dies_or_hangs_costs_itself_alone(
    scripts: dict[str, ModuleType],
    tmp_path: Path,
    code: str,
    ended: str,
    reason: str | None,
) -> None:
    limit_s = 5 if "sleep" in code else 30
    rows = list(scripts["gpu_steps"].run_step(make_job(scripts, tmp_path), limit_s, python(code)))
    assert rows[0] == {"kind": "row", "n": 1}
    assert (rows[-1]["kind"], rows[-1]["ended"]) == ("step", ended)
    said = [row["reason"] for row in rows if row["kind"] == "skip"]
    assert len(said) == (reason is not None)
    assert reason is None or said[0].startswith(reason)


def test_what_a_step_started_ends_with_it(scripts: dict[str, ModuleType], tmp_path: Path) -> None:
    code = (
        "import subprocess, sys, time; "
        "child = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(60)']); "
        f"open({str(tmp_path / 'pid')!r}, 'w').write(str(child.pid)); time.sleep(60)"
    )
    list(scripts["gpu_steps"].run_step(make_job(scripts, tmp_path), 5, python(code)))
    state = Path(f"/proc/{(tmp_path / 'pid').read_text()}/stat")
    end = time.monotonic() + 10
    while state.exists() and state.read_text().split()[2] != "Z" and time.monotonic() < end:
        time.sleep(0.05)
    assert not state.exists() or state.read_text().split()[2] == "Z"


def test_a_process_that_cannot_be_killed_is_left(
    scripts: dict[str, ModuleType], monkeypatch: pytest.MonkeyPatch
) -> None:
    """As one that hangs in the driver: it neither ends nor keeps the suite."""
    killed: list[int] = []

    class Stuck:
        pid = 77

        def wait(self, timeout: float) -> int:
            raise subprocess.TimeoutExpired("step", timeout)

    monkeypatch.setattr(scripts["gpu_steps"].os, "killpg", lambda pid, _: killed.append(pid))
    scripts["gpu_steps"].end_session(Stuck())
    assert killed == [77]


class Clock:
    """Time that passes only in jobs, of which each takes a share of what it is given."""

    def __init__(self, share: float) -> None:
        self.share, self.seconds = share, 1000.0
        self.done: list[Any] = []

    def now(self) -> float:
        return self.seconds

    def run(self, job: Any, limit_s: float) -> Iterator[dict[str, Any]]:
        assert limit_s > 0
        self.seconds += self.share * limit_s
        self.done.append(job)
        yield {"kind": "step", "step": job.name, "seconds": limit_s, "ended": "done"}


def run_suite(
    scripts: dict[str, ModuleType], tmp_path: Path, clock: Clock, workers: int
) -> list[dict[str, Any]]:
    """All rows of the suite; with one process side by side, so that the order is one."""
    gpu, plan = scripts["gpu"], scripts["gpu_plan"]
    steps = list(plan.LIMITS_S)
    stages = plan.make_plan(gpu.PRESETS, steps, workers, make_job(scripts, tmp_path))
    deadline = clock.now() + gpu.LIMIT_S - gpu.COLLECTING_S
    return list(
        scripts["gpu_steps"].run_plan(
            stages, 1, deadline, lambda _: None, run=clock.run, now=clock.now
        )
    )


@pytest.mark.parametrize("workers", [1, 14])
def test_where_every_step_hangs_the_most_valuable_ones_had_their_time(
    scripts: dict[str, ModuleType], tmp_path: Path, workers: int
) -> None:
    clock = Clock(share=1.0)
    rows = run_suite(scripts, tmp_path, clock, workers)
    assert clock.seconds - 1000 <= scripts["gpu"].LIMIT_S == 480
    measuring = [job for job in clock.done if job.step not in ("compile", "export")]
    assert [job.name for job in measuring][:3] == [
        *("kernels", "tensorrt, dla34-bifpn-p3", "tensorrt, nano")
    ]
    assert clock.done[0].step == "compile"
    skipped = [row for row in rows if row["kind"] == "skip"]
    assert {row["reason"].partition(";")[0] for row in skipped} == {"no time left"}
    ended = [row for row in rows if row["kind"] == "step"]
    assert len(skipped) == len([row for row in ended if row["ended"] == "not begun"])
    assert len(ended) == len({row["step"] for row in ended}) == 1 + 4 * 3 + 1 + 4 * 5


def test_steps_that_are_quick_are_all_done(scripts: dict[str, ModuleType], tmp_path: Path) -> None:
    """Of the targets' preset before the others'; each file before what reads it."""
    clock = Clock(share=0.1)
    assert all(row["kind"] == "step" for row in run_suite(scripts, tmp_path, clock, 2))
    names = [job.name for job in clock.done]
    assert names.index("onnxruntime, nano") < names.index("tensorrt, r50-fpn")
    for preset in scripts["gpu"].PRESETS:
        exports = [names.index(f"export {form}, {preset}") for form in ("standard", "fp16")]
        assert max(exports) < names.index(f"tensorrt, {preset}")


def test_little_time_is_not_enough_to_begin(scripts: dict[str, ModuleType], tmp_path: Path) -> None:
    steps, clock = scripts["gpu_steps"], Clock(share=1.0)
    stages = scripts["gpu_plan"].make_plan(
        ["nano"], ["torch", "libcn2"], 2, make_job(scripts, tmp_path)
    )
    end = clock.now() + scripts["gpu_plan"].LIMITS_S["torch"] + 14
    said: list[str] = []
    rows = list(steps.run_plan(stages, 1, end, said.append, run=clock.run, now=clock.now))
    assert [(row["kind"], row.get("ended")) for row in rows] == [
        *(("step", "done"), ("skip", None), ("step", "not begun"))
    ]
    assert len(said) == 2


def test_kernels_that_were_not_compiled_now_are_not_checked(
    scripts: dict[str, ModuleType], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nor put behind torch: what an earlier build has left may be of other sources."""
    monkeypatch.setattr(scripts["gpu_steps"], "STAMP", tmp_path / "compiled.json")
    library = tmp_path / "libcn2_kernels_cuda_tests.so"
    library.write_text("an older one")
    for module in (scripts["gpu_kernels"], scripts["gpu_torch"]):
        monkeypatch.setattr(module, "LIBRARY", library)
    job = make_job(scripts, tmp_path, "kernels")
    (row,) = scripts["gpu_kernels"].check_kernels(job)
    assert row["reason"] == f"{library.name} is not compiled; see the step compile"
    exported = SimpleNamespace(facts={})
    rows = scripts["gpu_torch"].variant_rows(job, exported, None, "fp16", "NCHW")
    with pytest.raises(FileNotFoundError, match="is not compiled; see the step compile"):
        next(rows)


def test_idle_processors_export_the_later_presets(
    scripts: dict[str, ModuleType], tmp_path: Path
) -> None:
    """While the kernels are compiled; a machine with few processors does the needed ones first."""
    make, job = scripts["gpu_plan"].make_plan, make_job(scripts, tmp_path)
    presets, steps = scripts["gpu"].PRESETS, list(scripts["gpu_plan"].LIMITS_S)
    for workers, counts in {1: [7, 3, 3], 9: [7, 3, 3], 10: [10, 0, 3], 40: [13, 0, 0]}.items():
        stages = make(presets, steps, workers, job)
        assert [len(stage.side_by_side) for stage in stages] == counts
        assert {one.preset for one in stages[0].side_by_side[:7]} == {"", *presets[:2]}


def test_the_plan_has_every_step_of_every_preset(
    scripts: dict[str, ModuleType], tmp_path: Path
) -> None:
    presets_, limits = scripts["gpu"].PRESETS, scripts["gpu_plan"].LIMITS_S
    make = scripts["gpu_plan"].make_plan
    assert set(presets_) == {"dla34-bifpn-p3", "dla34-bifpn-p5", "r50-fpn", "nano"}
    stages = make(presets_, list(limits), 8, make_job(scripts, tmp_path))
    names = [job.name for stage in stages for job in stage.jobs]
    assert names[0] == "compile"
    assert len(names) == len(set(names)) == 1 + 3 * 4 + 1 + 4 * 5
    assert {job.step for stage in stages for job in stage.jobs} == set(limits)
    assert set(limits) == set(scripts["gpu_step"].STEPS)
    (few,) = make(["nano"], ["torch"], 8, make_job(scripts, tmp_path))
    assert ([*few.side_by_side], [job.name for job in few.one_by_one]) == ([], ["torch, nano"])
