"""The table of docs/engines.md: engines of TensorRT-RTX, their times, sizes and audits."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

COLUMNS = (
    "detector",
    "precision",
    "canvas",
    "for",
    "build, CPU s",
    "engine, MB",
    "ONNX, MB",
    "G multiply-adds",
    "of them fp16",
    "plugins",
)


def engine_table(results: Path) -> str:
    """A row per engine of engines.json, and what it was measured on; without it the head alone."""
    path = results / "engines.json"
    found = json.loads(path.read_text("utf-8")) if path.is_file() else None
    rows = [] if found is None else [_cells(row) for row in found["rows"]]
    lines = [f"| {' | '.join(line)} |" for line in (COLUMNS, ("---",) * len(COLUMNS), *rows)]
    return "\n".join(lines if found is None else [*lines, "", _footnote(found)])


def _cells(row: dict[str, Any]) -> tuple[str, ...]:
    height, width = row["canvas"]
    return (
        f"`{row['preset']}`",
        row["precision"],
        f"{height}x{width}",
        ", ".join(target.removeprefix("sm_") for target in row["targets"]),
        f"{row['cpu_seconds']:.1f}",
        f"{row['engine_mb']:.0f}",
        f"{row['onnx_mb']:.0f}",
        f"{sum(row['audit']['multiply_adds'].values()) / 1e9:.1f}",
        f"{row['audit']['fp16_share']:.1%}",
        str(sum(row["plugins"].values())),
    )


def _footnote(found: dict[str, Any]) -> str:
    machine, version = found["machine"], found["versions"]["tensorrt-rtx"]
    return (
        f"TensorRT-RTX {version}, {machine['cpu']}, {machine['cores']} cores, shared with other "
        f"work; random weights but for `nano`."
    )
