"""The command `cn2 export`."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, TypedDict, cast, get_args

import typer

from cn2.runtime.canvas import Interpolation
from cn2.runtime.errors import Cn2Error
from cn2.runtime.manifest import DEFAULT_OPS, OperatorForm, Precision

if TYPE_CHECKING:
    from cn2.runtime.manifest import Manifest
    from cn2.trainer.config import Config
    from cn2.trainer.detector import AnyDetector

    from .precision_gate import Budget

Option = typer.Option
PRECISIONS = ("fp32", "fp16")
Row = tuple[str, str]


class FileForm(TypedDict):
    """What `export_onnx` is asked for."""

    size: tuple[int, int] | None
    batch: int | None
    proposals: int | None
    ops: OperatorForm
    precision: Precision


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
    precision: Annotated[
        str,
        Option(
            metavar="fp32|fp16",
            help="What most of the graph computes in; fp16 is compared with fp32 first.",
        ),
    ] = "fp32",
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
    budget_matched: Annotated[
        float | None,
        Option(help="fp16: least share of detections that fp32 finds too; default: 0.99."),
    ] = None,
    budget_score: Annotated[
        float | None,
        Option(help="fp16: largest difference of scores that count as the same; default: 0.01."),
    ] = None,
) -> None:
    """Turn a checkpoint into one ONNX file, and compare the two on real pictures."""
    check_available("--precision", precision, PRECISIONS)
    budget = make_budget(precision, budget_matched, budget_score)
    resize = None if interpolation is None else parse_interpolation(interpolation)
    if dynamic and size is not None:
        raise ValueError(f"--dynamic and --size {size}: expected one of them, got both")
    form = FileForm(
        size=None if size is None else parse_size(size),
        batch=parse_batch(batch),
        proposals=proposals,
        ops=parse_ops(ops),
        precision=cast(Precision, precision),
    )
    _export(model, out, form, resize, verify, budget)


def _export(
    model: Path,
    out: Path,
    form: FileForm,
    interpolation: Interpolation | None,
    folder: Path | None,
    budget: Budget | None,
) -> None:
    """Write beside the file, verify, and only then put it in its place."""
    from rich.console import Console

    from .describe import open_checkpoint
    from .onnx_file import check_writable, export_onnx
    from .verify import bundled_pictures, pictures_in

    check_writable(out)
    pictures = bundled_pictures() if folder is None else pictures_in(folder)
    draft = out.with_name(f".{out.name}.unverified")
    progress = Console(stderr=True)
    try:
        with progress.status(f"reading {model}") as status:
            detector, config, origin = open_checkpoint(model)
            config = resized_by(config, interpolation)
            status.update(f"writing {out.name}")
            manifest = export_onnx(detector, config, draft, origin=origin, **form)
            status.update(f"verifying on {len(pictures)} pictures")
            check = _verify if budget is None else partial(_pass_gate, budget)
            rows = check(draft, detector, config, pictures, status.update)
        draft.replace(out)
    finally:
        draft.unlink(missing_ok=True)
    _print_summary(out, manifest, rows)


def _verify(
    draft: Path,
    detector: AnyDetector,
    config: Config,
    pictures: list[Path],
    progress: Callable[[str], None],
) -> list[Row]:
    """What an fp32 file's comparison saw; raises where it finds something else than torch."""
    from .verify import require_agreement, verify_all

    results = verify_all(draft, detector, config, pictures, progress)
    rows: list[Row] = []
    for way, result in results.items():
        require_agreement(result)
        rows += [(f"by {way}", "")] if len(results) > 1 else []
        rows += result.rows()
    return rows


def _pass_gate(
    budget: Budget,
    draft: Path,
    detector: AnyDetector,
    config: Config,
    pictures: list[Path],
    progress: Callable[[str], None],
) -> list[Row]:
    """What an fp16 file's comparison saw; raises, and shows the worst, beyond the budget."""
    from .precision_gate import compare_precision, require_within

    report = compare_precision(draft, detector, config, pictures, budget, progress)
    try:
        require_within(report, budget)
    except Cn2Error:
        _print_rows(report.rows(budget), error=True)
        raise
    return report.rows(budget)


def resized_by(config: Config, interpolation: Interpolation | None) -> Config:
    """The config with another resize of pictures; None: as it is."""
    if interpolation is None:
        return config
    return replace(config, input=replace(config.input, interpolation=interpolation))


def _print_summary(out: Path, manifest: Manifest, checked: list[Row]) -> None:
    canvas = manifest.canvas
    size = "any" if canvas.fixed is None else "{}x{}".format(*canvas.fixed)
    rows = [
        ("file", f"{out} ({out.stat().st_size / 1e6:.1f} MB)"),
        ("preset", f"{manifest.preset}, {len(manifest.class_names)} classes"),
        ("canvas", f"{size}, in multiples of {canvas.divisor}, {canvas.interpolation} resize"),
        ("batch", "any" if manifest.batch is None else str(manifest.batch)),
    ]
    if manifest.proposals is not None:
        rows.append(("proposals", str(manifest.proposals)))
    rows += [
        ("operators", manifest.ops),
        ("precision", manifest.precision),
        ("licence", manifest.weights_license or "not stated"),
    ]
    _print_rows(rows + checked)


def _print_rows(rows: list[Row], *, error: bool = False) -> None:
    """Names and values, to stdout or stderr."""
    from rich.console import Console
    from rich.table import Table

    table = Table(box=None, pad_edge=False, show_header=False)
    for row in rows:
        table.add_row(*row)
    Console(stderr=error, soft_wrap=True).print(table, markup=False, highlight=False)


def make_budget(precision: str, matched: float | None, score: float | None) -> Budget | None:
    """What fp16 may change; None for fp32, which has another check.

    Raises:
        ValueError: a number that is none of a share, or that fp32 has no use for.
    """
    wanted = {"matched": matched, "score": score}
    given = {name: value for name, value in wanted.items() if value is not None}
    if precision == "fp16":
        from .precision_gate import Budget

        return Budget(**given)
    if given:
        raise ValueError(
            f"--budget-{next(iter(given))}: expected with --precision fp16 alone, got {precision}"
        )
    return None


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
