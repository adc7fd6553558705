"""Can the detector learn at all? `nano` on the first eight BCCD pictures, scored on the same.

With every box of them, from fresh weights, AP50 has to reach 0.9 within ten minutes of CPU.
Result: benchmarks/results/overfit_bccd8.json, with the curve of losses and scores.

    python benchmarks/overfit.py
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from cn2.runtime.machine import cpu_cores, cpu_name, versions
from cn2.trainer.config import Config, ShortEdgeConfig
from cn2.trainer.data.datasets import DataSource
from cn2.trainer.presets import nano
from cn2.trainer.train import RunFiles, train

ROOT = Path(__file__).resolve().parent.parent
RESULT = Path(__file__).parent / "results" / "overfit_bccd8.json"
PICTURES = 8
STEPS = 120
SCORE_EVERY = 20  # steps
WANTED_AP50 = 0.9
LIMIT_S = 600


def overfit_config(steps: int, short_edge: int, score_every: int = 0) -> Config:
    """`nano` that sees the same pictures in every step: no flip, one size, that of the scoring."""
    config = nano()
    long_edge = short_edge * 3 // 2
    return replace(
        config,
        input=replace(config.input, short_edge=short_edge, long_edge=long_edge),
        train=replace(
            config.train,
            batch=PICTURES,
            steps=steps,
            base_lr=0.02,
            lr_batch=PICTURES,
            warmup_steps=min(30, steps // 4),
            schedule="cosine",
            precision="auto",
            resize=ShortEdgeConfig(smallest=short_edge, largest=short_edge, long_edge=long_edge),
            flip=0.0,
            workers=1,
            log_every=10,
            eval_every=score_every,
            save_every=steps,
        ),
    )


def overfit(bccd: Path, out: Path, config: Config) -> list[dict[str, Any]]:
    """Train on the first pictures of BCCD and score on them; the rows of the run's log."""
    content = json.loads((bccd / "annotations" / "instances_train.json").read_text())
    content["images"] = content["images"][:PICTURES]
    kept = {image["id"] for image in content["images"]}
    content["annotations"] = [row for row in content["annotations"] if row["image_id"] in kept]
    subset = out / "first_pictures.json"
    subset.write_text(json.dumps(content))
    source = DataSource(annotations=subset, images=bccd / "images")
    files = RunFiles(train=(source,), val=source, out=out / "run")
    train(config, files, device="cpu")
    lines = (files.out / "log.jsonl").read_text().splitlines()
    return [json.loads(line) for line in lines]


def summarize(rows: list[dict[str, Any]], config: Config, started: float) -> dict[str, Any]:
    """What the result file says: the curve, the final scores, the machine."""
    seconds = rows[-1]["time"] - started
    scores = [row for row in rows if row["kind"] == "validation"]
    final = scores[-1]
    curve = [
        {"step": row["step"], "seconds": round(row["time"] - started, 1)}
        | ({"loss": row["loss"]} if row["kind"] == "train" else {})
        | ({"AP": row["AP"], "AP50": row["AP50"]} if row["kind"] == "validation" else {})
        for row in rows
    ]
    return {
        "preset": config.preset,
        "pictures": PICTURES,
        "boxes": sum(entry["objects"] for entry in final["per_class"].values()),
        "steps": config.train.steps,
        "short_edge": config.input.short_edge,
        "precision": config.train.precision,
        "AP": final["AP"],
        "AP50": final["AP50"],
        "per_class": final["per_class"],
        "wanted_AP50": WANTED_AP50,
        "seconds": round(seconds, 1),
        "limit_s": LIMIT_S,
        "passed": final["AP50"] >= WANTED_AP50 and seconds <= LIMIT_S,
        "cpu": cpu_name(),
        "cores": cpu_cores(),
        "threads": torch.get_num_threads(),
        "versions": versions("torch", "torchvision"),
        "curve": curve,
    }


def main() -> int:
    """Run, write the result, and tell by the exit code whether the goal was met."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--steps", type=int, default=STEPS)
    parser.add_argument("--short-edge", type=int, default=nano().input.short_edge)
    parser.add_argument("--json", type=Path, default=RESULT)
    arguments = parser.parse_args()
    shared = Path(os.environ.get("CN2_SHARED", ROOT.parent / "shared"))
    config = overfit_config(arguments.steps, arguments.short_edge, SCORE_EVERY)
    load_before = os.getloadavg()[0]
    started = time.time()
    with tempfile.TemporaryDirectory() as folder:
        rows = overfit(shared / "data" / "bccd", Path(folder), config)
    result = summarize(rows, config, started)
    result["load_before"] = round(load_before, 2)  # other work on the machine, in processes
    arguments.json.parent.mkdir(parents=True, exist_ok=True)
    arguments.json.write_text(json.dumps(result, indent=1) + "\n")
    print(f"AP50 {result['AP50']:.3f} after {result['seconds']:.0f} s: {arguments.json}")
    return 0 if result["passed"] else 1


if __name__ == "__main__":
    raise SystemExit(main())
