"""The command `cn2 convert`."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from .run import Conversion

Option = typer.Option
NAMES_SHOWN = 5  # of tensors left over; --json has all


def register(app: typer.Typer) -> None:
    """Add this folder's command to the command line."""
    app.command("convert")(convert_command)


def convert_command(
    checkpoint: Annotated[
        Path, typer.Argument(help="Official checkpoint: .pth, .pt or .pkl of detectron2.")
    ],
    out: Annotated[
        Path, Option("--out", "-o", help="Checkpoint to write.", metavar="MODEL.safetensors")
    ],
    preset: Annotated[
        str | None,
        Option(help="Which detector it is, where its tensors fit several.", metavar="NAME"),
    ] = None,
    classes: Annotated[
        Path | None,
        Option(
            help="Classes of a fine-tuned checkpoint: a text file with one name a line, a COCO "
            "JSON or a YOLO data.yaml. Default: the preset's, or numbers.",
            metavar="FILE",
        ),
    ] = None,
    ema: Annotated[bool, Option("--ema", help="Take the averaged weights (EMA) in it.")] = False,
    set_: Annotated[
        list[str] | None,
        Option("--set", help="Change a setting: key.path=value; repeatable.", metavar="KEY=VALUE"),
    ] = None,
    license: Annotated[
        str | None,
        Option(help="Licence of the weights. Default: that of the official ones.", metavar="TEXT"),
    ] = None,
    json: Annotated[
        str | None, Option(help="Write the report here; - is stdout.", metavar="FILE")
    ] = None,
) -> None:
    """Turn an official CenterNet2 checkpoint into one of cn2; no code in it is run."""
    from cn2.runtime.errors import OutputError
    from cn2.runtime.reports import ready_file, write_json

    from .run import Request, convert

    if out.suffix != ".safetensors":
        raise OutputError(f"{out}: expected a name that ends in .safetensors, got {out.name!r}")
    inputs = [checkpoint, *([classes] if classes is not None else [])]
    _refuse_input_as_output(out, inputs)
    ready_file(json, [*inputs, out])
    conversion = convert(
        Request(
            source=checkpoint,
            out=out,
            preset=preset,
            classes=classes,
            ema=ema,
            overrides=set_ or (),
            license=license,
        )
    )
    if json is not None:
        write_json(json, report(conversion, checkpoint, out))
    for line in summary(conversion, out):
        typer.echo(line, err=json == "-")


def _refuse_input_as_output(out: Path, inputs: list[Path]) -> None:
    """Raise OutputError for an output that is one of the inputs, or cannot be a file."""
    from cn2.runtime.errors import OutputError

    if out.is_dir():
        raise OutputError(f"{out}: expected a file to write, got a folder; add a file's name")
    parent = out.absolute().parent
    if parent.exists() and not (parent.is_dir() and os.access(parent, os.W_OK)):
        raise OutputError(f"{out}: cannot be written: expected a folder {parent} that can be")
    for file in inputs:
        if out.exists() and file.exists() and out.samefile(file):
            raise OutputError(
                f"{out}: expected a file to write, got one that is read; choose another"
            )


def report(conversion: Conversion, checkpoint: Path, out: Path) -> dict[str, Any]:
    """What `--json` writes (docs/convert.md)."""
    fit, config = conversion.fit, conversion.config
    return {
        "file": str(out),
        "source": str(checkpoint),
        "sha256": conversion.sha256,
        "preset": config.preset,
        "also_fits": list(conversion.also_fits),
        "classes": len(config.class_names),
        "license": conversion.license,
        "table": conversion.read.used,
        "other_table": conversion.read.other,
        "used": list(fit.used),
        "not_needed": list(fit.not_needed),
        "left_over": list(fit.left_over),
    }


def summary(conversion: Conversion, out: Path) -> Iterator[str]:
    """The same for people, a line for each fact."""
    fit, read, names = conversion.fit, conversion.read, conversion.config.class_names
    yield f"file        {out} ({out.stat().st_size / 1e6:.1f} MB)"
    yield f"preset      {conversion.config.preset}{_others(conversion)}"
    yield f"classes     {len(names)}: {', '.join(names[:NAMES_SHOWN])}{_dots(names)}"
    yield (
        f"tensors     {len(fit.used)} used, 0 missing, {len(fit.not_needed)} not needed, "
        f"{len(fit.left_over)} left over"
    )
    if fit.left_over:
        yield f"left over   {', '.join(fit.left_over[:NAMES_SHOWN])}{_dots(fit.left_over)}"
    if read.other:
        hint = "" if read.averaged else " (--ema takes them)"
        yield f"weights     of {read.used or 'the rest'}; those of {read.other} were not used{hint}"
    yield f"licence     {conversion.license}"


def _others(conversion: Conversion) -> str:
    others = conversion.also_fits
    if not others:
        return ""
    verb = "was" if len(others) == 1 else "were"
    return f"; {', '.join(others)}, of the same parts, {verb} passed over: --preset chooses"


def _dots(names: tuple[str, ...]) -> str:
    return ", …" if len(names) > NAMES_SHOWN else ""
