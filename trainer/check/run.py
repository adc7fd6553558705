"""The check itself: sources in, a report and a contact sheet out."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cn2.runtime.errors import AnnotationError, DependencyError, OutputError

from ..config import Config
from ..data.datasets import DataSource
from .contact_sheet import contact_sheet
from .findings import Findings
from .rules import check_boxes, check_classes, check_copies, check_pictures, check_sizes
from .scan import SetScan, scan_set
from .statistics import summarize

DECODE_SECONDS = 8.0  # for the pictures of each set
SAMPLES = 12  # pictures of each set on the sheet
FOLDER, REPORT, SHEET = "check", "report.json", "contact_sheet.jpg"


@dataclass(frozen=True, kw_only=True)
class Report:
    """What a check found, and where it is written."""

    sets: list[dict[str, Any]]
    findings: Findings
    seconds: float
    folder: Path

    @property
    def clean(self) -> bool:
        """Whether there is no error; warnings may be there."""
        return not self.findings.count("error")


def check_datasets(
    config: Config,
    train: Sequence[DataSource],
    val: DataSource,
    out: Path,
    *,
    decode_seconds: float = DECODE_SECONDS,
) -> Report:
    """Look at the data of a training; goes on behind what it can.

    Args:
        config: the sizes and limits that objects are held against.
        train: the sets to be joined.
        val: the set to score on.
        out: the run's folder; `check/report.json` and `check/contact_sheet.jpg` go there.
        decode_seconds: time for decoding pictures, of each set; headers of all are always read.
    Raises:
        OutputError: the folder cannot be written.
    """
    started = time.perf_counter()
    found = Findings()
    names = ["train", *(f"train {n}" for n in range(2, len(train) + 1))]
    trains = [_scan(name, one, config, found) for name, one in zip(names, train, strict=True)]
    scans = [scan for scan in trains if scan is not None]
    scored = _scan("val", val, config, found)
    everything = [*scans, *([scored] if scored else [])]
    sets = []
    for scan in everything:
        decoded = check_pictures(scan, found, decode_seconds)
        check_boxes(scan, found)
        check_sizes(scan, config, found)
        sets.append(summarize(scan, decoded))
    check_classes(scans, scored, found)
    check_copies(scans, scored, found)
    sheet = contact_sheet(everything, SAMPLES)
    seconds = time.perf_counter() - started
    report = Report(sets=sets, findings=found, seconds=seconds, folder=out / FOLDER)
    _write(report, sheet, config.preset)
    return report


def _scan(name: str, source: DataSource, config: Config, found: Findings) -> SetScan | None:
    """The set, or an error among the findings where it cannot be read at all."""
    complaints: list[str] = []
    scan = None
    try:
        scan = scan_set(name, source, config.train.resize, complaints)
    except (AnnotationError, DependencyError) as error:
        found.add("error", "unreadable", name, "annotations cannot be read", [str(error)])
    what = "annotation is broken; training refuses the set"
    found.add("error", "annotation", name, what, complaints)
    return scan


def _write(report: Report, sheet: bytes, preset: str) -> None:
    found = report.findings
    document = {
        "preset": preset,
        "errors": found.count("error"),
        "warnings": found.count("warning"),
        "seconds": round(report.seconds, 2),
        "sets": report.sets,
        "findings": found.as_records(),
    }
    try:
        report.folder.mkdir(parents=True, exist_ok=True)
        (report.folder / SHEET).write_bytes(sheet)
        text = json.dumps(document, indent=1, ensure_ascii=False) + "\n"
        (report.folder / REPORT).write_text(text, "utf-8", "backslashreplace")
    except OSError as error:
        raise OutputError(f"{report.folder}: cannot be written ({error.strerror})") from error
