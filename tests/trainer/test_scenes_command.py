"""`cn2 scenes`: the result on stdout, progress on stderr."""

from __future__ import annotations

from pathlib import Path

import pytest

from command_line import cn2


@pytest.mark.parametrize("terminal", [True, False])
def test_progress_goes_to_stderr(
    terminal: bool,
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv("FORCE_COLOR", raising=False)
    if terminal:
        monkeypatch.setenv("FORCE_COLOR", "1")  # rich then takes a pipe for a terminal
    out = tmp_path / "new" / "s"
    ran = cn2(capfd, "scenes", out, "--count", 2, "--processes", 1)
    assert ran.code == 0
    assert ran.out == f"2 pictures, {out / 'annotations.json'}\n"
    assert bool(ran.notes) is terminal
