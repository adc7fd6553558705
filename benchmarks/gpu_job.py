"""What a step of the GPU suite is given, and the rows that it gives back, a JSON line each."""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

Row = dict[str, Any]
# Where a timed call begins, a row's `starts_at`: pictures it still resizes, canvases it does not.
PICTURE, CANVAS = "picture on the device", "canvas on the device"
HOST_PICTURE, HOST_CANVAS = "picture on the host", "canvas on the host"


@dataclass(frozen=True, kw_only=True)
class Job:
    """One step on one preset."""

    step: str
    """Its name, as "torch"."""
    preset: str
    folder: Path
    """Where the steps leave files for each other."""
    form: str = ""
    """Of an export: standard, fused, fp16."""
    batches: Sequence[int] = (1, 16)
    runs: int = 100
    images: Path | None = None
    """Pictures; None: those of `models.find_pictures`."""
    device: str = "cuda"
    """Or "cpu", which tries the suite itself; there are no CUDA graphs then."""
    dry_run: bool = False
    """Do all but what needs a GPU."""

    @property
    def name(self) -> str:
        """The step and what it is about, as "export fp16, r50-fpn"."""
        return ", ".join(filter(None, (f"{self.step} {self.form}".strip(), self.preset)))

    def file(self, name: str) -> Path:
        """A file of this preset."""
        return self.folder / self.preset / name

    def words(self) -> list[str]:
        """The job as the command line that `read_job` reads."""
        words = [self.step, "--preset", self.preset, "--folder", str(self.folder)]
        words += ["--device", self.device, "--runs", str(self.runs)]
        words += ["--batches", *map(str, self.batches)]
        words += ["--form", self.form] if self.form else []
        words += ["--images", str(self.images)] if self.images else []
        return words + (["--dry-run"] if self.dry_run else [])


def read_job(arguments: Sequence[str]) -> Job:
    """The job of a command line."""
    parser = argparse.ArgumentParser(description="one step of benchmarks/gpu.py, for itself")
    parser.add_argument("step")
    parser.add_argument("--preset", default="")
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--form", default="")
    parser.add_argument("--batches", nargs="+", type=int, default=[1, 16])
    parser.add_argument("--runs", type=int, default=100)
    parser.add_argument("--images", type=Path)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--dry-run", action="store_true")
    return Job(**vars(parser.parse_args(arguments)))


def skip(what: str, reason: object) -> Row:
    """A row that says what was not done, and why, in one line."""
    text = " ".join(str(reason).split()) or type(reason).__name__
    return {"kind": "skip", "what": what, "reason": text[:500]}


def attempt(what: str, rows: Callable[[], Iterator[Row]]) -> Iterator[Row]:
    """The rows of one thing that is tried; where it fails, a skip with the reason."""
    try:
        yield from rows()
    except Exception as error:  # of five libraries, which share no base
        yield skip(what, error)


def write_row(row: Row) -> None:
    """One line on stdout, at once: a step that dies later has not done it for nothing."""
    print(json.dumps(row), flush=True)
