"""The tables of docs/zoo.md: the official models, and antialiased against linear resize."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from zoo_models import ZOO, OfficialModel

MISSING = "–"
ZOO_COLUMNS = (
    "official model",
    "preset",
    "parameters, M",
    "canvas",
    "GMAC",
    "ONNX, MB",
    "CPU, ms",
    "network alone, ms",
    "mAP",
    "Titan Xp, images/s",
    "Titan RTX, images/s",
    "licence",
)
RESIZE_COLUMNS = (
    "detector",
    "weights",
    "480x640 becomes",
    "grey levels, mean / largest",
    "detections, antialias / linear / both",
    "score, median / 90 %",
    "box px, median / 90 %",
    "AP, antialias / linear",
    "resize ms, antialias / linear",
    "whole, linear : antialias",
)


def zoo_table(results: Path) -> str:
    """The sixteen models; dashes where nothing was measured or published."""
    found = read(results / "zoo.json").get("presets", {})
    lines = [" | ".join(ZOO_COLUMNS), " | ".join(["---", "---", *["---:"] * 9, "---"])]
    lines += [" | ".join(zoo_cells(model, found.get(model.preset))) for model in ZOO]
    table = "\n".join(f"| {line} |" for line in lines)
    return f"{table}\n\n{zoo_footnote(found)}"


def zoo_cells(model: OfficialModel, row: dict[str, Any] | None) -> list[str]:
    """One row: ours measured, theirs as published."""
    published = [
        MISSING if value is None else f"{value:g}"
        for value in (model.ap, model.titan_xp, model.titan_rtx)
    ]
    measured = [MISSING] * 6
    if row is not None:
        measured = [
            f"{row['parameters'] / 1e6:.1f}",
            "x".join(str(side) for side in row["canvas"]),
            f"{row['gmacs']:.1f}",
            f"{row['onnx_bytes'] / 1e6:.0f}",
            f"{row['whole_ms']['median']:.0f}",
            f"{row['network_ms']['median']:.0f}",
        ]
    return [f"`{model.config}`", f"`{model.preset}`", *measured, *published, model.license]


def zoo_footnote(found: dict[str, dict[str, Any]]) -> str:
    """What was measured on what, and what was not."""
    sentences = []
    machines = {
        f"{row['machine']['cpu']}, {row['threads']} thread{'s' if row['threads'] > 1 else ''}, "
        f"ONNX Runtime {row['versions']['onnxruntime']}"
        for row in found.values()
    }
    if machines:
        runs = sorted({row["runs"] for row in found.values()})
        calls = " to ".join(str(count) for count in dict.fromkeys([runs[0], runs[-1]]))
        sentences.append(f"CPU: {'; '.join(sorted(machines))}; median of {calls} calls.")
    absent = dict.fromkeys(model.preset for model in ZOO if model.preset not in found)
    if absent:
        names = ", ".join(f"`{preset}`" for preset in absent)
        sentences.append(f"Not measured yet: {names}.")
    return " ".join(sentences)


def resize_table(results: Path) -> str:
    """A row per detector and canvas."""
    found = read(results / "resize.json")
    if not found:
        return "Not measured yet."
    lines = [" | ".join(RESIZE_COLUMNS), " | ".join(["---"] * 2 + ["---:"] * 8)]
    lines += [" | ".join(resize_cells(row)) for row in found["rows"]]
    table = "\n".join(f"| {line} |" for line in lines)
    return f"{table}\n\n{resize_footnote(found)}"


def resize_cells(row: dict[str, Any]) -> list[str]:
    """One row; AP where the weights were trained."""
    coco, scenes, time = row["coco"], row["scenes"], row["time"]
    kinds = ("antialias", "linear")
    spreads = [spread(coco["score_difference"], 3), spread(coco["box_px"], 2)]
    resize = [time[kind]["latency_ms"]["preprocess"]["median"] for kind in kinds]
    counts = [*(coco["detections"][kind] for kind in kinds), coco["in_both"]]
    return [
        f"`{row['preset']}`",
        "trained" if row["weights"] == "trained" else "random",
        "x".join(str(side) for side in row["resized"]),
        f"{row['grey_levels']['mean']:.1f} / {row['grey_levels']['max']}",
        " / ".join(str(count) for count in counts),
        *spreads,
        MISSING if scenes is None else " / ".join(f"{scenes[kind]['AP']:.3f}" for kind in kinds),
        " / ".join(f"{value:.1f}" for value in resize),
        f"{time['whole_ratio']:.2f}",
    ]


def spread(values: dict[str, float] | None, digits: int) -> str:
    """Median and 90th percentile, as a cell."""
    if values is None:
        return MISSING
    return f"{values['median']:.{digits}f} / {values['p90']:.{digits}f}"


def resize_footnote(found: dict[str, Any]) -> str:
    """What the figures are of."""
    machine, rows = found["machine"], found["rows"]
    threads = sorted({row["time"]["linear"]["threads"] for row in rows})
    scenes = sorted({row["scenes"]["scenes"] for row in rows if row["scenes"] is not None})
    pictures = sorted({row["coco"]["pictures"] for row in rows})
    return (
        f"{join(pictures)} COCO pictures, detections above each detector's own threshold; a pair "
        f"is of one class and overlaps by {found['same_iou']:g} or more. AP on {join(scenes)} "
        f"held-out scenes. Times in turns, {machine['cpu']}, threads: {join(threads)}, load "
        f'{machine["load_average_before"]} before; "whole" is from JPEG file to detections.'
    )


def join(values: list[int]) -> str:
    """Numbers as text; a dash for none."""
    return ", ".join(str(value) for value in values) or MISSING


def read(path: Path) -> dict[str, Any]:
    """One result file; empty where it is not there."""
    found: dict[str, Any] = json.loads(path.read_text("utf-8")) if path.is_file() else {}
    return found
