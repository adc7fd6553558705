"""Make the tables of docs/training.md from presets, recipes and a result; none is typed.

python benchmarks/recipe_table.py            # put the tables between their markers
python benchmarks/recipe_table.py --check    # fail if they are not what the presets say
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from cn2.trainer.config import Config
from cn2.trainer.model_config import FirstStage, ModelConfig
from cn2.trainer.presets import PRESETS
from cn2.trainer.recipes import PICTURES_1X, RESIZES, SCHEDULES
from cn2.trainer.train_config import Resize, ShortEdgeConfig, TrainConfig
from tables import ROOT, fill, read
from time_tables import footnote, group_table, speed_table

PAGE = ROOT / "docs" / "training.md"
SPEED = ROOT / "benchmarks" / "results" / "training.json"  # of training.py

COLUMNS = 6  # presets side by side


def main(arguments: Sequence[str] | None = None) -> int:
    """Write or check; the exit code."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--check", action="store_true", help="write nothing; exit 1 if stale")
    parser.add_argument("--page", type=Path, default=PAGE)
    options = parser.parse_args(arguments)
    try:
        text = options.page.read_text("utf-8")
        wanted = fill(text, "recipes", recipe_table())
        wanted = fill(wanted, "schedules", schedule_table())
        wanted = fill(wanted, "resizes", resize_table())
        wanted = fill(wanted, "times", time_tables())
    except (OSError, ValueError) as error:
        print(f"recipe_table: error: {error}", file=sys.stderr)
        return 2
    if text == wanted:
        return 0
    if options.check:
        print(f"{options.page}: a table is stale; run python benchmarks/recipe_table.py")
        return 1
    options.page.write_text(wanted, "utf-8")
    print(f"{options.page}: tables written")
    return 0


def recipe_table() -> str:
    """A column per preset, a row per setting, in tables that fit a page; what all share is said."""
    configs = [make() for make in PRESETS.values()]
    cells = {name: [show(config) for config in configs] for name, show in SETTINGS.items()}
    same = {name: values[0] for name, values in cells.items() if len(set(values)) == 1}
    tables = []
    for start in range(0, len(configs), COLUMNS):
        some = slice(start, start + COLUMNS)
        rows = [["setting", *(f"`{config.preset}`" for config in configs[some])]]
        rows += [[name, *cells[name][some]] for name in cells if name not in same]
        tables.append(markdown(rows))
    shared = "; ".join(f"{name} {value}" for name, value in same.items())
    return "\n\n".join([*tables, f"The same for all: {shared}."])


def schedule_table() -> str:
    """A row per named schedule, for batches of 16 and of 64."""
    rows = [["`--schedule`", "pictures", "steps of 16", "steps of 64", "rate / 10 at", "cycles"]]
    for name, schedule in SCHEDULES.items():
        pictures = PICTURES_1X * schedule.length * schedule.cycles
        drops = ", ".join(f"{share:.1%}" for share in schedule.milestones)
        steps = [f"{pictures // batch:,}" for batch in (16, 64)]
        cycles = f"{schedule.cycles}, rate x {schedule.rate:g}" if schedule.cycles > 1 else "1"
        rows.append([f"`{name}`", f"{pictures / 1e6:.2f} M", *steps, drops, cycles])
    return markdown(rows)


def resize_table() -> str:
    """A row per named size of training pictures."""
    rows = [["`--resize`", "pictures of a step"]]
    rows += [[f"`{name}`", show_resize(resize)] for name, resize in RESIZES.items()]
    return markdown(rows)


def time_tables() -> str:
    """Speed of training and where the time goes, as training.py measured it."""
    if not SPEED.is_file():
        return "Not measured yet."
    found = read(SPEED)
    return "\n\n".join(
        [markdown(speed_table(found)), markdown(group_table(found)), footnote(found)]
    )


def markdown(rows: list[list[str]]) -> str:
    """The rows as a table; the first one is the heading."""
    lines = ["| " + " | ".join(row) + " |" for row in rows]
    return "\n".join([lines[0], "| " + " | ".join(["---"] * len(rows[0])) + " |", *lines[1:]])


