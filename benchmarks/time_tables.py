"""The tables "Where the time goes" of docs/training.md, from benchmarks/results/training.json."""

from __future__ import annotations

from typing import Any

from step_clock import GROUPS, PHASES


def speed_table(found: dict[str, Any]) -> list[list[str]]:
    """A row per preset and device: speed of the model, its phases, speed of the loader."""
    rows = [
        ["preset", "on", "batch", "images/s", *PHASES, "loader, images/s", "with `cache_mb`"],
    ]
    for row in found["rows"]:
        speed, loader = speed_name(row), row["loader"]
        rows.append(
            [
                f"`{row['preset']}`",
                row["device"],
                str(row["batch"]),
                f"{row[speed]:.2g}",
                *(f"{row['share'][phase]:.0%}" for phase in PHASES),
                f"{loader['plain'][speed]:.0f}",
                f"{loader['cached'][speed]:.0f}",
            ]
        )
    return rows


def group_table(found: dict[str, Any]) -> list[list[str]]:
    """A row per preset and device: each part's share of a step, forward and backward together."""
    rows = [["preset", "on", *GROUPS, "step"]]
    for row in found["rows"]:
        shares = [*(row["groups"][group]["share"] for group in GROUPS), row["share"]["step"]]
        cells = [f"{share:.0%}" for share in shares]
        rows.append([f"`{row['preset']}`", row["device"], *cells])
    return rows


def speed_name(row: dict[str, Any]) -> str:
    """On a CPU the time that the process had counts, on a GPU that on the wall."""
    return "images_per_s" if row["device"] == "cpu" else "images_per_s_wall"


def footnote(found: dict[str, Any]) -> str:
    """What the figures are of."""
    machine, rows = found["machine"], found["rows"]
    canvases = [f"`{row['preset']}` {', '.join(row['canvases'])}" for row in rows]
    threads = sorted({row["threads"] for row in rows})
    sentences = [
        f"BCCD, random weights; canvases: {'; '.join(canvases)}.",
        f"{machine['cpu']}, {machine['cores']} cores, threads: {', '.join(map(str, threads))}, "
        f"torch {found['versions']['torch']}, load {machine['load_average_before']} before.",
        *(f"Not measured: {one['what']} ({one['reason']})." for one in found["skipped"]),
    ]
    return " ".join(sentences)
