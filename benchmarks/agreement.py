"""torch against ONNX Runtime on real pictures of many shapes: do the exported files find the same?

Every preset is exported twice, for any canvas and for one fixed canvas, and run on COCO pictures
beside torch on the same canvases. Trained weights, nano's, are what is asked of: all detections the
same, within the limits. The published presets carry the *random* weights of the conformance
fixtures, which find tens of objects in any picture: a stress test, in which float32 itself rounds
by as much as the limits; so the distance of both runtimes to torch in float64 is given as well.
Result: benchmarks/results/agreement.json. A preset that is measured again replaces its rows there,
those of the others stay.

    python benchmarks/agreement.py                    # all; float64 makes it long
    python benchmarks/agreement.py --presets nano
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
from collections.abc import Callable, Sequence
from contextlib import closing
from importlib.metadata import version
from math import gcd
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from cn2.export.agreement import (
    BOX_TOLERANCE_PX,
    MARGIN,
    SCORE_TOLERANCE,
    Found,
    match,
)
from cn2.export.describe import describe, open_checkpoint
from cn2.export.onnx_file import export_onnx
from cn2.export.reference import Reference
from cn2.export.verify import Verification, run_file, verify
from cn2.runtime.backends.onnxruntime import OnnxRuntimeBackend
from cn2.runtime.demo import CHECKPOINT
from cn2.runtime.pictures import open_picture
from cn2.runtime.preprocess import place_picture
from cn2.runtime.reports import write_json
from cn2.trainer.config import Config
from cn2.trainer.detector import AnyDetector
from models import RESULTS, ROOT, machine

# Of the other fixtures, tests/conformance/ compares torch and the file.
DEFAULT = ("nano", "dla34-bifpn-p3", "dla34-bifpn-p5", "r50-fpn")
TRAINED, RANDOM = "trained_weights", "random_weights"
RUNTIMES = ("torch", "onnxruntime")
TOOLS = ("torch", "onnx", "onnxruntime")
WANTED_DETECTIONS = 500  # of trained weights
PICTURES = {TRAINED: 40, RANDOM: 15}  # of each preset and canvas
EXACT_PICTURES = {TRAINED: 40, RANDOM: 5}  # of these, also run in float64: ten times as slow
Loaded = tuple[AnyDetector, Config, str]
Row = dict[str, Any]


def main(arguments: Sequence[str] | None = None) -> int:
    """Export, compare, write; 1 unless `is_met`."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--presets", nargs="+", help=f"default: {', '.join(DEFAULT)}")
    parser.add_argument("--pictures", type=int, help=f"of each preset and canvas; {PICTURES}")
    parser.add_argument("--out", type=Path, default=RESULTS / "agreement.json")
    options = parser.parse_args(arguments)
    shared = Path(os.environ.get("CN2_SHARED", ROOT.parent / "shared"))
    pictures = of_many_shapes(shared / "data" / "coco128" / "images", options.pictures)
    loaders = find_weights(shared)
    found: dict[str, Any] = {}
    for preset in options.presets or [name for name in DEFAULT if name in loaders]:
        rows = compare_preset(preset, loaders[preset], pictures)
        found = report(merge(options.out, rows))
        write_json(str(options.out), found)
    print(f"{options.out}: {found[TRAINED]} of trained weights, {found[RANDOM]} of random ones")
    return int(not is_met(found))


def merge(path: Path, rows: Sequence[Row]) -> list[Row]:
    """The file's rows, those of the same presets replaced."""
    if not path.is_file():
        return list(rows)
    new = {row["preset"] for row in rows}
    old: list[Row] = json.loads(path.read_text("utf-8"))["rows"]
    return [*(row for row in old if row["preset"] not in new), *rows]


def report(rows: Sequence[Row]) -> dict[str, Any]:
    """The document: both kinds of weights apart, then the rows."""
    return {
        "benchmark": "agreement",
        "command": "python benchmarks/agreement.py",
        "limits": {"box_px": BOX_TOLERANCE_PX, "score": SCORE_TOLERANCE, "margin": MARGIN},
        "wanted_detections": WANTED_DETECTIONS,
        TRAINED: total([row for row in rows if row["weights"] == "trained"]),
        RANDOM: total([row for row in rows if row["weights"] != "trained"]),
        "rows": sorted(rows, key=lambda row: row["weights"] != "trained"),
    }


