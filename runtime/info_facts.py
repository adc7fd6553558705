"""Of a manifest, in words: what goes in, what comes out, where it comes from."""

from __future__ import annotations

from typing import Any

CLASSES_SHOWN = 12


def input_facts(manifest: dict[str, Any]) -> dict[str, str]:
    """What the model finds, and in what."""
    return {
        "preset": manifest["preset"],
        "classes": classes_text(manifest["class_names"]),
        "input": canvas_text(manifest["canvas"]),
        "batch": str(manifest["batch"] or "any"),
        "precision": manifest["precision"],
    }


def output_facts(manifest: dict[str, Any]) -> dict[str, str]:
    """How many boxes, and what their scores are."""
    return {
        "proposals": f"{manifest['proposals'] or 'none'}, at most {manifest['detections']} "
        "detections",
        "score": f"{manifest['score_rule']}, above {manifest['score_threshold']:g} "
        f"(lowest {manifest['lowest_score_threshold']:g})",
    }


def origin_facts(manifest: dict[str, Any]) -> dict[str, str]:
    """Checkpoint, tools, licence."""
    tools = ", ".join(f"{name} {version}" for name, version in manifest["versions"].items())
    return {
        "made of": f"checkpoint {manifest['checkpoint_sha256'][:12] or 'unknown'}",
        "made by": tools or "unknown",
        "licence": manifest["weights_license"] or "not stated",
        "provenance": manifest["provenance"] or "not stated",
    }


def classes_text(names: list[str] | tuple[str, ...]) -> str:
    """How many there are, and the first of them."""
    shown = ", ".join(names[:CLASSES_SHOWN])
    return f"{len(names)}: {shown}{', …' if len(names) > CLASSES_SHOWN else ''}"


def canvas_text(rule: dict[str, Any]) -> str:
    """A canvas rule in words."""
    if rule.get("fixed"):
        height, width = rule["fixed"]
        size = f"{height}x{width} (height x width), pictures scaled to fit"
    else:
        size = f"short side {rule.get('short_edge')}, long side at most {rule.get('long_edge')}"
    if rule.get("rounding") == "down":
        size += ", rounded down"
    return f"{size}, {rule.get('interpolation')} resize, canvas in steps of {rule.get('divisor')}"
