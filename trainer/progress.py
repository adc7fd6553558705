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
    TaskID,
    TextColumn,
)


class RunLog:
    """Appends one JSON object per line to a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def write(self, kind: str, **values: Any) -> None:
        """Append {"kind": kind, "time": seconds since the epoch, ...values}."""
        line = json.dumps({"kind": kind, "time": round(time.time(), 3), **values})
        with self.path.open("a", encoding="utf-8") as file:
            file.write(line + "\n")


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
    """Progress of one run on stderr."""

    def __init__(self, steps: int, silent: bool = False) -> None:
        self.steps = steps
        self.console = Console(file=sys.stderr, highlight=False, quiet=silent)
        self._bar: Progress | None = None
        self._task = TaskID(0)

    @contextmanager
    def running(self, first_step: int) -> Iterator[None]:
        """Show the bar while the block runs, where stderr is a terminal."""
        if not self.console.is_terminal:
            yield
            return
        columns = (MofNCompleteColumn(), BarColumn(20), TextColumn("{task.description}"))
        with Progress(*columns, console=self.console) as bar:
            self._task = bar.add_task("starting", total=self.steps, completed=first_step)
            self._bar = bar
            try:
                yield
            finally:
                self._bar = None

    def advance(self, step: int) -> None:
        """`step` steps are done."""
        if self._bar is not None:
            self._bar.update(self._task, completed=step)

    def show(self, step: int, losses: dict[str, float], images_per_s: float, left_s: float) -> None:
        """The mean losses of the last steps, images per second, seconds left."""
        terms = [f"{name} {value:.3f}" for name, value in group_losses(losses).items()]
        text = f"{' '.join(terms)}  {images_per_s:.1f} images/s  {clock(left_s)} left"
        if self._bar is None:
            self.say(f"step {step}/{self.steps}  {text}")
        else:
            self._bar.update(self._task, completed=step, description=text)

    def say(self, line: str) -> None:
        """One line, above the bar."""
        self.console.print(line, markup=False, soft_wrap=True)


def group_losses(losses: dict[str, float]) -> dict[str, float]:
    """The nine losses as five numbers for a person: their sum, and a sum for each kind."""
    kinds = ("heatmap", "regression", "class", "box")
    groups = {
        kind: sum(value for name, value in losses.items() if name.startswith(kind))
        for kind in kinds
    }
    return {"loss": sum(losses.values()), **groups}


def clock(seconds: float) -> str:
    """Hours, minutes, seconds as 1:02:03."""
    minutes, rest = divmod(int(seconds), 60)
    return f"{minutes // 60}:{minutes % 60:02d}:{rest:02d}"