def show_schedule(train: TrainConfig) -> str:
    """The shape of the rate over a training."""
    if train.schedule == "cosine":
        return "cosine to 0"
    return "/ 10 at " + ", ".join(f"{share:.1%}" for share in train.milestones)


def show_resize(resize: Resize) -> str:
    """The sizes that training pictures have, pixels."""
    if isinstance(resize, ShortEdgeConfig):
        return (
            f"short edge {resize.smallest} to {resize.largest} by {resize.step}, "
            f"long edge <= {resize.long_edge}"
        )
    return (
        f"{resize.size} x {resize.size} cut out, scale {resize.scale[0]:g} to {resize.scale[1]:g}"
    )


def show_length(train: TrainConfig) -> str:
    """Pictures that a training sees, in 1x where it is one of them."""
    pictures = train.steps * train.batch
    times = pictures / PICTURES_1X
    whole = f", {times:.0f}x" if times == round(times) else ""
    return f"{pictures / 1e6:.2f} M{whole}"


def show_clip(train: TrainConfig) -> str:
    """What gradients are cut at."""
    limits = {"norm": train.clip_norm, "each value": train.clip_value}
    return ", ".join(f"{name} {limit:g}" for name, limit in limits.items() if limit) or "nothing"


def show_first_stage(first: FirstStage) -> str:
    """The weights of its losses, of likelihoods and of boxes."""
    match first.kind:
        case "centernet":
            likelihood = first.heatmap_weight
        case "gfl":
            likelihood = first.quality_weight
        case _:
            likelihood = first.classification_weight
    return f"{likelihood:g}, {first.regression_weight:g}"


def show_class_loss(model: ModelConfig) -> str:
    """What the classifiers are trained with."""
    second = model.second_stage
    if second is None:
        alone = {"centernet": "focal, on the heat maps", "gfl": "quality focal"}
        return alone.get(model.first_stage.kind, "focal")
    if second.federated is not None:
        return f"{second.classifier}, federated: {second.federated.classes} classes"
    return second.classifier


def yes(value: object) -> str:
    """As a cell."""
    return "yes" if value else "no"


SETTINGS: dict[str, Callable[[Config], str]] = {
    "batch": lambda c: str(c.train.batch),
    "steps": lambda c: f"{c.train.steps:,}",
    "pictures seen": lambda c: show_length(c.train),
    "learning rate": lambda c: f"{c.train.base_lr * c.train.batch / c.train.lr_batch:g}",
    "schedule": lambda c: show_schedule(c.train),
    "warm-up": lambda c: f"{c.train.warmup_steps} steps from x {c.train.warmup_factor:g}",
    "momentum, weight decay": lambda c: f"{c.train.momentum:g}, {c.train.weight_decay:g}",
    "gradients cut at": lambda c: show_clip(c.train),
    "training pictures": lambda c: show_resize(c.train.resize),
    "horizontal flip": lambda c: f"{c.train.flip:g}",
    "pictures at inference": lambda c: f"{c.input.short_edge} / {c.input.long_edge}",
    "input": lambda c: f"{c.input.color_order}, std {c.input.pixel_std[0]:g} ...",
    "frozen stages": lambda c: str(c.model.backbone.frozen_stages),
    "BatchNorm over all GPUs": lambda c: yes(c.train.sync_batch_norm),
    "first stage: likelihood, box": lambda c: show_first_stage(c.model.first_stage),
    "more positives": lambda c: yes(getattr(c.model.first_stage, "extra_positives", None)),
    "RoIs of a picture": lambda c: (
        str(c.model.second_stage.rois_per_image) if c.model.second_stage else "no second stage"
    ),
    "class loss": lambda c: show_class_loss(c.model),
    "precision": lambda c: c.train.precision,
    "mean weights (EMA)": lambda c: f"{c.train.ema_decay:g}" if c.train.ema_decay else "none",
}

if __name__ == "__main__":
    sys.exit(main())
