"""The targets of the GPU suite, and whether each was reached: of what was measured alone."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from gpu_job import Row

PRESET = "dla34-bifpn-p3"
LATENCY_MS, SPEEDUP, THROUGHPUT, OVER_TORCHVISION, MATCHED = 2.0, 10.0, 2000.0, 3.0, 0.99
SUPPRESSIONS = ("ProposalNMS", "DetectionNMS")
EAGER = "torch eager"


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
        *matches(rows),
    ]


def latency(rows: Sequence[Row]) -> Row:
    """The quickest fp16 way from a picture in device memory to detections."""
    best = min(_timed(rows, batch=1), key=_median, default=None)
    target = f"{PRESET} fp16, batch 1: at most {LATENCY_MS:g} ms"
    value = None if best is None else _median(best)
    return verdict(target, value, value is not None and value <= LATENCY_MS, best)


def speedup(rows: Sequence[Row]) -> Row:
    """The same, against the quicker one of eager fp32 and fp16."""
    best = min(_timed(rows, batch=1), key=_median, default=None)
    eager = [
        row
        for row in rows
        if (row["preset"], row["implementation"], row["batch"]) == (PRESET, EAGER, 1) and row["ms"]
    ]
    target = f"{PRESET} fp16, batch 1: at least {SPEEDUP:g} times as fast as torch eager"
    if best is None or not eager:
        return verdict(target, None, False, best)
    value = min(map(_median, eager)) / _median(best)
    return verdict(target, round(value, 2), value >= SPEEDUP, best)


def throughput(rows: Sequence[Row]) -> Row:
    """Images a second at batch 16."""
    best = max(_timed(rows, batch=16), key=lambda row: row["images_per_s"], default=None)
    value = None if best is None else best["images_per_s"]
    target = f"{PRESET} fp16, batch 16: at least {THROUGHPUT:g} images/s"
    return verdict(target, value, value is not None and value >= THROUGHPUT, best)


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


def matches(rows: Sequence[Row]) -> Iterator[Row]:
    """Of each preset: the worst share of the CPU's fp32 detections that an fp16 way finds."""
    presets = dict.fromkeys(row["preset"] for row in rows) or {PRESET: None}
    for preset in presets:
        checked = [
            row
            for row in rows
            if row["preset"] == preset
            and row["precision"] == "fp16"
            and (row["check"] or {}).get("matched") is not None
        ]
        worst = min(checked, key=lambda row: row["check"]["matched"], default=None)
        value = None if worst is None else worst["check"]["matched"]
        target = f"{preset} fp16: at least {MATCHED:.0%} of fp32's detections at IoU 0.9"
        yield verdict(target, value, value is not None and value >= MATCHED, worst)


def verdict(target: str, value: float | None, reached: bool, row: Row | None) -> Row:
    """A target, what was measured of it, and by what."""
    what = None
    if row is not None and value is not None:
        names = ("implementation", "precision", "layout", "shape", "batch", "weights")
        what = ", ".join(f"{name} {row[name]}" for name in names if row.get(name) not in (None, ""))
    words = {True: "reached", False: "not reached"}[reached]
    return {
        "target": target,
        "verdict": "not measured" if value is None else words,
        "value": value,
        "by": what,
    }


def _timed(rows: Sequence[Row], batch: int) -> list[Row]:
    return [
        row
        for row in rows
        if (row["preset"], row["precision"], row["batch"]) == (PRESET, "fp16", batch)
        and row["ms"]
        and row["implementation"] != EAGER
    ]


def _median(row: Row) -> float:
    return float(row["ms"]["median"])


def _ratio(row: Row) -> float:
    return float(row["torchvision_us"] / row["us"])