def total(rows: Sequence[Row]) -> dict[str, Any]:
    """Counts and largest differences of one kind of weights.

    `beyond`: pictures in which a detection differs by more than a limit, but by no more than twice
    what torch in float32 differs from float64 there. Rows without `to_float64` are older than it.
    """
    return {
        "runs": sum(row["pictures"] for row in rows),
        "detections": sum(row["detections"] for row in rows),
        "excused": sum(sum(row["excused"].values()) for row in rows),
        "beyond": sum(row["beyond"] for row in rows),
        "unexplained": sum(row["unexplained"] for row in rows),
        "box_px": max((row["box_px"] for row in rows), default=None),
        "score": max((row["score"] for row in rows), default=None),
        "to_float64": {
            runtime: farthest([row["to_float64"][runtime] for row in rows if row["to_float64"]])
            for runtime in RUNTIMES
        },
    }


def farthest(distances: Sequence[Row]) -> Row:
    """Largest differences, over the pictures of all rows; None where there are none."""
    return {
        "runs": sum(one["pictures"] for one in distances),
        "box_px": max((one["box_px"] for one in distances), default=None),
        "score": max((one["score"] for one in distances), default=None),
    }


def is_met(found: dict[str, Any]) -> bool:
    """Whether the trained weights agree strictly, and random ones but for rounding."""
    trained, random = found[TRAINED], found[RANDOM]
    strict = trained["beyond"] == trained["unexplained"] == 0
    return strict and trained["detections"] >= WANTED_DETECTIONS and not random["unexplained"]


def of_many_shapes(folder: Path, count: int | None = None) -> list[Path]:
    """Pictures in turn from each aspect ratio, the most frequent ratio first; None: all."""
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


def compare_preset(preset: str, load: Callable[[], Loaded], pictures: Sequence[Path]) -> list[Row]:
    """A row for the file of any canvas, and one for a fixed canvas, that of a 4:3 picture.

    Args:
        pictures: the first so many of them as PICTURES says are used.
    """
    model, config, weights = load()
    kind = TRAINED if weights == "trained" else RANDOM
    pictures = pictures[: PICTURES[kind]]
    rule = describe(config).canvas
    rows = []
    for size in (None, rule.canvas_size(rule.resized_size(480, 640))):
        canvas = "any" if size is None else f"{size[0]}x{size[1]}"
        print(f"{preset}, canvas {canvas}", flush=True)
        before = machine()
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "model.onnx"
            export_onnx(model, config, path, size=size)
            result = verify(path, model, config, pictures)
            at = result.score_threshold
            exact = distances(path, model, pictures[: EXACT_PICTURES[kind]], at)
        facts = {"preset": preset, "weights": weights, "canvas": canvas}
        rows.append({**facts, **summary(result), "to_float64": exact, "aspects": aspects(pictures)})
        rows[-1] |= {"machine": before, "versions": {tool: version(tool) for tool in TOOLS}}
        print(f"  {rows[-1]}", flush=True)
    return rows


def distances(
    path: Path, model: AnyDetector, pictures: Sequence[Path], threshold: float
) -> dict[str, Row]:
    """How far torch and the file, in float32, are from torch in float64, where both find it."""
    reference = Reference(model)
    seen: dict[str, list[tuple[float, float]]] = {runtime: [] for runtime in RUNTIMES}
    with closing(OnnxRuntimeBackend.open(path, device="cpu")) as backend:
        for file in pictures:
            picture = place_picture(open_picture(file), backend.manifest.canvas)
            exact = reference.run_exact(picture, threshold)
            found = reference.run(picture, threshold), run_file(backend, picture, threshold)
            for runtime, one in zip(RUNTIMES, found, strict=True):
                seen[runtime].append(distance(exact, one))
    return {
        runtime: {
            "pictures": len(pictures),
            "box_px": max((box for box, _ in values), default=0.0),
            "score": max((score for _, score in values), default=0.0),
        }
        for runtime, values in seen.items()
    }


def distance(exact: Found, found: Found) -> tuple[float, float]:
    """Largest differences of a box, pixels, and of a score, among what both have."""
    pairs = match(exact, found)
    rows, columns = [row for row, _ in pairs], [column for _, column in pairs]
    box = np.abs(exact.boxes[rows] - found.boxes[columns]).max(initial=0.0)
    score = np.abs(exact.scores[rows] - found.scores[columns]).max(initial=0.0)
    return float(box), float(score)


def summary(result: Verification) -> Row:
    """A verification as JSON-ready values."""
    agreement = result.agreement
    return {
        "pictures": agreement.pictures,
        "score_threshold": result.score_threshold,
        "detections": agreement.detections,
        "box_px": agreement.box_px,
        "score": agreement.score,
        "excused": dict(agreement.excused),
        "beyond": result.rounded,
        "unexplained": len(agreement.unexplained),
    }


def aspects(pictures: Sequence[Path]) -> dict[str, int]:
    """ "width:height" -> pictures."""
    ratios = [aspect(path) for path in pictures]
    return {f"{w}:{h}": ratios.count((w, h)) for w, h in dict.fromkeys(ratios)}


if __name__ == "__main__":
    sys.exit(main())
