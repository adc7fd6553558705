"""torch against ONNX Runtime on real pictures of many shapes: do the exported files find the same?

Every preset is exported twice, for any canvas and for one fixed canvas, and run on COCO pictures
beside torch on the same canvases. The published presets carry the weights of the conformance
fixtures, which find tens of objects in any picture; nano carries its trained ones.
Result: benchmarks/results/agreement.json.

    python benchmarks/agreement.py
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
from collections.abc import Callable, Sequence
from importlib.metadata import version
from math import gcd
from pathlib import Path
from typing import Any

from PIL import Image

from cn2.export.agreement import BOX_TOLERANCE_PX, MARGIN, SCORE_TOLERANCE
from cn2.export.describe import describe, open_checkpoint
from cn2.export.onnx_file import export_onnx
from cn2.export.verify import Verification, verify
from cn2.runtime.demo import CHECKPOINT
from cn2.runtime.reports import write_json
from cn2.trainer.config import Config
from cn2.trainer.detector import AnyDetector
from models import RESULTS, ROOT, machine

WANTED_DETECTIONS = 500
Loaded = tuple[AnyDetector, Config, str]


def main(arguments: Sequence[str] | None = None) -> int:
    """Export, compare, write; 1 if a difference is unexplained or too few objects were found."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--presets", nargs="+", help="default: all that have weights here")
    parser.add_argument("--pictures", type=int, default=15, help="of each preset and canvas")
    parser.add_argument("--out", type=Path, default=RESULTS / "agreement.json")
    options = parser.parse_args(arguments)
    shared = Path(os.environ.get("CN2_SHARED", ROOT.parent / "shared"))
    pictures = of_many_shapes(shared / "data" / "coco128" / "images", options.pictures)
    loaders = find_weights(shared)
    rows: list[dict[str, Any]] = []
    for preset in options.presets or loaders:
        rows += compare_preset(preset, loaders[preset], pictures)
    found = sum(row["detections"] for row in rows)
    write_json(
        str(options.out),
        {
            "benchmark": "agreement",
            "command": "python benchmarks/agreement.py",
            "machine": machine(),
            "versions": {tool: version(tool) for tool in ("torch", "onnx", "onnxruntime")},
            "limits": {"box_px": BOX_TOLERANCE_PX, "score": SCORE_TOLERANCE, "margin": MARGIN},
            "detections": found,
            "wanted_detections": WANTED_DETECTIONS,
            "excused": sum(sum(row["excused"].values()) for row in rows),
            "unexplained": sum(row["unexplained"] for row in rows),
            "rows": rows,
        },
    )
    print(f"{options.out}: {found} detections compared")
    return int(found < WANTED_DETECTIONS or any(not row["agrees"] for row in rows))


def of_many_shapes(folder: Path, count: int) -> list[Path]:
    """Pictures in turn from each aspect ratio, the most frequent ratio first."""
    groups: dict[tuple[int, int], list[Path]] = {}
    for path in sorted(folder.glob("*.jpg")):
        groups.setdefault(aspect(path), []).append(path)
    by_size = sorted(groups.values(), key=len, reverse=True)
    longest = max(map(len, by_size), default=0)
    turns = [group[turn] for turn in range(longest) for group in by_size if turn < len(group)]
    if not turns:
        raise ValueError(f"{folder}: expected COCO pictures, found none; set CN2_SHARED")
    return turns[:count]


def aspect(path: Path) -> tuple[int, int]:
    """Width to height, rounded to twelfths and shortened: (4, 3), (3, 2), (3, 4)."""
    with Image.open(path) as image:
        width, height = image.size
    wide = round(12 * max(width, height) / min(width, height))
    whole = (wide // gcd(wide, 12), 12 // gcd(wide, 12))
    return whole if width >= height else whole[::-1]


def find_weights(shared: Path) -> dict[str, Callable[[], Loaded]]:
    """Presets that have weights here: what loads the detector, its config, and whose weights."""
    sys.path.insert(0, str(ROOT / "tests"))
    from conformance.official import FIXTURES, build_official, load_fixture

    def official(name: str) -> Loaded:
        fixture = load_fixture(shared, name)
        return build_official(shared, fixture).eval(), fixture.config, f"fixture {name}"

    loaders: dict[str, Callable[[], Loaded]] = {}
    if CHECKPOINT.is_file():
        loaders[CHECKPOINT.stem] = lambda: (*open_checkpoint(CHECKPOINT)[:2], "trained")
    for name, preset in FIXTURES.items():
        loaders[preset] = lambda name=name: official(name)  # type: ignore[misc]
    return loaders


def compare_preset(
    preset: str, load: Callable[[], Loaded], pictures: Sequence[Path]
) -> list[dict[str, Any]]:
    """A row for the file of any canvas, and one for a fixed canvas, that of a 4:3 picture."""
    model, config, weights = load()
    rule = describe(config).canvas
    rows = []
    for size in (None, rule.canvas_size(rule.resized_size(480, 640))):
        canvas = "any" if size is None else f"{size[0]}x{size[1]}"
        print(f"{preset}, canvas {canvas}", flush=True)
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "model.onnx"
            export_onnx(model, config, path, size=size)
            result = verify(path, model, config, pictures)
        facts = {"preset": preset, "weights": weights, "canvas": canvas}
        rows.append({**facts, **summary(result), "aspects": aspects(pictures)})
        print(f"  {rows[-1]}", flush=True)
    return rows


def summary(result: Verification) -> dict[str, Any]:
    """A verification as JSON-ready values."""
    agreement = result.agreement
    return {
        "pictures": agreement.pictures,
        "score_threshold": result.score_threshold,
        "detections": agreement.detections,
        "box_px": agreement.box_px,
        "score": agreement.score,
        "excused": dict(agreement.excused),
        "unexplained": len(agreement.unexplained),
        "agrees": agreement.holds,
        "beyond_a_limit_by_rounding": result.rounded,
        "torch_own_rounding_there": {"box_px": result.own_box_px, "score": result.own_score},
    }


def aspects(pictures: Sequence[Path]) -> dict[str, int]:
    """ "width:height" -> pictures."""
    ratios = [aspect(path) for path in pictures]
    return {f"{w}:{h}": ratios.count((w, h)) for w, h in dict.fromkeys(ratios)}


if __name__ == "__main__":
    sys.exit(main())
