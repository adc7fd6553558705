"""The tables of docs/precision.md: what fp16 costs in AP, and which share of detections stays."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

MISSING = "–"
PICTURES = {"scenes": "held-out scenes", "bccd": "BCCD, test pictures"}
AP_COLUMNS = ("`nano` on", "pictures", "AP fp32", "AP fp16", "drop", "95 % of draws", "AP50")
SHARE_COLUMNS = (
    *("detector", "weights", "pictures", "fp32's detections found", "of those above 0.3"),
    *("largest score difference", "largest fp16 value", "MB fp32", "MB fp16"),
)


def fp16_ap_table(results: Path) -> str:
    """A row per set of pictures that nano's weights were trained for."""
    found = _read(results)
    rows = {name: row for name, row in found.get("rows", {}).items() if "AP" in row}
    if not rows:
        return "Not measured yet."
    lines = [AP_COLUMNS, ("---", *["---:"] * (len(AP_COLUMNS) - 1))]
    for name, row in rows.items():
        score, low_high = row["AP"], row["AP"]["drop_interval_95"]
        interval = " to ".join(f"{side:+.4f}" for side in low_high)
        fifty = " / ".join(f"{row['AP50'][kind]:.4f}" for kind in ("fp32", "fp16"))
        cells = [f"{score[kind]:.4f}" for kind in ("fp32", "fp16")]
        drop = f"{score['drop']:+.4f}"
        lines.append((PICTURES[name], str(row["pictures"]), *cells, drop, interval, fifty))
    draws = sorted({row["AP"]["draws"] for row in rows.values()})
    verdicts = {
        "each drop is": [row["AP"]["drop"] for row in rows.values()],
        "each interval ends": [row["AP"]["drop_interval_95"][1] for row in rows.values()],
    }
    told = "; ".join(
        f"{what} {'within' if max(values) <= found['wanted_drop'] else 'beyond'} it"
        for what, values in verdicts.items()
    )
    return (
        f"{_table(lines)}\n\nA drop of at most {found['wanted_drop']:g} was asked for: {told}. "
        f"The interval is that of {' or '.join(map(str, draws))} draws of as many pictures with "
        f"replacement, the same for both files. {_machine(rows)}"
    )


def fp16_share_table(results: Path) -> str:
    """A row per detector and set of pictures."""
    rows = _read(results).get("rows", {})
    if not rows:
        return "Not measured yet."
    lines = [SHARE_COLUMNS, ("---", "---", *["---:"] * (len(SHARE_COLUMNS) - 2))]
    for name, row in rows.items():
        trained = name in PICTURES
        largest = row["largest_value"]
        lines.append(
            (
                "`nano`" if trained else f"`{name}`",
                f"{row['checkpoint']}, {PICTURES[name]}" if trained else "random",
                str(row["compared_pictures"]),
                *(_share(one) for one in row["matched_of_fp32"].values()),
                f"{row['gate']['largest_score_difference']:.4f}",
                f"{largest['value']:.0f}",
                f"{row['fp32_mb']:.1f}",
                f"{row['fp16_mb']:.1f}",
            )
        )
    return _table(lines)


def group_norm_text(results: Path) -> str:
    """What GroupNorm's inputs of the trained detectors add up to."""
    rows = {n: r for n, r in _read(results).get("rows", {}).items() if "group_norm" in r}
    if not rows:
        return "Not measured yet."
    parts = [
        f"{row['group_norm']['sum_of_squares']:,.0f} ({PICTURES[name]}; largest value "
        f"{row['group_norm']['value']:.0f})"
        for name, row in rows.items()
    ]
    return f"Largest sum of squares of a group in `nano`: {', '.join(parts)}; fp16 ends at 65,504."


def _share(one: dict[str, Any]) -> str:
    if one["share"] is None:
        return MISSING
    return f"{one['share']:.2%} of {one['detections']}"


def _machine(rows: dict[str, Any]) -> str:
    first = next(iter(rows.values()))
    tools = first["versions"]
    return f"Emulated in ONNX Runtime {tools['onnxruntime']} on {first['machine']['cpu']}."


def _read(results: Path) -> dict[str, Any]:
    path = results / "fp16.json"
    found: dict[str, Any] = json.loads(path.read_text("utf-8")) if path.is_file() else {}
    return found


def _table(lines: list[tuple[str, ...]]) -> str:
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)
