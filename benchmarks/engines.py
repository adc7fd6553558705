"""Engines of TensorRT-RTX for GPUs that are not here: build times, sizes, audits.

    python benchmarks/engines.py [--models DIR] [--out JSON] [PRESET ...]

The weights are random but for nano's; times and sizes do not depend on them. `seconds` is what the
build took on the wall, `cpu_seconds` what it and the audit took of the processor, which counts on a
machine that is busy with other things too. Writes benchmarks/results/engines.json, after each
engine anew; docs/engines.md shows it.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
import threading
import time
from collections import Counter
from pathlib import Path
from typing import Any

from cn2.export.describe import describe, open_checkpoint
from cn2.export.engine.build import build_engine
from cn2.export.engine.library import Library, open_library
from cn2.export.engine.model import read_model
from cn2.export.engine.options import BuildOptions
from cn2.export.engine.profiles import make_profile, own_sizes
from cn2.export.onnx_file import export_onnx
from cn2.runtime.machine import cpu_cores, cpu_name, memory_mb, versions
from models import RESULTS, make_checkpoint

PRESETS_BUILT = ("nano", "dla34-bifpn-p3", "dla34-bifpn-p5", "r50-fpn", "r2-101-dcn-fpn")
TARGETS = {"fp32": ("sm_86", "sm_89", "sm_120"), "fp16": ("sm_75", "sm_86", "sm_89", "sm_120")}
ONE = ("sm_86",)
COMPARED = ("nano", "dla34-bifpn-p3")  # with an engine for one GPU alone


class Silent:
    """Nobody is told how far a build is."""

    def start(self, name: str, parent: str | None, steps: int) -> None: ...
    def step(self, name: str, done: int) -> None: ...
    def finish(self, name: str) -> None: ...


def export_preset(preset: str, precision: str, folder: Path) -> Path:
    """A preset's file with fused operators, one picture a run on its usual canvas."""
    path = folder / f"{preset}-{precision}.onnx"
    if path.is_file():
        return path
    model, config, origin = open_checkpoint(make_checkpoint(preset, folder))
    size = own_sizes(describe(config).canvas)[1]
    export_onnx(
        model, config, path, size=size, batch=1, ops="fused", precision=precision, origin=origin
    )
    return path


def build_row(
    library: Library, path: Path, targets: tuple[str, ...], folder: Path
) -> dict[str, Any]:
    """Build an engine; what came out."""
    model = read_model(path)
    options = BuildOptions(
        runtime="tensorrt-rtx", profile=make_profile(model.manifest, None, None), targets=targets
    )
    engine = folder / f"{path.stem}.engine"
    started = time.process_time()
    built = build_engine(
        library,
        model,
        options,
        engine,
        Silent(),
        threading.Event(),
        source=path.name,
        rebuild=True,
    )
    cpu_seconds = time.process_time() - started
    about = built.about
    profile = about.profiles[0]
    row = {
        "preset": about.manifest.preset,
        "precision": about.precision,
        "canvas": [profile.height[1], profile.width[1]],
        "batch": profile.batch[1],
        "targets": list(about.targets),
        "seconds": about.build["seconds"],
        "cpu_seconds": round(cpu_seconds, 2),
        "engine_mb": round(engine.stat().st_size / 1e6, 2),
        "onnx_mb": round(path.stat().st_size / 1e6, 2),
        "plugins": dict(Counter(model.plugins.values())),
        "audit": about.build["audit"],
    }
    engine.unlink()
    return row


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("presets", nargs="*", default=PRESETS_BUILT)
    parser.add_argument("--models", type=Path, help="where the .onnx files are kept")
    parser.add_argument("--out", type=Path, default=RESULTS / "engines.json")
    arguments = parser.parse_args()
    library = open_library("tensorrt-rtx")
    rows: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        models = arguments.models or folder
        models.mkdir(parents=True, exist_ok=True)
        for preset in arguments.presets:
            for precision, all_targets in TARGETS.items():
                path = export_preset(preset, precision, models)
                for targets in (ONE, all_targets) if preset in COMPARED else (all_targets,):
                    rows.append(build_row(library, path, targets, folder))
                    print(json.dumps(rows[-1]), flush=True)
                    write(arguments.out, library, rows)


def write(path: Path, library: Library, rows: list[dict[str, Any]]) -> None:
    """The rows so far, and where they are from."""
    result = {
        "machine": {
            "cpu": cpu_name(),
            "cores": cpu_cores(),
            "memory_mb": memory_mb(),
            "load_average": round(os.getloadavg()[0], 2),
        },
        "versions": {**versions("torch", "onnx"), "tensorrt-rtx": library.version},
        "rows": rows,
    }
    path.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
