"""The commands `cn2 train` and `cn2 presets`."""

from __future__ import annotations

import difflib
import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from cn2.runtime.errors import Cn2Error

if TYPE_CHECKING:
    from rich.table import Table

    from .config import Config
    from .data.datasets import DataSource
    from .model_config import Backbone, ModelConfig

Option = typer.Option
FIRST_STAGE_NAMES = {
    "centernet": "CenterNet",
    "retinanet": "RetinaNet",
    "atss": "ATSS",
    "gfl": "GFL",
    "rpn": "RPN",
}
NECK_NAMES = {"fpn": "FPN", "bifpn": "BiFPN", "dla-up": "DLA-up"}


def register(app: typer.Typer) -> None:
    """Add this folder's commands to the command line."""
    app.command("train")(train_command)
    app.command("presets")(presets_command)


def train_command(
    preset: Annotated[str, typer.Argument(help="Name of a detector; see cn2 presets.")],
    train: Annotated[
        list[Path],
        Option(
            help="Annotations to learn from: COCO JSON, YOLO data.yaml or folder of .txt, Pascal "
            "VOC folder or list. Repeatable: the sets are joined.",
            metavar="PATH",
        ),
    ],
    val: Annotated[Path, Option(help="Annotations to score on.", metavar="PATH")],
    out: Annotated[Path, Option(help="Folder for checkpoints and log.")],
    train_images: Annotated[
        list[Path] | None,
        Option(
            help="Folder of the training pictures, where the format leaves it open; one for each "
            "--train, or one for all.",
            metavar="DIR",
        ),
    ] = None,
    val_images: Annotated[
        Path | None, Option(help="Folder of the pictures to score on.", metavar="DIR")
    ] = None,
    weights: Annotated[Path | None, Option(help="Checkpoint to start from.")] = None,
    backbone: Annotated[
        Path | None, Option(help="File of ImageNet weights for the backbone (torchvision, timm).")
    ] = None,
    schedule: Annotated[
        str | None, Option(help="Length by name: 1x (12 COCO epochs), 2x, 4x, 8x, 16x, long.")
    ] = None,
    resize: Annotated[
        str | None, Option(help="Picture sizes by name: 640-800, 480-960, 256-608, crop-640, ...")
    ] = None,
    resume: Annotated[bool, Option("--resume", help="Continue the run in --out.")] = False,
    set_: Annotated[
        list[str] | None, Option("--set", help="Change a setting: key.path=value; repeatable.")
    ] = None,
    device: Annotated[str, Option(help="auto, cpu, cuda.")] = "auto",
    license: Annotated[
        str | None,
        Option(help="Licence of the weights. Default: that of those it starts from."),
    ] = None,
    check: Annotated[
        bool, Option("--check", help="Look at the data, write OUT/check, and stop.")
    ] = False,
) -> None:
    """Train a detector on annotated pictures."""
    # Read when torch loads. Threads that spin while they wait made steps ten times slower on cores
    # that other processes, the data workers among them, need too.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    from .data.datasets import pair_sources

    config = choose_config(preset, set_ or [], schedule, resize)
    trains = pair_sources(train, train_images or [], split="train", option="--train")
    vals = pair_sources([val], [val_images] if val_images else [], split="val", option="--val")
    if check:
        raise typer.Exit(run_check(config, trains, vals[0], out))
    from .run import RunFiles, inherited_license
    from .train import train as run_training

    license = license or inherited_license(weights, out if resume else None)
    files = RunFiles(train=trains, val=vals[0], out=out, license=license)
    try:
        run_training(
            config, files, weights=weights, backbone=backbone, resume=resume, device=device
        )
    except KeyboardInterrupt:
        raise typer.Exit(130) from None
    except (Cn2Error, ValueError) as error:
        rank = os.environ.get("RANK", "0")
        if rank == "0":
            raise
        raise Cn2Error(f"rank {rank}: {error}") from None
    except RuntimeError as error:
        if os.environ.get("WORLD_SIZE", "1") == "1" or not is_lost_peer(error):
            raise
        raise Cn2Error("another process of this training ended; its own message says why") from None


def is_lost_peer(error: RuntimeError) -> bool:
    """Whether torch.distributed found another process gone."""
    from torch.distributed import DistError

    return isinstance(error, DistError) or "gloo" in str(error) or "Connection" in str(error)


