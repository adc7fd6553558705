"""The paper's tables with our runtimes, and which of its claims hold here, as Markdown.

Everything measured is read from benchmarks/results/paper_tables.json; no verdict is typed.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from functools import partial
from itertools import pairwise
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

from paper_tables_rows import BASELINE, TABLES, Claim, Row, Run, claims, controls

MISSING = "–"
FILE = "paper_tables.json"
COLUMNS = (
    "paper",
    "here",
    "proposals",
    "T_first, ms",
    "T_total, ms",
    "T_first, ratio",
    "T_total, ratio (least – most)",
    "authors' T_first / T_total, ms",
    "authors' AP",
    "AP here",
)
Found = dict[str, Any]


class Spread(NamedTuple):
    """A ratio of two times, over the rounds."""

    median: float
    least: float
    most: float

    def __str__(self) -> str:
        return f"{self.median:.2f} ({self.least:.2f} – {self.most:.2f})"


def paper_table(results: Path, number: int) -> str:
    """One of the paper's tables: what was measured here beside what the authors published."""
    document = read(results / FILE)
    lines: list[tuple[str, ...]] = [COLUMNS, ("---", "---", *["---:"] * (len(COLUMNS) - 2))]
    lines += [row_cells(row, document["runs"]) for row in TABLES[number]]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def row_cells(row: Row, runs: Found) -> tuple[str, ...]:
    """A row's cells; dashes where nothing was measured or found."""
    here = MISSING if row.run is None else name_cell(row.run)
    found = None if row.run is None else runs.get(row.run.name)
    first, total = (in_ms(row.published.first_ms), in_ms(row.published.total_ms))
    authors = (f"{first} / {total}", in_percent(row.published.ap))
    if row.run is None or found is None:
        return (
            row.label,
            here,
            *[MISSING] * 5,
            *authors,
            "not ours" if row.run is None else MISSING,
        )
    times = [f"{median(found[key]):.0f}" for key in ("first_ms", "total_ms")]
    ratios = [MISSING, MISSING]
    if BASELINE.name in runs:
        spreads = [spread(runs, BASELINE, row.run, key) for key in ("first_ms", "total_ms")]
        ratios = [f"{spreads[0].median:.2f}", str(spreads[1])]
    return (row.label, here, proposal_cell(found), *times, *ratios, *authors, "not measured")


def name_cell(run: Run) -> str:
    """The preset and the last of its settings; all are in docs/framework.md's list of ablations."""
    more = ["…"] if len(run.overrides) > 1 else []
    return " ".join([f"`{run.preset}`", *more, *(f"`{word}`" for word in run.overrides[-1:])])


def proposal_cell(found: Found) -> str:
    """How many came out; with how many could, where they are fewer."""
    asked, least = found["proposals_asked"], found["proposals"]
    if asked is None:
        return MISSING
    return str(asked) if least == asked else f"{least} of {asked}"


def in_ms(value: float | None) -> str:
    return MISSING if value is None else f"{value:.0f}"


def in_percent(value: float | None) -> str:
    return MISSING if value is None else f"{value:.1f}"


def spread(runs: Found, slow: Run, fast: Run, key: str = "total_ms") -> Spread:
    """fast : slow, round by round."""
    pairs = zip(runs[fast.name][key], runs[slow.name][key], strict=True)
    ratios = [a / b for a, b in pairs]
    return Spread(median(ratios), min(ratios), max(ratios))


def claim_table(results: Path) -> str:
    """Every claim about speed, and whether it holds here."""
    document = read(results / FILE)
    lines: list[tuple[str, ...]] = [
        ("the paper says", "authors, ms", "here: time, ratio (least – most)", "verdict")
    ]
    lines += [("---", "---", "---", "---")]
    lines += [claim_cells(claim, document["runs"]) for claim in claims()]
    table = "\n".join(f"| {' | '.join(line)} |" for line in lines)
    return f"{table}\n\n{footnote(document)}"


