"""benchmarks/gpu_steps.py: what a step of the GPU suite may cost, and that all are planned."""

from __future__ import annotations

import sys
import time
from pathlib import Path
from types import ModuleType

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
    monkeypatch: pytest.MonkeyPatch,
    code: str,
    ended: str,
    reason: str | None,
) -> None:
    steps = scripts["gpu_steps"]
    monkeypatch.setitem(steps.LIMITS_S, "torch", 5 if "sleep" in code else 30)
    job = make_job(scripts, tmp_path)
    rows = list(steps.run_step(job, time.monotonic() + 100, python(code)))
    assert rows[0] == {"kind": "row", "n": 1}
    assert (rows[-1]["kind"], rows[-1]["ended"]) == ("step", ended)
    said = [row["reason"] for row in rows if row["kind"] == "skip"]
    assert len(said) == (reason is not None)
    assert reason is None or said[0].startswith(reason)


def test_what_a_step_started_ends_with_it(
    scripts: dict[str, ModuleType], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    code = (
        "import subprocess, sys, time; "
        "child = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(60)']); "
        f"open({str(tmp_path / 'pid')!r}, 'w').write(str(child.pid)); time.sleep(60)"
    )
    monkeypatch.setitem(scripts["gpu_steps"].LIMITS_S, "torch", 5)
    job, deadline = make_job(scripts, tmp_path), time.monotonic() + 60
    list(scripts["gpu_steps"].run_step(job, deadline, python(code)))
    state = Path(f"/proc/{(tmp_path / 'pid').read_text()}/stat")
    end = time.monotonic() + 10
    while state.exists() and state.read_text().split()[2] != "Z" and time.monotonic() < end:
        time.sleep(0.05)
    assert not state.exists() or state.read_text().split()[2] == "Z"


def test_after_the_deadline_nothing_is_begun(
    scripts: dict[str, ModuleType], tmp_path: Path
) -> None:
    skip, step = scripts["gpu_steps"].run_step(make_job(scripts, tmp_path), time.monotonic() - 1)
    assert (skip["what"], step["ended"]) == ("torch, nano", "not begun")
    assert skip["reason"].startswith("the suite's time was up")


def test_the_plan_has_every_step_of_every_preset(
    scripts: dict[str, ModuleType], tmp_path: Path
) -> None:
    presets_, limits = scripts["gpu"].PRESETS, scripts["gpu_steps"].LIMITS_S
    assert set(presets_) == {"dla34-bifpn-p3", "dla34-bifpn-p5", "r50-fpn", "nano"}
    plan = scripts["gpu_steps"].make_plan(presets_, list(limits), make_job(scripts, tmp_path))
    names = [job.name for job in (*plan.side_by_side, *plan.one_by_one)]
    assert names[0] == "compile"
    assert len(names) == len(set(names)) == 1 + 3 * 4 + 1 + 4 * 4
    assert {job.step for job in plan.one_by_one} == set(limits) - {"compile", "export"}
    assert set(limits) == set(scripts["gpu_step"].STEPS)
    few = scripts["gpu_steps"].make_plan(["nano"], ["torch"], make_job(scripts, tmp_path))
    assert ([*few.side_by_side], [job.name for job in few.one_by_one]) == ([], ["torch, nano"])
    assert scripts["gpu"].LIMIT_S <= 8 * 60
