"""Size and CPU time of every model of the official zoo, for the table in docs/zoo.md.

For each preset: parameters, multiply-adds for one 480x640 picture, the ONNX file's size, and the
time of `cn2 bench` on COCO pictures of that size, whole and in ONNX Runtime alone. Weights are
random: sizes do not depend on them, nor does the time, as the number of proposals is fixed; only
the last suppression has less to do.

Each preset is measured in a process of its own and its row merged into benchmarks/results/zoo.json
at once; presets that are there already are skipped.

    python benchmarks/zoo.py                     # what is missing
    python benchmarks/zoo.py --presets r50-fpn   # this one, again
"""

from __future__ import annotations

import argparse
import json
import math
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from cn2.export.describe import describe, open_checkpoint
from cn2.runtime.reports import write_json
from cn2.trainer.config import Config
from cn2.trainer.presets import PRESETS
from fps import link_all, measure
from models import PICTURE_SIZE, RESULTS, ROOT, find_pictures, machine, make_files
from zoo_models import ZOO

PICTURES = 20
Row = dict[str, Any]


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure what is missing; 1 if a preset failed or does not exist yet."""
    options = parse(arguments)
    if options.row is not None:
        write_json(str(options.row), measure_preset(options.presets[0], options))
        return 0
    found = json.loads(options.out.read_text("utf-8"))["presets"] if options.out.is_file() else {}
    wanted = options.presets or [p for p in zoo_presets() if p not in found]
    bad = [preset for preset in wanted if preset not in PRESETS]
    for preset in wanted:
        if preset in PRESETS:
            row = measure_apart(preset, options)
            if row is None:
                bad.append(preset)
                continue
            found[preset] = row
            write_json(str(options.out), document(found))
    print(f"{options.out}: {len(found)} of {len(zoo_presets())} presets")
    if bad:
        print(f"failed, or not there yet: {', '.join(bad)}", file=sys.stderr)
    return int(bool(bad))


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--presets", nargs="+", help="default: those that the result lacks")
    parser.add_argument("--images", type=Path, help="default: COCO pictures of $CN2_SHARED")
    parser.add_argument("--threads", type=int, help="default: one per core")
    parser.add_argument("--runs", type=int, help="default: 100, 20 of calls above a second")
    parser.add_argument("--warmup", type=int, help="default: 20, 3 of calls above a second")
    parser.add_argument("--out", type=Path, default=RESULTS / "zoo.json")
    parser.add_argument("--row", type=Path, help="measure one preset here, write its row there")
    return parser.parse_args(arguments)


def zoo_presets() -> list[str]:
    """The presets of the zoo; two models share one."""
    return list(dict.fromkeys(model.preset for model in ZOO))


def document(found: dict[str, Row]) -> dict[str, Any]:
    """The result file, presets in the zoo's order."""
    width, height = PICTURE_SIZE
    order = [*(p for p in zoo_presets() if p in found), *sorted(found.keys() - zoo_presets())]
    return {
        "benchmark": "zoo",
        "command": "python benchmarks/zoo.py",
        "picture": [height, width],
        "gmacs": "multiply-adds of convolutions and matrix products, torch.utils.flop_counter / 2; "
        "deformable convolutions as plain ones; the whole detector with its number of proposals",
        "presets": {preset: found[preset] for preset in order},
    }


def measure_apart(preset: str, options: argparse.Namespace) -> Row | None:
    """The row of a preset from a process of its own; None if that failed."""
    with tempfile.TemporaryDirectory() as folder:
        answer = Path(folder) / "row.json"
        command = [sys.executable, __file__, "--presets", preset, "--row", str(answer)]
        for name in ("images", "threads", "runs", "warmup"):
            value = getattr(options, name)
            command += [] if value is None else [f"--{name}", str(value)]
        print(preset, flush=True)
        if subprocess.run(command, cwd=ROOT).returncode != 0 or not answer.is_file():
            return None
        row: Row = json.loads(answer.read_text("utf-8"))
        return row


def measure_preset(preset: str, options: argparse.Namespace) -> Row:
    """Everything about one preset; the time in yet another process, by `cn2 bench`."""
    before = machine()
    width, height = PICTURE_SIZE
    with tempfile.TemporaryDirectory() as folder:
        feed = link_all(find_pictures(options.images, PICTURES), Path(folder) / "pictures")
        files = make_files(preset, Path(folder))
        model, config, _ = open_checkpoint(files.checkpoint)
        rule = describe(config).canvas
        canvas = rule.canvas_size(rule.resized_size(height, width))
        macs = count_macs(model, config, (height, width))
        del model
        (timed,) = measure(files, feed, Path(folder) / "bench.json", options)
        size = files.onnx.stat().st_size
    latency = timed["latency_ms"]
    return {
        "parameters": files.parameters,
        "weights": files.weights,
        "canvas": list(canvas),
        "proposals": timed["proposals"],
        "gmacs": round(macs / 1e9, 4),
        "onnx_bytes": size,
        "whole_ms": latency["whole"],
        "network_ms": latency["inference"],
        "runs": timed["runs"],
        "threads": timed["threads"],
        "peak_rss_mb": timed["peak_rss_mb"],
        "canvases": timed["canvases"],
        "machine": before,
        "versions": timed["versions"],
    }


def count_macs(model: nn.Module, config: Config, picture: tuple[int, int]) -> int:
    """Multiply-adds of one picture (height, width) on the canvas that the preset gives it."""
    rule = describe(config).canvas
    resized = rule.resized_size(*picture)
    images = torch.zeros(1, *rule.canvas_size(resized), 3, dtype=torch.uint8)
    return macs_of(model.eval(), images, torch.tensor([resized], dtype=torch.int32))


def macs_of(model: nn.Module, *inputs: Tensor) -> int:
    """Multiply-adds of convolutions and matrix products in one call."""
    known = {torch.ops.torchvision.deform_conv2d: deformable_flops}
    with torch.no_grad(), FlopCounterMode(display=False, custom_mapping=known) as counter:
        model(*inputs)
    return int(counter.get_total_flops()) // 2


def deformable_flops(
    images: Sequence[int], weight: Sequence[int], *_: Any, out_shape: Sequence[int], **__: Any
) -> int:
    """As of a plain convolution of these shapes; gathering the inputs is not counted."""
    batch, _channels, height, width = out_shape
    return 2 * batch * height * width * math.prod(weight)


if __name__ == "__main__":
    sys.exit(main())