def claim_cells(claim: Claim, runs: Found) -> tuple[str, ...]:
    """A claim's cells."""
    authors = MISSING
    if claim.published_ms is not None:
        times = [f"{value:.0f}" for value in claim.published_ms]
        authors = f"{' → '.join(times)}: {claim.published_ms[-1] / claim.published_ms[0]:.2f}"
    if any(run.name not in runs for run in claim.runs):
        return claim.text, authors, MISSING, "not measured"
    steps = [spread(runs, *pair) for pair in pairs_of(claim.runs)]
    return claim.text, authors, "; ".join(map(str, steps)), verdict(steps)


def pairs_of(runs: Sequence[Run]) -> list[tuple[Run, Run]]:
    """Each run and the next one."""
    return list(pairwise(runs))


def verdict(steps: Sequence[Spread]) -> str:
    """Whether every step is faster than the one before it.

    It holds if every median is below 1. Where a range has 1 in it, the rounds do not agree.
    """
    failing = [step for step in steps if step.median >= 1]
    if failing:
        word, agreed = "does not hold", any(step.least >= 1 for step in failing)
    else:
        word, agreed = "holds", all(step.most < 1 for step in steps)
    return word if agreed else f"{word} in the median; ranges overlap, the rounds disagree"


def footnote(document: Found) -> str:
    """What the figures are of."""
    if not document["runs"]:
        return "Nothing measured yet: `python benchmarks/paper_tables.py`."
    machine, runs = document["machine"], document["runs"]
    canvases = sorted({run["canvas"] for run in runs.values()})
    rounds = document["rounds"]
    sentences = [
        f"Median of {rounds} round{'s' * (rounds > 1)} of every detector in turn, eager PyTorch "
        f"{document['versions']['torch']}, {document['device']}, {clock_words(document)}, batch 1, "
        f"canvas to detections; canvases {', '.join(canvases)}.",
        f"{machine['cpu']}, {machine['cores']} cores, load {machine['load_average_before']} before "
        f"and {document['load_average_after']} after.",
        "Ratios are to `faster-rcnn-r50-fpn` in the same round, those of a claim to its own "
        "slower side. Weights are random, scaled so that features have unit variance, and no score "
        "passes the last threshold: the last suppression has nothing to do in any detector, "
        "which spares one-stage detectors their only one; on the other side they sort the scores "
        "of every class and cell, where implementations with a threshold sort those above it.",
    ]
    short = sum(run["proposals"] != run["proposals_asked"] for run in runs.values())
    sentences.append(
        f"In {short} of {len(runs)} runs fewer proposals came out than asked for."
        if short
        else "As many proposals came out as were asked for."
    )
    return " ".join([*sentences, *noise_words(runs)])


def clock_words(document: Found) -> str:
    """What tells the time."""
    if document["device"] == "cpu":
        threads = document["threads"]
        return f"{threads} thread{'s' * (threads > 1)}, the process's own time"
    return "time on the wall, the GPU waited for at the end of each stage"


def noise_words(runs: Found) -> list[str]:
    """How far runs that compute as much differ, if they were measured."""
    pairs = [pair for pair in controls() if all(run.name in runs for run in pair)]
    if not pairs:
        return []
    spreads = [spread(runs, *pair) for pair in pairs]
    middle = max(abs(1 - one.median) for one in spreads)
    worst = max(max(1 - one.least, one.most - 1) for one in spreads)
    return [
        f"Noise: {len(pairs)} pairs that compute as much (a loss, the score's formula) differ "
        f"by up to {middle:.0%} in the median and {worst:.0%} in a single round."
    ]


PAGE_TABLES: dict[str, Callable[[Path], str]] = {
    **{f"paper-{number}": partial(paper_table, number=number) for number in TABLES},
    "paper-claims": claim_table,
}
"""What docs/framework.md shows, by the names of its markers."""


def show(results: Path) -> str:
    """All tables and claims, as printed."""
    parts = [f"Table {number}\n\n{paper_table(results, number)}" for number in TABLES]
    return "\n\n".join([*parts, f"Claims\n\n{claim_table(results)}"])


def read(path: Path) -> Found:
    """The result file; no runs where nothing has been measured."""
    if not path.is_file():
        return {"runs": {}}
    found: Found = json.loads(path.read_text("utf-8"))
    return found
