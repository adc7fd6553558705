"""What a training run tells: a bar on a terminal, plain lines elsewhere, JSON lines in a file."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn
from rich.progress import TimeRemainingColumn


class RunLog:
    """Appends one JSON object per line to `log.jsonl`; each line is whole or absent."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def write(self, kind: str, **values: Any) -> None:
        """Append a line: {"kind": kind, "time": seconds since the epoch, ...values}."""
        line = json.dumps({"kind": kind, "time": round(time.time(), 3), **values})
        with self.path.open("a", encoding="utf-8") as file:
            file.write(line + "\n")


class Reporter:
    """Progress of one run on stderr."""

    def __init__(self, steps: int) -> None:
        self.steps = steps
        self.console = Console(file=sys.stderr, highlight=False)
        self.bar: Progress | None = None
        self.task = TaskID(0)

    @contextmanager
    def running(self, first_step: int) -> Iterator[Reporter]:
        """Show the bar while the block runs, where stderr is a terminal."""
        if not self.console.is_terminal:
            yield self
            return
        columns = (
            TextColumn("step"),
            MofNCompleteColumn(),
            BarColumn(),
            TextColumn("{task.description}"),
            TimeRemainingColumn(),
        )
        with Progress(*columns, console=self.console) as self.bar:
            self.task = self.bar.add_task("starting", total=self.steps, completed=first_step)
            yield self
        self.bar = None

    def advance(self, step: int) -> None:
        """`step` steps are done."""
        if self.bar is not None:
            self.bar.update(self.task, completed=step)

    def show(self, step: int, losses: dict[str, float], images_per_s: float, left_s: float) -> None:
        """The mean losses of the last steps, images per second, seconds left."""
        parts = group_losses(losses)
        text = " ".join(f"{name} {value:.3f}" for name, value in parts.items())
        text = f"{text}  {images_per_s:.1f} images/s"
        if self.bar is not None:
            self.bar.update(self.task, completed=step, description=text)
        else:
            self.say(f"step {step}/{self.steps}  {text}  {_clock(left_s)} left")

    def say(self, line: str) -> None:
        """One line, above the bar."""
        console = self.console if self.bar is None else self.bar.console
        console.print(line, markup=False, soft_wrap=True)


def group_losses(losses: dict[str, float]) -> dict[str, float]:
    """The nine losses as five numbers for a person: total, heat map, regression, class, box."""
    groups = {"loss": sum(losses.values())}
    for group in ("heatmap", "regression", "class", "box"):
        groups[group] = sum(v for name, v in losses.items() if name.startswith(group))
    return groups


def _clock(seconds: float) -> str:
    hours, rest = divmod(int(seconds), 3600)
    return f"{hours}:{rest // 60:02d}:{rest % 60:02d}"