def choose_config(
    preset: str, overrides: list[str], schedule: str | None, resize: str | None
) -> Config:
    """A preset with a named schedule and picture size; single settings come last and win.

    Raises:
        ValueError: an unknown name or setting; the nearest one is named.
    """
    from .config import apply_overrides
    from .recipes import with_resize, with_schedule

    config = apply_overrides(find_preset(preset), overrides)  # a schedule depends on train.batch
    if schedule is not None:
        config = with_schedule(config, schedule)
    if resize is not None:
        config = with_resize(config, resize)
    return apply_overrides(config, overrides)


def run_check(config: Config, train: tuple[DataSource, ...], val: DataSource, out: Path) -> int:
    """Check the data and print the report; the exit code: 0, or 2 with errors."""
    from .check.run import REPORT, SHEET, check_datasets
    from .check.tables import print_report

    report = check_datasets(config, train, val, out)
    print_report(report.sets, report.findings)
    found = report.findings
    typer.echo(
        f"\n{found.count('error')} errors, {found.count('warning')} warnings in "
        f"{report.seconds:.1f} s; {report.folder / REPORT}, {report.folder / SHEET}"
    )
    return 0 if report.clean else 2


def presets_command() -> None:
    """List every detector: parts, input size, parameters."""
    from rich.console import Console

    console = Console()
    if not console.is_terminal:
        console = Console(width=160)  # a pipe has no width: nothing need be folded
    console.print(presets_table())


def find_preset(name: str) -> Config:
    """The config of a preset by its name.

    Raises:
        ValueError: no such preset; the nearest one is named.
    """
    from .presets import PRESETS

    if name not in PRESETS:
        near = difflib.get_close_matches(name, PRESETS, 1)
        hint = f"; did you mean {near[0]!r}?" if near else ""
        raise ValueError(f"preset: expected a name that `cn2 presets` lists, got {name!r}{hint}")
    return PRESETS[name]()


def presets_table() -> Table:
    """A row per preset; parameters are counted on the meta device, so nothing is allocated."""
    from rich.table import Table

    from .presets import PRESETS

    table = Table(box=None, pad_edge=False)
    table.add_column("preset", no_wrap=True)
    for column in ("backbone", "neck", "first stage", "second stage", "short/long edge"):
        table.add_column(column)
    for column in ("parameters", "classes"):
        table.add_column(column, justify="right")
    for name, make in PRESETS.items():
        table.add_row(name, *describe(make()))
    return table


def describe(config: Config) -> tuple[str, ...]:
    """Backbone, neck, both stages, input size, parameters, default number of classes."""
    import torch

    from .build import build_detector

    model = config.model
    with torch.device("meta"):
        parameters = sum(p.numel() for p in build_detector(config).parameters())
    levels = "-".join(
        f"P{level}" for level in sorted({model.neck.levels[0], model.neck.levels[-1]})
    )
    return (
        backbone_name(model.backbone),
        f"{NECK_NAMES[model.neck.kind]} {levels}, {model.neck.channels} channels",
        *stage_names(model),
        f"{config.input.short_edge}/{config.input.long_edge} {config.input.interpolation}",
        f"{parameters / 1e6:.1f} M",
        str(len(config.class_names)),
    )


def stage_names(model: ModelConfig) -> tuple[str, str]:
    """Both stages in words."""
    second = model.second_stage
    name = FIRST_STAGE_NAMES[model.first_stage.kind]
    if second is None:
        likelihoods = "heat map" if model.first_stage.kind == "centernet" else "likelihood"
        return f"{name}, a {likelihoods} per class", "none"
    first = f"{name}, {model.first_stage.test_filter.post_nms} proposals"
    stages = len(second.ious)
    kind = f"cascade of {stages}" if stages > 1 else "one box head"
    if second.per_class_boxes:
        kind += ", boxes of each class"
    return first, kind if second.classifier == "softmax" else f"{kind}, {second.classifier}"


def backbone_name(backbone: Backbone) -> str:
    """Kind and depth as papers write them."""
    deformable = "-DCN" if getattr(backbone, "deformable_stages", ()) else ""
    match backbone.kind:
        case "resnet" if backbone.groups > 1:
            size = f"{backbone.groups}x{backbone.group_width}d"
            return f"ResNeXt-{backbone.depth}-{size}{deformable}"
        case "resnet":
            return f"ResNet-{backbone.depth}{deformable}"
        case "res2net":
            return f"Res2Net-{backbone.depth}{deformable}"
        case "dla":
            return f"DLA-{backbone.depth}"
        case "nano":
            return "nano"
        case "efficientnet-lite":
            return f"EfficientNet-Lite{backbone.variant}"
