"""The table of docs/operators.md: whole detectors by kernels, bodies and the standard form."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

COLUMNS = (
    "detector",
    "proposals",
    "classes",
    "scores above",
    "standard, ms",
    "bodies : standard",
    "kernels : standard",
)


def fused_table(results: Path) -> str:
    """A row per case of fused.json; the head alone where that is not there."""
    path = results / "fused.json"
    cases = json.loads(path.read_text("utf-8"))["cases"] if path.is_file() else {}
    lines = [COLUMNS, ("---",) * len(COLUMNS), *(_cells(row) for row in cases.values())]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _cells(row: dict[str, Any]) -> tuple[str, ...]:
    ratio = row["ratio"]
    return (
        f"`{row['preset']}`",
        str(row["proposals"] or "–"),
        str(row["classes"]),
        f"{row['score_threshold']:g}",
        f"{row['graph_ms']['standard']['median']:.0f}",
        f"{ratio['bodies']:.2f}",
        f"{ratio['kernels']:.2f}",
    )
