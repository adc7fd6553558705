"""Can a detector learn at all? It trains on a few real pictures and is scored on the same ones.

`bccd8`: the first eight of BCCD with every box, from fresh weights, AP50 0.9 within ten minutes.
`coco128`: 128 pictures of 80 classes, with crowd regions, a grey picture and pictures without an
object, from the bundled weights, AP50 0.6. Both are of `nano`; result:
benchmarks/results/overfit_<data>.json, with the curve of losses and scores.
`table1`: the paper's fourteen detectors at `nano`'s size as in `bccd8`, smaller and longer; they
go into overfit_table1.json one by one, and those that are there are skipped unless named.

    python benchmarks/overfit.py
    python benchmarks/overfit.py --data coco128
    python benchmarks/overfit.py --data table1 [--presets retinanet-r50-fpn ...]
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import torch
from PIL import Image

from cn2.runtime.machine import cpu_cores, cpu_name, versions
from cn2.trainer.config import Config
from cn2.trainer.data.datasets import DataSource
from cn2.trainer.presets.small import nano
from cn2.trainer.train import RunFiles, train
from cn2.trainer.train_config import ShortEdgeConfig
from nano_size import SCALE, TABLE_1, at_nano_size

ROOT = Path(__file__).resolve().parent.parent
RESULTS = Path(__file__).parent / "results"
BUNDLED = ROOT / "runtime" / "bundled" / "nano.safetensors"
PICTURES = 8  # of BCCD


@dataclass(frozen=True, kw_only=True)
class Case:
    """What to overfit, and what has to come out."""

    data: str  # the result's name
    folder: str  # in the shared data
    pictures: int | None  # the first ones; None: all
    batch: int
    steps: int
    short_edge: int  # pixels
    score_every: int  # steps
    wanted_ap50: float
    limit_s: int  # of training and scoring
    weights: Path | None = None  # to start from; None: fresh ones
    precision: Literal["auto", "fp32"] = "auto"


BCCD8 = Case(
    data="bccd8",
    folder="bccd",
    pictures=PICTURES,
    batch=PICTURES,
    steps=120,
    short_edge=nano().input.short_edge,
    score_every=20,
    wanted_ap50=0.9,
    limit_s=600,
)
COCO128 = Case(
    data="coco128",
    folder="coco128",
    pictures=None,
    batch=4,  # many small steps: what counts here is how often the weights move
    steps=2000,  # 62 times each picture
    short_edge=256,
    score_every=500,
    wanted_ap50=0.6,
    limit_s=2400,
    weights=BUNDLED,
    precision="fp32",
)
TABLE1 = replace(
    BCCD8,
    data="table1",
    steps=240,
    short_edge=256,
    score_every=40,
    limit_s=1800,
    precision="fp32",
)
# RetinaNet's towers have no normalisation and begin slowly, more so where they have to tell classes
# apart; GFL's cascade had not yet learned the rare small class.
LONGER = {
    "retinanet-r50-fpn": 960,
    "retinanet-r50-fpn-faster": 480,
    "retinanet-r50-fpn-cascade": 480,
    "gfl-r50-fpn-cascade": 480,
    "faster-rcnn-r50-fpn": 400,
}
OWN_SIZES = ("faster-rcnn-r50-fpn",)  # with anchors as they are: halved it learns too slowly
CASES = {case.data: case for case in (BCCD8, COCO128, TABLE1)}


def overfit_config(
    steps: int,
    short_edge: int,
    score_every: int = 0,
    batch: int = PICTURES,
    config: Config | None = None,
) -> Config:
    """A detector that sees the same pictures all the time: no flip, one size, that of the scoring.

    It is `nano` where no config is given.
    """
    config = config or nano()
    long_edge = short_edge * 3 // 2
    return replace(
        config,
        input=replace(config.input, short_edge=short_edge, long_edge=long_edge),
        train=replace(
            config.train,
            batch=batch,
            steps=steps,
            base_lr=0.02,
            lr_batch=batch,
            warmup_steps=min(30, steps // 4) * PICTURES // batch,
            schedule="cosine",
            precision="auto",
            resize=ShortEdgeConfig(smallest=short_edge, largest=short_edge, long_edge=long_edge),
            flip=0.0,
            workers=1,
            log_every=10 * PICTURES // batch,
            eval_every=score_every,
            save_every=steps,
        ),
    )


def overfit(
    data: Path,
    out: Path,
    config: Config,
    pictures: int | None = PICTURES,
    weights: Path | None = None,
) -> list[dict[str, Any]]:
    """Train on the first pictures of a set and score on them; the rows of the run's log."""
    content = first_pictures(data, pictures)
    subset = out / "first_pictures.json"
    subset.write_text(json.dumps(content))
    source = DataSource(annotations=subset, images=data / "images")
    files = RunFiles(train=(source,), val=source, out=out / "run")
    train(config, files, weights=weights, device="cpu")
    lines = (files.out / "log.jsonl").read_text().splitlines()
    return [json.loads(line) for line in lines]


def first_pictures(data: Path, count: int | None) -> dict[str, Any]:
    """The annotations of the first training pictures (None: of all), COCO."""
    content: dict[str, Any] = json.loads(
        (data / "annotations" / "instances_train.json").read_text()
    )
    content["images"] = content["images"][:count]
    kept = {image["id"] for image in content["images"]}
    content["annotations"] = [row for row in content["annotations"] if row["image_id"] in kept]
    return content


