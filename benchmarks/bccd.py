"""`nano` on real pictures: BCCD, blood cells of three kinds, from the bundled weights.

Trains each seed with the recipe below where its run is not there yet, exports the checkpoint that
scored best on the validation pictures, and scores the ONNX file on the test pictures, all by the
commands of docs/train-on-your-own-data.md. Result: benchmarks/results/bccd.json; the worst
pictures, with what is there and what was found, go into the runs' folder, `seedN/worst.png`.

    python benchmarks/bccd.py --runs runs/bccd
    python benchmarks/bccd_page.py      # the page's tables and curves
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from cn2.runtime.cli import run as cn2
from cn2.runtime.machine import cpu_cores, cpu_name, versions
from cn2.runtime.reports import write_json
from cn2.trainer.config import Config, config_from_dict
from cn2.trainer.data.coco import load_coco
from cn2.trainer.presets.small import nano
from cn2.trainer.progress import group_losses, read_log
from cn2.trainer.train_config import ShortEdgeConfig
from detection_errors import IOU, KINDS, SCORE, find_errors

ROOT = Path(__file__).resolve().parent.parent
RESULT = Path(__file__).parent / "results" / "bccd.json"
SEEDS = (0, 1, 2)
WANTED_AP50 = 0.8
LIMIT_MINUTES, LIMIT_CORES = 90, 2
WORST = 6  # pictures of a seed that are named and drawn
SCORES = ("AP", "AP50", "AP75", "APs", "APm", "APl", "AR100")
WEIGHTS = "runtime/bundled/nano.safetensors"
SETTINGS = (
    "train.steps=600",
    "train.warmup_steps=100",
    "train.resize.smallest=320",
    "train.resize.largest=448",
    "train.resize.long_edge=640",
    "train.flip_vertical=0.5",
    "train.ema_decay=0.997",
    "train.precision=fp32",
    "train.eval_every=200",
    "train.save_every=100",
)


class RunError(Exception):
    """A run's folder cannot be used; the message says why."""


def recipe(seed: int) -> Config:
    """The same as `cn2 train nano` with `SETTINGS`; its classes are still the preset's."""
    config = nano()
    return replace(
        config,
        train=replace(
            config.train,
            steps=600,
            warmup_steps=100,
            resize=ShortEdgeConfig(smallest=320, largest=448, long_edge=640),
            flip_vertical=0.5,  # a blood cell has no upper side
            ema_decay=0.997,
            precision="fp32",
            eval_every=200,
            save_every=100,
            seed=seed,
        ),
    )


def seeded(seed: int) -> list[str]:
    """The settings of a seed."""
    return [*SETTINGS, f"train.seed={seed}"]


@dataclass(frozen=True)
class Bccd:
    """Where the data lie."""

    folder: Path

    @property
    def images(self) -> Path:
        """The folder of all pictures."""
        return self.folder / "images"

    def annotations(self, split: str) -> Path:
        """COCO JSON of train, val or test."""
        return self.folder / "annotations" / f"instances_{split}.json"


def training_command(data: Bccd, out: Path, settings: Sequence[str]) -> list[str]:
    """The words after `cn2` that train with some settings, from the bundled weights."""
    files = [f"--{split}={data.annotations(split)}" for split in ("train", "val")]
    files += [f"--{split}-images={data.images}" for split in ("train", "val")]
    words = [word for setting in settings for word in ("--set", setting)]
    start = f"--weights={ROOT / WEIGHTS}"
    return ["train", "nano", *files, f"--out={out}", start, "--device=cpu", *words]


def is_finished(folder: Path, wanted: Config) -> bool:
    """Whether a run with these settings is there and at its end; False where there is none.

    Raises:
        RunError: it has begun and not ended, or was trained in another way.
    """
    if not (folder / "config.json").is_file():
        return False
    values = json.loads((folder / "config.json").read_text("utf-8"))
    trained = config_from_dict(values)
    classes = {"class_names": trained.class_names, "category_ids": trained.category_ids}
    if trained != replace(wanted, **classes):
        seed = wanted.train.seed
        raise RunError(f"{folder}: was trained with other settings than the recipe's, seed {seed}")
    rows = read_log(folder / "log.jsonl")
    if not rows or rows[-1]["kind"] != "validation" or rows[-1]["step"] != wanted.train.steps:
        raise RunError(f"{folder}: not at its end; wait, or add --resume to its cn2 train command")
    return True


def train(data: Bccd, folder: Path, settings: Sequence[str], threads: int) -> None:
    """Train in a process of its own."""
    words = [sys.executable, "-m", "cn2.runtime.cli", *training_command(data, folder, settings)]
    environment = os.environ | {"OMP_NUM_THREADS": str(threads), "OMP_WAIT_POLICY": "PASSIVE"}
    subprocess.run(words, env=environment, check=True)


