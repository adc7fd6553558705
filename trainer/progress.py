"""What a training run tells: a bar on a terminal, plain lines elsewhere, JSON lines in a file."""

from __future__ import annotations

import json
import math
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    TaskID,
    TextColumn,
)
from rich.table import Column

from cn2.runtime.errors import OutputError

from .files import write_whole


class RunLog:
    """Appends one JSON object per line to a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def write(self, kind: str, **values: Any) -> None:
        """Append {"kind": kind, "time": seconds since the epoch, ...values}."""
        line = json.dumps({"kind": kind, "time": round(time.time(), 3), **values})
        try:
            with self.path.open("a", encoding="utf-8") as file:
                file.write(line + "\n")
        except OSError as error:
            raise _unwritable(self.path, error) from None

    def rewind(self, step: int) -> None:
        """Forget the rows after a step, and a torn last line, before anything is written.

        A run that was killed at step 130 and goes on from its state of step 100 takes steps 101 to
        130 anew. The file is replaced in one move: whoever reads it sees the old or the new one.
        A row without a step is kept.

        Raises:
            ValueError: a line before the last one is no row.
            OutputError: the file cannot be written.
        """
        if not self.path.is_file():
            return
        text = self.path.read_text(encoding="utf-8", errors="replace")
        kept = [line for line, row in _rows(text, self.path) if row.get("step", 0) <= step]
        new = "".join(f"{line}\n" for line in kept)
        if new != text:
            write_whole(self.path, new.encode())


def read_log(path: Path) -> list[dict[str, Any]]:
    """The rows of a run's log; a last line that a kill tore is left out.

    Raises:
        ValueError: a line before the last one is no JSON object; the message names it.
    """
    if not path.exists():
        return []
    return [row for _, row in _rows(path.read_text(encoding="utf-8", errors="replace"), path)]


def _rows(text: str, path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """Each line and the object that it holds."""
    lines = text.split("\n")  # the last one is empty, or torn, or lacks its end alone
    for number, line in enumerate(lines, 1):
        row = _parsed(line)
        if row is not None:
            yield line, row
        elif number < len(lines):
            raise ValueError(
                f"{path}, line {number}: expected a JSON object, got {line[:40]!r}; "
                "was the file edited? remove the line"
            )


def _parsed(line: str) -> dict[str, Any] | None:
    try:
        row = json.loads(line)
    except json.JSONDecodeError:
        return None
    return row if isinstance(row, dict) else None


def _unwritable(path: Path, error: OSError) -> OutputError:
    return OutputError(f"{path}: cannot be written ({error.strerror})")


class StepMeter:
    """Sums over the steps since the last report: losses, pictures, time, time spent waiting."""

    def __init__(self) -> None:
        self._last = time.perf_counter()
        self.clear()

    def clear(self) -> None:
        """Begin anew, after a report."""
        self._sums: dict[str, float] = {}
        self._norms = self._seconds = self._waited = 0.0
        self._good = self._pictures = 0

    def data_arrived(self) -> None:
        """The next batch is here; since the last step we waited for it."""
        self._waited += self._lap()

    def step_done(self, losses: dict[str, float], norm: float, pictures: int) -> None:
        """Count a step; one without a finite gradient counts in time only."""
        self._lap()
        self._pictures += pictures
        if math.isfinite(norm):
            self._good += 1
            self._norms += norm
            self._sums = {name: self._sums.get(name, 0.0) + v for name, v in losses.items()}

    def resume_clock(self) -> None:
        """What lay between (scoring, saving) is no step's time."""
        self._last = time.perf_counter()

    def _lap(self) -> float:
        now = time.perf_counter()
        seconds, self._last = now - self._last, now
        self._seconds += seconds
        return seconds

    def summary(self) -> dict[str, Any]:
        """Means over the good steps, rounded: loss, losses, gradient_norm; and the speed."""
        steps = max(self._good, 1)
        seconds = max(self._seconds, 1e-9)
        return {
            "loss": round(sum(self._sums.values()) / steps, 6),
            "losses": {name: round(value / steps, 6) for name, value in self._sums.items()},
            "gradient_norm": round(self._norms / steps, 6),
            "images_per_s": round(self._pictures / seconds, 3),
            "waited_for_data": round(self._waited / seconds, 4),  # share of the time
        }


class Reporter:
    """Progress of one run on stderr; the silent ones of all processes but the first say nothing."""

    def __init__(self, steps: int, *, silent: bool = False) -> None:
        self.steps = steps
        self.console = Console(file=sys.stderr, highlight=False, quiet=silent)
        self._bar: Progress | None = None
        self._task = TaskID(0)

    @contextmanager
    def running(self, first_step: int) -> Iterator[None]:
        """Show the bar while the block runs, where stderr is a terminal."""
        if self.console.quiet or not self.console.is_terminal:
            yield
            return
        with Progress(*self._columns(), console=self.console) as bar:
            self._task = bar.add_task("starting", total=self.steps, completed=first_step)
            self._bar = bar
            try:
                yield
            finally:
                self._bar = None

    def _columns(self) -> tuple[ProgressColumn, ...]:
        """Steps, bar, text; on a narrow terminal the bar goes first, then the text's end."""
        count = Column(no_wrap=True, min_width=2 * len(str(self.steps)) + 1)
        text = Column(no_wrap=True, overflow="ellipsis")
        return (
            MofNCompleteColumn(table_column=count),
            BarColumn(10),
            TextColumn("{task.description}", table_column=text),
        )

    def advance(self, step: int) -> None:
        """`step` steps are done."""
        if self._bar is not None:
            self._bar.update(self._task, completed=step)

    def show(
        self,
        step: int,
        losses: dict[str, float],
        images_per_s: float,
        left_s: float,
        *,
        rate: float | None = None,
        at_least: bool = False,
    ) -> None:
        """Tell of the last steps.

        Args:
            step: steps done.
            losses: means by name.
            images_per_s: over all processes.
            left_s: seconds until the run ends.
            rate: the learning rate.
            at_least: `left_s` lacks something that is not known yet.
        """
        terms = [f"{name} {value:.3f}" for name, value in group_losses(losses).items()]
        rates = [] if rate is None else [f"rate {rate:.2g}"]
        left = f"{'at least ' if at_least else ''}{clock(left_s)} left"
        parts = [" ".join(terms), *rates, f"{images_per_s:.1f} images/s", left]
        if self._bar is None:
            self.say(f"step {step}/{self.steps}  {'  '.join(parts)}")
        else:
            text = "  ".join(reversed(parts))  # what matters most stays on a narrow terminal
            self._bar.update(self._task, completed=step, description=text)

    def say(self, line: str) -> None:
        """One line, above the bar."""
        self.console.print(line, markup=False, soft_wrap=True)


def group_losses(losses: dict[str, float]) -> dict[str, float]:
    """The losses as few numbers for a person: their sum, and one for each kind.

    What stands behind the last underscore (heatmap_positive, class_0) tells those of a kind apart.
    """
    groups: dict[str, float] = {}
    for name, value in losses.items():
        kind = name.rpartition("_")[0] or name
        groups[kind] = groups.get(kind, 0.0) + value
    return {"loss": sum(losses.values()), **groups}


def clock(seconds: float) -> str:
    """Hours, minutes, seconds as 1:02:03."""
    minutes, rest = divmod(int(seconds), 60)
    return f"{minutes // 60}:{minutes % 60:02d}:{rest:02d}"
