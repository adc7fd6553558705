"""The targets of the GPU suite, and whether each was reached: of what was measured alone."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from gpu_job import PICTURE, Row

PRESET = "dla34-bifpn-p3"
LATENCY_MS, SPEEDUP, THROUGHPUT, OVER_TORCHVISION, MATCHED = 2.0, 10.0, 2000.0, 3.0, 0.99
SUPPRESSIONS = ("ProposalNMS", "DetectionNMS")
EAGER = "torch eager"
RANDOM = "random weights"


def find_verdicts(rows: Sequence[Row], kernels: Sequence[Row]) -> list[Row]:
    """A row per target.

    Args:
        rows: of the detectors.
        kernels: of the kernels alone.
    """
    return [
        latency(rows),
        speedup(rows),
        throughput(rows),
        *(over_torchvision(name, kernels) for name in ("PyramidRoIAlign", *SUPPRESSIONS)),
        *(one for precision in ("fp32", "fp16") for one in matches(rows, precision)),
    ]


def latency(rows: Sequence[Row]) -> Row:
    """The quickest fp16 way from a picture in device memory to detections."""
    target = f"{PRESET} fp16, batch 1: at most {LATENCY_MS:g} ms from the picture"
    timed, why = _timed(rows, batch=1)
    best = min(timed, key=_median, default=None)
    value = None if best is None else _median(best)
    return verdict(target, value, not why and value is not None and value <= LATENCY_MS, best, why)


def speedup(rows: Sequence[Row]) -> Row:
    """The same, against the quicker one of eager fp32 and fp16, if it begins at the same place."""
    target = f"{PRESET} fp16, batch 1: at least {SPEEDUP:g} times as fast as torch eager"
    timed, why = _timed(rows, batch=1)
    best = min(timed, key=_median, default=None)
    eager = [
        row
        for row in rows
        if (row["preset"], row["implementation"], row["batch"]) == (PRESET, EAGER, 1) and row["ms"]
    ]
    alike = [row for row in eager if best and row["starts_at"] == best["starts_at"]]
    if best is None or not alike:
        why = why or ("torch eager begins elsewhere" if best and eager else "")
        return verdict(target, None, False, best, why)
    value = min(map(_median, alike)) / _median(best)
    return verdict(target, round(value, 2), not why and value >= SPEEDUP, best, why)


def throughput(rows: Sequence[Row]) -> Row:
    """Images a second at batch 16."""
    target = f"{PRESET} fp16, batch 16: at least {THROUGHPUT:g} images/s from the pictures"
    timed, why = _timed(rows, batch=16)
    best = max(timed, key=lambda row: row["images_per_s"], default=None)
    value = None if best is None else best["images_per_s"]
    return verdict(target, value, not why and value is not None and value >= THROUGHPUT, best, why)


def over_torchvision(kernel: str, kernels: Sequence[Row]) -> Row:
    """The worst ratio over all shapes and batches."""
    target = f"{kernel}: at least {OVER_TORCHVISION:g} times as fast as torchvision.ops"
    both = [
        row for row in kernels if row["kernel"] == kernel and row["us"] and row["torchvision_us"]
    ]
    worst = min(both, key=_ratio, default=None)
    value = None if worst is None else round(_ratio(worst), 2)
    is_right = all(row["right"] for row in both)
    reached = value is not None and value >= OVER_TORCHVISION and is_right
    return verdict(target, value, reached, worst)


def matches(rows: Sequence[Row], precision: str) -> Iterator[Row]:
    """Of each preset: the worst share of detections that the CPU's fp32 and a way have in common.

    Random weights score all nearly alike, so rounding decides what is kept: nothing is said then.
    """
    presets = dict.fromkeys(row["preset"] for row in rows) or {PRESET: None}
    for preset in presets:
        checked = [
            row
            for row in rows
            if (row["preset"], row["precision"]) == (preset, precision) and _share(row) is not None
        ]
        trained = [row for row in checked if not _is_random(row)]
        worst = min(trained, key=_share, default=None)
        value = None if worst is None else _share(worst)
        why = RANDOM if checked and not trained else ""
        target = f"{preset} {precision}: at least {MATCHED:.0%} of fp32's detections at IoU 0.9"
        yield verdict(target, value, value is not None and value >= MATCHED, worst, why)


def verdict(target: str, value: float | None, reached: bool, row: Row | None, why: str = "") -> Row:
    """A target, what was measured of it, by what, and why it is not reached or not measured."""
    what = None
    if row is not None and value is not None:
        names = ("implementation", "precision", "starts_at", "layout", "shape", "batch", "weights")
        what = ", ".join(f"{name} {row[name]}" for name in names if row.get(name) not in (None, ""))
    words = {True: "reached", False: "not reached"}[reached]
    words = "not measured" if value is None else words
    return {
        "target": target,
        "verdict": f"{words} ({why})" if why else words,
        "value": value,
        "by": what,
    }


def _timed(rows: Sequence[Row], batch: int) -> tuple[list[Row], str]:
    """The fp16 rows that count, from pictures and right; or wrong ones, or none, and why."""
    timed = [
        row
        for row in rows
        if (row["preset"], row["precision"], row["batch"]) == (PRESET, "fp16", batch)
        and row["ms"]
        and row["implementation"] != EAGER
    ]
    pictures = [row for row in timed if row["starts_at"] == PICTURE]
    if timed and not pictures:
        return [], f"none begins with the {PICTURE}"
    shares = [(row, [*_shares(row, rows)]) for row in pictures]
    right = [row for row, all_ in shares if all_ and min(all_) >= MATCHED]
    if right or not pictures:
        return right, ""
    wrong = [row for row, all_ in shares if all_]
    return wrong, f"it finds less than {MATCHED:.0%}" if wrong else "nothing says that it is right"


def _shares(row: Row, rows: Sequence[Row]) -> Iterator[float]:
    """What checks say of the way that a row went, also of other presets: some weights are random.

    Such a way is an implementation, a precision, a layout and a batch.
    """
    for one in rows:
        share = _share(one)
        if _way(one) == _way(row) and share is not None and not _is_random(one):
            yield share


def _way(row: Row) -> tuple[object, ...]:
    return tuple(row.get(name) for name in ("implementation", "precision", "layout", "batch"))


def _share(row: Row) -> Any:
    return (row["check"] or {}).get("matched")


def _is_random(row: Row) -> bool:
    return row.get("weights") == "random"


def _median(row: Row) -> float:
    return float(row["ms"]["median"])


def _ratio(row: Row) -> float:
    return float(row["torchvision_us"] / row["us"])
