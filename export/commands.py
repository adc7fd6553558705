"""The command `cn2 export`."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, cast, get_args

import typer

from cn2.runtime.canvas import Interpolation
from cn2.runtime.manifest import DEFAULT_OPS, OperatorForm

if TYPE_CHECKING:
    from cn2.runtime.manifest import Manifest
    from cn2.trainer.config import Config

    from .verify import Verification

Option = typer.Option


def register(app: typer.Typer) -> None:
    """Add this folder's command to the command line."""
    app.command("export")(export_command)


def export_command(
    model: Annotated[Path, typer.Argument(help="Checkpoint, .safetensors.")],
    out: Annotated[Path, Option("--out", "-o", help="ONNX file to write.")],
    dynamic: Annotated[
        bool, Option("--dynamic", help="Any canvas in multiples of the divisor (the default).")
    ] = False,
    size: Annotated[
        str | None, Option(metavar="HxW", help="The only canvas, pixels, for example 384x512.")
    ] = None,
    batch: Annotated[
        str, Option(metavar="N|dynamic", help="The only number of pictures a run, or any.")
    ] = "dynamic",
    proposals: Annotated[
        int | None, Option(help="First-stage boxes per picture; default: the preset's.")
    ] = None,
    ops: Annotated[
        str,
        Option(
            metavar="standard|fused",
            help="Operators of ONNX alone, or ours too, which are faster where their library is, "
            "and run without it.",
        ),
    ] = DEFAULT_OPS,
    precision: Annotated[str, Option(help="Arithmetic: fp32.")] = "fp32",
    interpolation: Annotated[
        str | None,
        Option(
            metavar="antialias|linear",
            help="How pictures are resized: as Pillow does, or OpenCV, which is faster; "
            "default: as in training.",
        ),
    ] = None,
    verify: Annotated[
        Path | None,
        Option(metavar="DIR", help="Pictures to compare with torch on; default: bundled ones."),
    ] = None,
) -> None:
    """Turn a checkpoint into one ONNX file, and compare the two on real pictures."""
    form = parse_ops(ops)
    check_available("--precision", precision, ("fp32",))
    resize = None if interpolation is None else parse_interpolation(interpolation)
    if dynamic and size is not None:
        raise ValueError(f"--dynamic and --size {size}: expected one of them, got both")
    canvas = None if size is None else parse_size(size)
    pictures = parse_batch(batch)
    _export(model, out, canvas, pictures, proposals, form, resize, verify)


def _export(
    model: Path,
    out: Path,
    size: tuple[int, int] | None,
    batch: int | None,
    proposals: int | None,
    ops: OperatorForm,
    interpolation: Interpolation | None,
    folder: Path | None,
) -> None:
    """Write beside the file, verify, and only then put it in its place."""
    from rich.console import Console

    from .describe import open_checkpoint
    from .onnx_file import check_writable, export_onnx
    from .verify import bundled_pictures, pictures_in, require_agreement, verify_all

    check_writable(out)
    pictures = bundled_pictures() if folder is None else pictures_in(folder)
    draft = out.with_name(f".{out.name}.unverified")
    progress = Console(stderr=True)
    try:
        with progress.status(f"reading {model}") as status:
            detector, config, origin = open_checkpoint(model)
            config = resized_by(config, interpolation)
            status.update(f"writing {out.name}")
            manifest = export_onnx(
                detector,
                config,
                draft,
                size=size,
                batch=batch,
                proposals=proposals,
                ops=ops,
                origin=origin,
            )
            status.update(f"verifying on {len(pictures)} pictures")
            results = verify_all(draft, detector, config, pictures, status.update)
        for result in results.values():
            require_agreement(result)
        draft.replace(out)
    finally:
        draft.unlink(missing_ok=True)
    _print_summary(out, manifest, results)


def resized_by(config: Config, interpolation: Interpolation | None) -> Config:
    """The config with another resize of pictures; None: as it is."""
    if interpolation is None:
        return config
    return replace(config, input=replace(config.input, interpolation=interpolation))


def _print_summary(out: Path, manifest: Manifest, results: dict[str, Verification]) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table(box=None, pad_edge=False, show_header=False)
    canvas = manifest.canvas
    size = "any" if canvas.fixed is None else "{}x{}".format(*canvas.fixed)
    table.add_row("file", f"{out} ({out.stat().st_size / 1e6:.1f} MB)")
    table.add_row("preset", f"{manifest.preset}, {len(manifest.class_names)} classes")
    table.add_row(
        "canvas", f"{size}, in multiples of {canvas.divisor}, {canvas.interpolation} resize"
    )
    table.add_row("batch", "any" if manifest.batch is None else str(manifest.batch))
    if manifest.proposals is not None:
        table.add_row("proposals", str(manifest.proposals))
    table.add_row("operators", manifest.ops)
    table.add_row("licence", manifest.weights_license or "not stated")
    for way, result in results.items():
        if len(results) > 1:
            table.add_row(f"by {way}")
        for name, value in result.rows():
            table.add_row(name, value)
    Console(soft_wrap=True).print(table, markup=False, highlight=False)


def check_available(option: str, value: str, available: tuple[str, ...]) -> None:
    """Raise ValueError, naming what there is, unless the value is available."""
    if value not in available:
        raise ValueError(f"{option}: expected {' or '.join(available)}, got {value!r}")


def parse_ops(text: str) -> OperatorForm:
    """Raise ValueError unless it is one."""
    check_available("--ops", text, get_args(OperatorForm))
    return cast(OperatorForm, text)


def parse_interpolation(text: str) -> Interpolation:
    """Raise ValueError unless it is one."""
    check_available("--interpolation", text, get_args(Interpolation))
    return cast(Interpolation, text)


def parse_size(text: str) -> tuple[int, int]:
    """`HxW` as (height, width) in pixels.

    Raises:
        ValueError: of another form.
    """
    found = re.fullmatch(r"(\d{1,5})[xX](\d{1,5})", text.strip())
    if not found:
        raise ValueError(f"--size: expected HxW in pixels, for example 384x512, got {text!r}")
    return int(found[1]), int(found[2])


def parse_batch(text: str) -> int | None:
    """`N` as a number, `dynamic` as None.

    Raises:
        ValueError: of another form, or below 1.
    """
    if text == "dynamic":
        return None
    if not re.fullmatch(r"[1-9]\d{0,4}", text):
        raise ValueError(f"--batch: expected dynamic or a number from 1, got {text!r}")
    return int(text)
