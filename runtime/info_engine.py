"""`cn2 info` of an engine: what stands beside the plan; nothing looks into the plan itself."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

from .engine_file import read_engine
from .info_facts import input_facts, origin_facts, output_facts


def inspect_engine(path: Path) -> dict[str, Any]:
    """The manifest, and `engine`: all else that MODEL.engine.json says (docs/json.md).

    Raises:
        ModelFormatError: a file is missing, torn or not ours, or the plan has another hash.
    """
    values = asdict(read_engine(path))
    return {"manifest": values.pop("manifest"), "engine": values}


def engine_facts(report: dict[str, Any]) -> dict[str, str]:
    """The report in words."""
    manifest, engine = report["manifest"], report["engine"]
    profiles = {f"profile {n}": _profile(p) for n, p in enumerate(engine["profiles"])}
    return {
        **input_facts(manifest),
        "operators": manifest["ops"],
        "built by": f"{engine['runtime']} {engine['version']}",
        "runs on": ", ".join(engine["targets"])
        + (f" (built on {engine['device']})" if engine["device"] else ""),
        **profiles,
        **output_facts(manifest),
        **_work(engine["build"].get("audit")),
        "sha256": engine["sha256"],
        **origin_facts(manifest),
    }


def _work(audit: Any) -> dict[str, str]:
    """What the multiply-adds are done in, as cn2 build counted them; nothing if it did not."""
    sums = audit.get("multiply_adds") if isinstance(audit, dict) else None
    if not isinstance(sums, dict) or not all(type(count) is int for count in sums.values()):
        return {}
    total = max(1, sum(sums.values()))
    shares = ", ".join(f"{count / total:.1%} {name}" for name, count in sorted(sums.items()))
    return {"work": f"{total / 1e9:.3g} G multiply-adds a run of the best size: {shares}"}


def _profile(profile: dict[str, Any]) -> str:
    (low, best, high), heights, widths = profile["batch"], profile["height"], profile["width"]
    canvases = [f"{h}x{w}" for h, w in zip(heights, widths, strict=True)]
    if low == high and canvases[0] == canvases[2]:
        return f"batch {low}, canvas {canvases[0]}"
    return (
        f"batch {low} to {high}, canvas {canvases[0]} to {canvases[2]}; "
        f"fastest at {best} of {canvases[1]}"
    )
