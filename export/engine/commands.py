"""The command of this folder: `cn2 build`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from .build import Built
    from .model import EngineModel
    from .options import BuildOptions

Option = typer.Option


def register(app: typer.Typer) -> None:
    """Add this folder's command to the command line."""
    app.command("build")(build_command)


def build_command(
    model: Annotated[Path, typer.Argument(help="File of `cn2 export --ops fused`, .onnx.")],
    out: Annotated[Path, Option("--out", "-o", help="Engine to write, .engine.")],
    runtime: Annotated[
        str | None,
        Option(
            metavar="tensorrt|tensorrt-rtx",
            help="What will run the engine; default: the one that is installed, tensorrt first.",
        ),
    ] = None,
    target: Annotated[
        str | None,
        Option(
            metavar="sm_75,sm_86,...",
            help="GPUs that a tensorrt-rtx engine is for, by compute capability; none need be "
            "here. Default: Ampere (sm_86) and newer.",
        ),
    ] = None,
    batch: Annotated[
        str | None,
        Option(
            metavar="N|MIN:OPT:MAX",
            help="Pictures a run; fastest at OPT. Default: the file's number, or 1:1:8.",
        ),
    ] = None,
    size: Annotated[
        str | None,
        Option(
            metavar="HxW|MIN:OPT:MAX",
            help="Canvases, pixels, for example 320x320:384x512:576x576; fastest at OPT. "
            "Default: every canvas that the file takes.",
        ),
    ] = None,
    timing_cache: Annotated[
        Path | None,
        Option(
            metavar="FILE",
            help="Where tensorrt keeps what it measured, for quicker builds; default: one file "
            "per version and GPU in the user's cache folder.",
        ),
    ] = None,
    version_compatible: Annotated[
        bool,
        Option(
            "--version-compatible",
            help="Let newer versions of tensorrt run the engine too, more slowly.",
        ),
    ] = False,
    hardware_compatible: Annotated[
        str | None,
        Option(
            metavar="same|ampere",
            help="Let other GPUs of the same compute capability, or all since Ampere, run a "
            "tensorrt engine too, more slowly.",
        ),
    ] = None,
    tf32: Annotated[
        bool,
        Option("--tf32", help="Let fp32 layers round their inputs to 10 bits: faster, less exact."),
    ] = False,
    rebuild: Annotated[
        bool, Option("--rebuild", help="Build even if the same engine is there already.")
    ] = False,
    save_onnx: Annotated[
        Path | None,
        Option(
            metavar="FILE",
            help="Also write the ONNX file as TensorRT gets it, for NVIDIA's own tools.",
        ),
    ] = None,
) -> None:
    """Build a TensorRT engine from an exported ONNX file.

    The engine is the raw plan; MODEL.engine.json beside it says what it is. An engine that is
    there already and was built from the same file, versions, GPU and options is left as it is.
    """
    from .library import installed_runtime
    from .model import read_model
    from .options import BuildOptions, parse_hardware, parse_runtime, parse_targets
    from .profiles import make_profile

    check_output(out)
    chosen = None if runtime is None else parse_runtime(runtime)
    hardware = None if hardware_compatible is None else parse_hardware(hardware_compatible)
    targets = () if target is None else parse_targets(target)
    read = read_model(model)
    options = BuildOptions(
        runtime=chosen or installed_runtime(),
        profile=make_profile(read.manifest, batch, size),
        targets=targets,
        version_compatible=version_compatible,
        hardware_compatible=hardware,
        tf32=tf32,
    )
    if options.runtime == "tensorrt-rtx" and timing_cache is not None:
        raise ValueError(
            "--timing-cache: TensorRT-RTX measures nothing at build time; leave it out"
        )
    _build(read, options, model, out, timing_cache, rebuild, save_onnx)


def check_output(out: Path) -> None:
    """Raise ValueError, or OutputError, unless an engine can be written there."""
    from cn2.runtime.errors import OutputError

    if out.suffix.lower() != ".engine":
        raise ValueError(f"--out: expected a name that ends in .engine, got {out.name!r}")
    if out.is_dir():
        raise OutputError(f"{out}: expected a file to write, got a folder")
    if not out.absolute().parent.is_dir():
        raise OutputError(f"{out}: expected a folder to write to, found none; create it")


def _build(
    model: EngineModel,
    options: BuildOptions,
    source: Path,
    out: Path,
    timing_cache: Path | None,
    rebuild: bool,
    save_onnx: Path | None,
) -> None:
    from .build import build_engine
    from .files import write_whole
    from .gpu import gpu_to_build_on
    from .library import open_library
    from .progress import run_stoppable, shown_bars
    from .timing_cache import default_timing_cache
    from .tool_line import tool_line

    library = open_library(options.runtime)
    if options.runtime == "tensorrt" and timing_cache is None:
        timing_cache = default_timing_cache(library, gpu_to_build_on())
    with shown_bars() as bars:
        built = run_stoppable(
            lambda stop: build_engine(
                library,
                model,
                options,
                out,
                bars,
                stop,
                source=str(source),
                timing_cache=timing_cache,
                rebuild=rebuild,
            )
        )
    if save_onnx is not None:
        write_whole(save_onnx, model.onnx)
    line = tool_line(
        options,
        model.manifest,
        onnx=save_onnx or source,
        engine=out,
        plugins=library.plugins,
        timing_cache=timing_cache,
    )
    _print_summary(out, built, line, is_exact=save_onnx is not None)


def _print_summary(out: Path, built: Built, line: str, *, is_exact: bool) -> None:
    from rich.console import Console
    from rich.table import Table

    from .inspector import built_text

    about = built.about
    table = Table(box=None, pad_edge=False, show_header=False)
    size = f"{out.stat().st_size / 1e6:.1f} MB"
    state = f"built in {about.build['seconds']:.1f} s" if built.is_new else "there already"
    table.add_row("engine", f"{out} ({size}, {state})")
    table.add_row("runtime", f"{about.runtime} {about.version}")
    table.add_row("runs on", ", ".join(about.targets) + (f" ({about.device})" * bool(about.device)))
    profile = about.profiles[0]
    for name, values in (
        ("batch", profile.batch),
        ("height", profile.height),
        ("width", profile.width),
    ):
        table.add_row(name, f"{values[0]} to {values[2]}, fastest at {values[1]}")
    audit = about.build["audit"]
    table.add_row("precision", _precision_text(about.precision, audit["multiply_adds"]))
    table.add_row("as built", built_text(audit["engine"]))
    table.add_row("sha256", about.sha256)
    console = Console(soft_wrap=True, markup=False, highlight=False)
    console.print(table)
    note = "" if is_exact else ", but for the score threshold, which --save-onnx keeps free"
    console.print(f"\nNVIDIA's own tool builds the same{note}:\n{line}")


def _precision_text(precision: str, sums: dict[str, int]) -> str:
    from .audit import work_text

    total = sum(sums.values())
    work = f"{total / 1e9:.2f} G" if total >= 1e9 else f"{total / 1e6:.2f} M"
    return f"{precision}: of {work} multiply-adds {work_text(sums)}"
