"""The README's rows of libcn2.json: the C library against the Python backend."""

from __future__ import annotations

from typing import Any

OUTSIDE_MS = 0.5  # asked for: preprocessing and postprocessing of one picture


def libcn2_rows(found: dict[str, Any]) -> list[tuple[str, str, str]]:
    """What, measured, asked for; of the run with most threads."""
    row = max(found["nano"], key=lambda row: row["threads"])
    height, width = found["picture"]
    what = f"libcn2, `nano`, {width}x{height} picture to detections on {row['threads']} threads"
    outside = row["libcn2"]["outside"]["median"]
    return [
        (f"{what}, time by the Python backend's", f"{row['whole_ratio']:.2f}", "at most 1"),
        ("of that, outside ONNX Runtime, ms", f"{outside:.2f}", f"below {OUTSIDE_MS}"),
    ]
