"""The report of a check on a terminal."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from rich.console import Console, Group
from rich.table import Table
from rich.text import Text

from .findings import Finding, Findings

CLASSES_SHOWN = 20
EXAMPLES_SHOWN, SHORT = 2, 40  # lines; characters of an example that shares its line
PIPE_WIDTH = 160  # columns where there is no terminal
COLORS = {"error": "red", "warning": "yellow", "note": "dim"}


def print_report(sets: Sequence[dict[str, Any]], found: Findings) -> None:
    """Sets, classes and findings, to stdout."""
    console = Console(highlight=False)
    if not console.is_terminal:
        console = Console(highlight=False, width=PIPE_WIDTH)
    console.print(report_tables(sets, found))


def report_tables(sets: Sequence[dict[str, Any]], found: Findings) -> Group:
    """The three tables."""
    return Group(set_table(sets), "", class_table(sets), "", finding_table(found))


def _table(left: Sequence[str], right: Sequence[str] = ()) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold")
    for name in left:
        table.add_column(name, overflow="fold")
    for name in right:
        table.add_column(name, justify="right", no_wrap=True)
    return table


def set_table(sets: Sequence[dict[str, Any]]) -> Table:
    """A row for each thing told of a set, a column for each set."""
    table = _table(["set"], [one["set"] for one in sets])
    for label, key in (
        ("format", "format"),
        ("pictures", "pictures"),
        ("  decoded for this check", "decoded"),
        ("  without objects", "without_objects"),
        ("objects", "objects"),
        ("  most in one picture", "most_objects"),
        ("crowd regions", "crowds"),
    ):
        table.add_row(label, *(str(one[key]) for one in sets))
    for name in ("smallest", "median", "largest"):
        sizes = [one["picture_sizes"][name] for one in sets]
        table.add_row(f"picture, {name}", *("-" if s is None else f"{s[0]}x{s[1]}" for s in sizes))
    for name, limit in (("small", "below 32² px"), ("medium", "to 96² px"), ("large", "above")):
        counts = [one["objects_by_area"][name] for one in sets]
        table.add_row(f"objects, {name} ({limit})", *map(str, counts))
    for label, key in (
        ("object size, px: 5 / 50 / 95 %", "object_px"),
        ("  at the training size", "object_px_at_training_size"),
    ):
        table.add_row(label, *(_percentiles(one[key]) for one in sets))
    return table


def _percentiles(values: dict[str, float] | None) -> str:
    return "-" if values is None else " / ".join(f"{value:.0f}" for value in values.values())


def class_table(sets: Sequence[dict[str, Any]]) -> Table:
    """Objects of each class in each set, the most frequent first, with its share."""
    counts: dict[str, list[int]] = {}
    for column, one in enumerate(sets):
        for row in one["classes"]:
            counts.setdefault(row["name"], [0] * len(sets))[column] += row["objects"]
    totals = [max(one["objects"], 1) for one in sets]
    table = _table(["class"], [f"{one['set']} objects" for one in sets])
    ordered = sorted(counts.items(), key=lambda item: (-item[1][0], -sum(item[1]), item[0]))
    for name, row in ordered[:CLASSES_SHOWN]:
        cells = [f"{n} {n / of:6.1%}" for n, of in zip(row, totals, strict=True)]
        table.add_row(Text(name), *cells)
    rest = [row for _, row in ordered[CLASSES_SHOWN:]]
    if rest:
        table.add_row(f"{len(rest)} more classes", *(str(sum(n)) for n in zip(*rest, strict=True)))
    return table


def finding_table(found: Findings) -> Table | Text:
    """A row for each finding, with the first examples below it."""
    if not list(found):
        return Text("nothing found that needs a look", style="green")
    table = _table(["", "set"], ["count"])
    table.add_column("what", overflow="fold")
    for one in found:
        what = Text(one.what)
        what.append("".join(f"\n  {line}" for line in example_lines(one)), style="dim")
        severity = Text(one.severity, style=COLORS[one.severity])
        table.add_row(severity, one.set, str(one.count), what)
    return table


def example_lines(finding: Finding) -> list[str]:
    """The first examples: short ones on one line, long ones on a line each; of notes none."""
    if finding.severity == "note":
        return []
    if all(len(example) < SHORT for example in finding.examples):
        dots = [", …"] if finding.count > len(finding.examples) else []
        return ["".join([", ".join(finding.examples), *dots])]
    dots = ["…"] if finding.count > EXAMPLES_SHOWN else []
    return [*finding.examples[:EXAMPLES_SHOWN], *dots]
