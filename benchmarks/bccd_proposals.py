"""Do the directions of the paper's Tables 5 and 6 show on a small data set? BCCD, at `nano`'s size.

CenterNet*, Cascade R-CNN behind an RPN and CenterNet2 are trained by one recipe from the bundled
backbone, everything else fresh, with several seeds. On the test pictures each is scored with 16 to
256 boxes of its first stage, with the first stage's probability in the score and without. Runs that
are there are not trained again; one that was cut short goes on.
Result: benchmarks/results/bccd_proposals.json; benchmarks/framework_page.py shows it.

    python benchmarks/bccd_proposals.py --runs runs/bccd_proposals
"""

from __future__ import annotations

import argparse
import os
import sys
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import torch

from bccd import Bccd, describe_training
from cn2.export.first_stage import ProposalDetector
from cn2.runtime.evaluation import coco_metrics
from cn2.runtime.machine import cpu_cores, cpu_name, versions
from cn2.runtime.proposal_recall import proposal_recall
from cn2.runtime.reports import write_json
from cn2.trainer.build import build_detector
from cn2.trainer.checkpoint import load_checkpoint, read_checkpoint, save_checkpoint
from cn2.trainer.config import Config
from cn2.trainer.data.coco import CocoDataset, load_coco
from cn2.trainer.data.datasets import DataSource
from cn2.trainer.detector import OneStageDetector, TwoStageDetector
from cn2.trainer.distributed import Ranks
from cn2.trainer.progress import read_log
from cn2.trainer.train import RunFiles, train
from cn2.trainer.train_config import ShortEdgeConfig
from cn2.trainer.validate import detect_all
from nano_size import at_nano_size

ROOT = Path(__file__).resolve().parent.parent
RESULT = Path(__file__).parent / "results" / "bccd_proposals.json"
BUNDLED = ROOT / "runtime" / "bundled" / "nano.safetensors"
DETECTORS = {
    "CenterNet*": "centernet-r50-fpn",
    "CascadeRCNN-RPN": "cascade-rcnn-r50-fpn",
    "CenterNet2": "r50-fpn",
}
SEEDS = (0, 1, 2)
COUNTS = (16, 32, 64, 128, 256)  # boxes of the first stage that go on
STEPS = 480
LIMIT_MINUTES = 35
SCORES = ("AP", "AP50", "AP75")
RULES: dict[str, Literal["sqrt", "class"]] = {"joint": "sqrt", "class": "class"}
LOWEST_SCORE = 1e-4  # of a one-stage detector's boxes; a first stage's floor, too
ALONE = "alone"  # the rule of a detector without a second stage


def recipe(preset: str, seed: int) -> Config:
    """What all three are trained by: 19 epochs of BCCD at 224 to 288 pixels."""
    config = at_nano_size(preset)
    return replace(
        config,
        input=replace(config.input, short_edge=256, long_edge=384),
        train=replace(
            config.train,
            steps=STEPS,
            warmup_steps=60,
            resize=ShortEdgeConfig(smallest=224, largest=288, long_edge=432),
            flip_vertical=0.5,  # a blood cell has no upper side
            ema_decay=0.995,
            precision="fp32",
            eval_every=STEPS // 3,
            save_every=STEPS // 6,
            seed=seed,
        ),
    )


