"""Speed of the presets on this machine with ONNX Runtime, per stage, from JPEG to detections.

Each preset is exported and measured by `cn2 bench` in a process of its own, so that loading time
and memory are those of a user. Result: benchmarks/results/fps.json.

    python benchmarks/fps.py
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from cn2.runtime.reports import write_json
from cn2.trainer.presets import PRESETS
from models import (
    RESULTS,
    TIMED_PRESETS,
    ModelFiles,
    find_pictures,
    machine,
    make_files,
    picture_sizes,
)
from zoo_models import PAPER

PICTURES = 20
BATCHES = {"nano": "1,8"}  # a batch of 8 of the others takes tens of seconds on a small CPU


def main(arguments: Sequence[str] | None = None) -> None:
    """Export, measure, write."""
    options = parse(arguments)
    pictures = find_pictures(options.images, PICTURES)
    before = machine()
    rows: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as folder:
        feed = link_all(pictures, Path(folder) / "pictures")
        for preset in options.presets:
            print(f"{preset}: export", flush=True)
            files = make_files(preset, Path(folder))
            rows += measure(files, feed, Path(folder) / f"{preset}.json", options)
    write_json(
        str(options.out),
        {
            "benchmark": "fps",
            "command": "python benchmarks/fps.py",
            "machine": before,
            "pictures": {"count": len(pictures), "sizes": picture_sizes(pictures)},
            "paper": PAPER,
            "rows": rows,
        },
    )
    print(f"{options.out}: {len(rows)} rows")


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--presets", nargs="+", choices=list(PRESETS), default=TIMED_PRESETS)
    parser.add_argument("--images", type=Path, help="default: COCO pictures of $CN2_SHARED")
    parser.add_argument("--threads", type=int, help="default: one per core")
    parser.add_argument("--runs", type=int, help="default: 100, 20 of calls above a second")
    parser.add_argument("--warmup", type=int, help="default: 20, 3 of calls above a second")
    parser.add_argument("--out", type=Path, default=RESULTS / "fps.json")
    return parser.parse_args(arguments)


def link_all(pictures: Sequence[Path], folder: Path) -> Path:
    """A folder that shows these pictures alone."""
    folder.mkdir()
    for path in pictures:
        (folder / path.name).symlink_to(path.resolve())
    return folder


def measure(
    files: ModelFiles, pictures: Path, answer: Path, options: argparse.Namespace
) -> list[dict[str, Any]]:
    """The rows of one preset, by `cn2 bench`."""
    command = [sys.executable, "-m", "cn2.runtime.cli", "bench", str(files.onnx)]
    command += ["--images", str(pictures), "--json", str(answer)]
    command += ["--batch", BATCHES.get(files.preset, "1")]
    for name in ("threads", "runs", "warmup"):
        value = getattr(options, name)
        command += [] if value is None else [f"--{name}", str(value)]
    subprocess.run(command, check=True)
    extra = {
        "model": files.onnx.name,
        "weights": files.weights,
        "parameters": files.parameters,
        "paper": PAPER["presets"].get(files.preset),
    }
    return [{**row, **extra} for row in json.loads(answer.read_text())]


if __name__ == "__main__":
    main()
