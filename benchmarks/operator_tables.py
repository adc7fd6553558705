"""The table of docs/operators.md: how much longer the standard forms of each operator take."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

MISSING = "–"


def operator_table(results: Path) -> str:
    """A row per operator and size; a column per number of threads and form."""
    path = results / "operators.json"
    if not path.is_file():
        return "Not measured yet."
    found = json.loads(path.read_text("utf-8"))
    rows, threads = found["rows"], sorted({row["threads"] for row in found["rows"]})
    forms = list(dict.fromkeys(form for row in rows for form in row["ratio"]))
    columns = [f"{form}, {count_threads(n)}" for n in threads for form in forms]
    heads = ["operator", "proposals", "classes", *columns]
    lines = [heads, ["---", *["---:"] * (len(heads) - 1)]]
    for sizes in dict.fromkeys(sizes_of(row) for row in rows):
        own = {row["threads"]: row["ratio"] for row in rows if sizes_of(row) == sizes}
        cells = [ratio(own.get(n, {}).get(form)) for n in threads for form in forms]
        lines.append([f"`{sizes[0]}`", *(str(size or MISSING) for size in sizes[1:]), *cells])
    table = "\n".join(f"| {' | '.join(line)} |" for line in lines)
    return f"{table}\n\n{footnote(found)}"


def sizes_of(row: dict[str, Any]) -> tuple[str, int, int]:
    """What tells a row from those of other sizes; 0 classes where there are none."""
    return row["operator"], row["proposals"], row["classes"] or 0


def ratio(value: float | None) -> str:
    """A cell."""
    return MISSING if value is None else f"{value:.1f}"


def count_threads(count: int) -> str:
    """ "1 thread" or "2 threads"."""
    return f"{count} thread{'s' if count > 1 else ''}"


def footnote(found: dict[str, Any]) -> str:
    """What the figures are of, and what was asked."""
    machine, runs = found["machine"], sorted({row["runs"] for row in found["rows"]})
    verdicts = "; ".join(
        f"{one['what']}: at least {one['least']:.1f}, needed {one['needed']:.1f}"
        for one in found["verdicts"]
    )
    return (
        f"Time of a standard form in times of the fused operator's, medians of "
        f"{' or '.join(map(str, runs))} calls in turns, the call of ONNX Runtime "
        f"{found['versions']['onnxruntime']} included (CPU time with one thread, else the clock); "
        f"{machine['cpu']}, load {machine['load_average_before']} before. Least of all rows, "
        f"against the best standard form: {verdicts}."
    )