def start_weights(config: Config, path: Path) -> Path:
    """A checkpoint with the bundled backbone; all else is drawn by the config's seed."""
    torch.manual_seed(config.train.seed)
    model = build_detector(config)
    _, metadata, tensors = read_checkpoint(BUNDLED)
    prefix = "backbone."
    model.backbone.load_state_dict(
        {name[len(prefix) :]: value for name, value in tensors.items() if name.startswith(prefix)}
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    license = metadata["cn2.license"]
    save_checkpoint(path, model, config, license=license, provenance="backbone of bundled nano")
    return path


def train_one(config: Config, data: Bccd, folder: Path) -> None:
    """Train where nothing is, go on where a run was cut short, do nothing where it has ended."""
    rows = read_log(folder / "log.jsonl")
    if rows and rows[-1]["kind"] == "validation" and rows[-1]["step"] == config.train.steps:
        return
    train_set, val_set = (
        DataSource(annotations=data.annotations(split), images=data.images)
        for split in ("train", "val")
    )
    files = RunFiles(train=(train_set,), val=val_set, out=folder)
    resume = any((folder / "states").glob("*"))
    weights = None if resume else start_weights(config, folder.with_suffix(".start.safetensors"))
    train(config, files, weights=weights, resume=resume, device="cpu")


def measure(config: Config, folder: Path, data: Bccd, threads: int) -> dict[str, Any]:
    """Score a run's last weights on the test pictures; its time and curves."""
    model, trained, _ = load_checkpoint(folder / "last.safetensors")
    test = load_coco(data.annotations("test"), data.images)
    found = (
        score_two_stages(model, trained, test)
        if isinstance(model, TwoStageDetector)
        else score_one_stage(model, trained, test)
    )
    training = describe_training(read_log(folder / "log.jsonl"), config, threads)
    return {"seed": config.train.seed, "pictures": len(test.pictures), **found, **training}


def score_two_stages(model: TwoStageDetector, config: Config, test: CocoDataset) -> dict[str, Any]:
    """AP for each number of proposals and each rule of the score; the proposals' recall.

    Every score counts: one threshold would cut more of the one rule's scores than of the other's.
    """
    model.second_stage.score_threshold.fill_(0.0)
    proposals = detect(ProposalDetector(model, max(COUNTS)), config, test)
    found: dict[str, Any] = {"recall": recall_at(test, proposals), "AP": {}}
    for name, rule in RULES.items():
        model.second_stage.selection = model.second_stage.selection._replace(score_rule=rule)
        for count in COUNTS:
            model.test_filter = replace(model.test_filter, post_nms=count)
            metrics = coco_metrics(test.annotations, detect(model, config, test))
            found["AP"].setdefault(name, {})[str(count)] = {key: metrics[key] for key in SCORES}
    return found


def score_one_stage(model: OneStageDetector, config: Config, test: CocoDataset) -> dict[str, Any]:
    """The same of the best detections of a picture, which take the place of proposals.

    As many of them, and from as low a score on, as are asked of a first stage.
    """
    model.test_filter = replace(model.test_filter, post_nms=max(COUNTS))
    model.first_stage.score_threshold.fill_(LOWEST_SCORE)
    results = detect(model, config, test)
    found: dict[str, Any] = {"recall": recall_at(test, results), "AP": {ALONE: {}}}
    for count in COUNTS:
        metrics = coco_metrics(test.annotations, best_of_each(results, count))
        found["AP"][ALONE][str(count)] = {key: metrics[key] for key in SCORES}
    return found


def detect(model: torch.nn.Module, config: Config, test: CocoDataset) -> list[dict[str, Any]]:
    """COCO result dicts of all test pictures."""
    return detect_all(model, test, config, Ranks(device=torch.device("cpu")))


def recall_at(test: CocoDataset, boxes: list[dict[str, Any]]) -> dict[str, float]:
    """Average recall of the best boxes of a picture, for each of `COUNTS`."""
    found = proposal_recall(test.annotations, boxes, COUNTS)
    return {str(count): found[f"AR{count}"] for count in COUNTS}


def best_of_each(results: list[dict[str, Any]], count: int) -> list[dict[str, Any]]:
    """The so many best detections of each picture."""
    ordered = sorted(results, key=lambda result: -result["score"])
    taken: Counter[int] = Counter()
    kept = []
    for result in ordered:
        taken[result["image_id"]] += 1
        if taken[result["image_id"]] <= count:
            kept.append(result)
    return kept


def main(arguments: Sequence[str] | None = None) -> int:
    """Train what is missing, measure, write."""
    options = parse(arguments)
    torch.set_num_threads(options.threads)
    data = Bccd(options.data)
    for seed in options.seeds:
        for preset in DETECTORS.values():
            train_one(recipe(preset, seed), data, options.runs / f"{preset}-seed{seed}")
    rows: dict[str, list[dict[str, Any]]] = {name: [] for name in DETECTORS}
    for name, preset in DETECTORS.items():
        for seed in options.seeds:
            folder = options.runs / f"{preset}-seed{seed}"
            rows[name].append(measure(recipe(preset, seed), folder, data, options.threads))
            print(f"{name}, seed {seed}: measured", flush=True)
    write_json(str(options.json), document(rows, options.threads))
    return 0


def document(rows: dict[str, list[dict[str, Any]]], threads: int) -> dict[str, Any]:
    """The result file."""
    settings = recipe(DETECTORS["CenterNet2"], SEEDS[0])
    return {
        "steps": STEPS,
        "batch": settings.train.batch,
        "short_edge": settings.input.short_edge,
        "weights": "bundled nano's backbone; all else fresh",
        "limit_minutes": LIMIT_MINUTES,
        "passed": all(run["minutes"] <= LIMIT_MINUTES for runs in rows.values() for run in runs),
        "rules": RULES,
        "counts": list(COUNTS),
        "machine": {"cpu": cpu_name(), "cores": cpu_cores(), "threads": threads},
        "versions": versions("torch", "faster-coco-eval"),
        "detectors": {
            name: {"preset": DETECTORS[name], "runs": runs} for name, runs in rows.items()
        },
    }


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    """The command line."""
    shared = Path(os.environ.get("CN2_SHARED", ROOT.parent / "shared"))
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--seeds", type=int, nargs="+", default=list(SEEDS))
    parser.add_argument("--runs", type=Path, default=Path("runs/bccd_proposals"))
    parser.add_argument("--data", type=Path, default=shared / "data" / "bccd")
    parser.add_argument("--threads", type=int, default=1, help="of a training")
    parser.add_argument("--json", type=Path, default=RESULT)
    return parser.parse_args(arguments)


if __name__ == "__main__":
    sys.exit(main())
