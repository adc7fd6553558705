"""The table of docs/kernels.md: what the native libraries cost to build, and their sizes."""

from __future__ import annotations

import json
from pathlib import Path


def native_build_table(results: Path) -> str:
    """A row per library and one of the time; a column with and one without CUDA."""
    path = results / "native_build.json"
    if not path.is_file():
        return "Not measured yet."
    found = json.loads(path.read_text("utf-8"))
    rows = found["rows"]
    lines = [["", *(row["kind"] for row in rows)], ["---", *["---:"] * len(rows)]]
    lines.append(["processor time, s", *(str(row["processor_s"]) for row in rows)])
    for name in sorted({name for row in rows for name in row["bytes"]}):
        sizes = (row["bytes"].get(name) for row in rows)
        lines.append([f"`{name}`, MB", *("–" if s is None else f"{s / 1e6:.2f}" for s in sizes)])
    table = "\n".join(f"| {' | '.join(line)} |" for line in lines)
    targets = ", ".join(f"sm_{a.split('-')[0]}" for a in rows[-1]["architectures"])
    machine = found["machine"]
    return f"{table}\n\n{machine['cores']} cores of {machine['cpu']}; {targets}, and PTX."