def describe_data(content: dict[str, Any], folder: Path) -> dict[str, int]:
    """How many pictures and objects, and how many of them are of a kind that could go wrong."""
    rows = content["annotations"]
    crowds = [row for row in rows if row.get("iscrowd")]
    objects = [row for row in rows if not row.get("iscrowd")]
    filled = {row["image_id"] for row in objects}
    names = [image["file_name"] for image in content["images"]]
    return {
        "pictures": len(names),
        "grey_pictures": sum(is_grey(folder / name) for name in names),
        "pictures_without_object": sum(image["id"] not in filled for image in content["images"]),
        "pictures_with_crowd": len({row["image_id"] for row in crowds}),
        "crowd_regions": len(crowds),
        "boxes": len(objects),
        "classes": len(content["categories"]),
        "classes_with_object": len({row["category_id"] for row in objects}),
    }


def is_grey(path: Path) -> bool:
    """Whether a file has one channel in place of three."""
    with Image.open(path) as picture:
        return picture.mode in ("1", "L", "LA", "I", "I;16")


def summarize(
    rows: list[dict[str, Any]], config: Config, case: Case, started: float
) -> dict[str, Any]:
    """What the result file says of the training: settings, scores, time, curve."""
    settings = config.train
    final = [row for row in rows if row["kind"] == "validation"][-1]
    seconds = rows[-1]["time"] - started
    return {
        "steps": settings.steps,
        "batch": settings.batch,
        "short_edge": config.input.short_edge,
        "precision": settings.precision,
        "weights": "fresh" if case.weights is None else str(case.weights.relative_to(ROOT)),
        "AP": final["AP"],
        "AP50": final["AP50"],
        "AP75": final["AP75"],
        "per_class": final["per_class"],
        "wanted_AP50": case.wanted_ap50,
        "seconds": round(seconds, 1),
        "limit_s": case.limit_s,
        "passed": final["AP50"] >= case.wanted_ap50 and seconds <= case.limit_s,
        "curve": [point(row, started) for row in rows],
    }


def point(row: dict[str, Any], started: float) -> dict[str, Any]:
    """A row of the log as a point of the curve."""
    keys = ("loss",) if row["kind"] == "train" else ("AP", "AP50")
    seconds = round(row["time"] - started, 1)
    return {"step": row["step"], "seconds": seconds} | {key: row[key] for key in keys}


def run(case: Case, config: Config, data: Path) -> dict[str, Any]:
    """Train and score; the content of the result file."""
    load_before = os.getloadavg()[0]
    started, cpu_before = time.time(), cpu_seconds()
    with tempfile.TemporaryDirectory() as folder:
        rows = overfit(data, Path(folder), config, case.pictures, case.weights)
    found = summarize(rows, config, case, started)
    curve = found.pop("curve")
    return {
        "preset": config.preset,
        **describe_data(first_pictures(data, case.pictures), data / "images"),
        **found,
        "cpu_seconds": round(cpu_seconds() - cpu_before, 1),  # data workers included
        "cpu": cpu_name(),
        "cores": cpu_cores(),
        "threads": torch.get_num_threads(),
        "load_before": round(load_before, 2),  # other work on the machine, in processes
        "versions": versions("torch", "torchvision"),
        "curve": curve,
    }


def cpu_seconds() -> float:
    """What this process and its finished children have computed so far."""
    times = os.times()
    return times.user + times.system + times.children_user + times.children_system


def config_of(case: Case, detector: Config) -> Config:
    """A detector, trained as the case says."""
    config = overfit_config(case.steps, case.short_edge, case.score_every, case.batch, detector)
    return replace(config, train=replace(config.train, precision=case.precision))


def run_table_1(
    case: Case, presets: Sequence[str], data: Path, target: Path
) -> dict[str, dict[str, Any]]:
    """Train those that are named, or else those that the result lacks; all rows of the result."""
    found = json.loads(target.read_text("utf-8"))["presets"] if target.is_file() else {}
    for preset in presets or [name for name in TABLE_1 if name not in found]:
        config = at_nano_size(preset, scale=1.0 if preset in OWN_SIZES else SCALE)
        longer = replace(case, steps=LONGER.get(preset, case.steps))
        found[preset] = run(longer, config_of(longer, config), data)
        write(target, {"presets": {name: found[name] for name in TABLE_1 if name in found}})
        tell(found[preset])
    return found


def write(path: Path, content: dict[str, Any]) -> None:
    """A result file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content, indent=1) + "\n")


def tell(result: dict[str, Any]) -> None:
    """The line on the terminal."""
    print(
        f"{result['preset']}: AP50 {result['AP50']:.3f} after {result['seconds']:.0f} s", flush=True
    )


def main() -> int:
    """Run, write the result, and tell by the exit code whether the goal was met."""
    options = parse()
    case = CASES[options.data]
    case = replace(
        case, steps=options.steps or case.steps, short_edge=options.short_edge or case.short_edge
    )
    target = options.json or RESULTS / f"overfit_{case.data}.json"
    shared = Path(os.environ.get("CN2_SHARED", ROOT.parent / "shared"))
    data = shared / "data" / case.folder
    if case.data == TABLE1.data:
        rows = run_table_1(case, options.presets or (), data, target)
        return 0 if all(row["passed"] for row in rows.values()) else 1
    result = run(case, config_of(case, nano()), data)
    write(target, result)
    tell(result)
    return 0 if result["passed"] else 1


def parse() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--data", choices=CASES, default=BCCD8.data)
    parser.add_argument("--presets", nargs="+", choices=TABLE_1, metavar="PRESET", help="of table1")
    parser.add_argument("--steps", type=int, help="default: what the goal was set for")
    parser.add_argument("--short-edge", type=int, help="pixels")
    parser.add_argument("--json", type=Path)
    return parser.parse_args()


if __name__ == "__main__":
    raise SystemExit(main())