def measure(data: Bccd, folder: Path, seed: int, threads: int) -> dict[str, Any]:
    """Export a run's best checkpoint, score it on the test pictures, look at its errors."""
    model, scores = folder / "best.onnx", folder / "test.json"
    test = data.annotations("test")
    call("export", str(folder / "best.safetensors"), "-o", str(model))
    call("eval", str(model), f"--annotations={test}", f"--images={data.images}", f"--json={scores}")
    metrics = json.loads(scores.read_text("utf-8"))
    return {
        "seed": seed,
        "test": {key: metrics[key] for key in (*SCORES, "per_class")},
        "model": {key: metrics["model"][key] for key in ("backend", "checkpoint_sha256")},
        **describe_training(read_log(folder / "log.jsonl"), recipe(seed), threads),
        **find_errors(model, load_coco(test, data.images), folder / "worst.png", WORST),
    }


def call(*words: str) -> None:
    """A `cn2` command.

    Raises:
        RunError: it failed, and has said why.
    """
    if cn2(words) != 0:
        raise RunError(f"cn2 {' '.join(words)}: failed, see above")


def describe_training(rows: list[dict[str, Any]], config: Config, threads: int) -> dict[str, Any]:
    """Time, the scores that chose the checkpoint, and the curve, all from a run's log.

    The time is that from before the first step to after the last scoring, on the wall clock.
    """
    scored = [row for row in rows if row["kind"] == "validation"]
    steps = [row for row in rows if row["kind"] == "train"]
    best = max(scored, key=lambda row: row["AP"])
    start = steps[0]["time"] - steps[0]["step"] * config.train.batch / steps[0]["images_per_s"]
    minutes = (rows[-1]["time"] - start) / 60
    return {
        "chosen": {key: best[key] for key in ("step", "AP", "AP50")},
        "minutes": round(minutes, 1),
        # The steps take `threads` cores, each data worker at most one.
        "cpu_minutes_at_most": round(minutes * (threads + config.train.workers), 1),
        "images_per_s": round(statistics.median(row["images_per_s"] for row in steps), 2),
        "losses": [
            {"step": row["step"]}
            | {name: round(value, 4) for name, value in group_losses(row["losses"]).items()}
            for row in steps
        ],
        "val": [{key: row[key] for key in ("step", "AP", "AP50", "AP75")} for row in scored],
    }


def spread(runs: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Mean, least and most over the seeds, and the standard deviation of a sample of them."""
    columns = {key: [run["test"][key] for run in runs] for key in SCORES}
    for name in runs[0]["test"]["per_class"]:
        for key in ("AP", "AP50"):
            columns[f"{name} {key}"] = [run["test"]["per_class"][name][key] for run in runs]
    return {key: describe(values) for key, values in columns.items()}


def describe(values: Sequence[float]) -> dict[str, float | None]:
    """Mean, least, most and sample deviation (None of a single value)."""
    deviation = statistics.stdev(values) if len(values) > 1 else None
    return {
        "mean": statistics.fmean(values),
        "least": min(values),
        "most": max(values),
        "deviation": deviation,
    }


def document(runs: list[dict[str, Any]], seeds: Sequence[int], threads: int) -> dict[str, Any]:
    """The result file."""
    return {
        "preset": "nano",
        "weights": WEIGHTS,
        "settings": list(SETTINGS),
        "seeds": list(seeds),
        "wanted_AP50": WANTED_AP50,
        "limit": {"minutes": LIMIT_MINUTES, "cores": LIMIT_CORES},
        "passed": all(
            run["test"]["AP50"] >= WANTED_AP50
            and run["cpu_minutes_at_most"] <= LIMIT_MINUTES * LIMIT_CORES
            and run["minutes"] <= LIMIT_MINUTES
            for run in runs
        ),
        "over_seeds": spread(runs),
        "error_kinds": {"score_above": SCORE, "iou": IOU, **KINDS},
        "machine": {"cpu": cpu_name(), "cores": cpu_cores(), "threads": threads},
        "versions": versions("torch", "onnxruntime", "faster-coco-eval"),
        "runs": runs,
    }


def main(arguments: Sequence[str] | None = None) -> int:
    """Train what is missing, measure, write; the exit code tells whether the goal was met."""
    options = parse(arguments)
    data = Bccd(options.data)
    folders = {seed: options.runs / f"seed{seed}" for seed in options.seeds}
    try:
        for seed in [one for one in folders if not is_finished(folders[one], recipe(one))]:
            train(data, folders[seed], seeded(seed), options.threads)
        runs = [measure(data, folders[seed], seed, options.threads) for seed in folders]
    except RunError as error:
        print(f"bccd: error: {error}", file=sys.stderr)
        return 2
    found = document(runs, options.seeds, options.threads)
    write_json(str(options.json), found)
    print(f"AP50 {[round(run['test']['AP50'], 3) for run in runs]}: {options.json}")
    return 0 if found["passed"] else 1


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    """The command line."""
    shared = Path(os.environ.get("CN2_SHARED", ROOT.parent / "shared"))
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0] if __doc__ else None)
    parser.add_argument("--seeds", type=int, nargs="+", default=list(SEEDS))
    parser.add_argument("--runs", type=Path, default=Path("runs/bccd"), help="holds seed0, ...")
    parser.add_argument("--data", type=Path, default=shared / "data" / "bccd")
    parser.add_argument("--threads", type=int, default=1, help="of a training, as it is or was run")
    parser.add_argument("--json", type=Path, default=RESULT)
    return parser.parse_args(arguments)


if __name__ == "__main__":
    sys.exit(main())
