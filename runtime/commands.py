"""The commands detect, eval, bench, info, doctor and demo: options in, calls of their modules."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from .cli import USER_ERROR
from .errors import PictureError
from .reports import ready_file, ready_folder, write_json

if TYPE_CHECKING:
    from .detector import Detector

Argument, Option = typer.Argument, typer.Option

Model = Annotated[
    Path,
    Argument(
        metavar="MODEL",
        help="A .onnx file of cn2 export, an .engine of cn2 build, or a .safetensors (torch).",
    ),
]
Backend = Annotated[str, Option(help="auto, onnxruntime, native, tensorrt, torch.", metavar="NAME")]
Device = Annotated[str, Option(help="auto, cpu, cuda, cuda:1, …", metavar="NAME")]
Threads = Annotated[
    int | None,
    Option(help="CPU threads of ONNX Runtime; default: one per core.", metavar="N", min=1),
]
Stage = Annotated[str, Option(help="last, or first: the proposals.", metavar="NAME")]
Json = Annotated[str | None, Option(help="Write the results here; - is stdout.", metavar="FILE")]


def register(app: typer.Typer) -> None:
    """Add this folder's commands to the command line."""
    app.command("detect")(detect)
    app.command("eval")(eval_)
    app.command("bench")(bench)
    app.command("info")(info)
    app.command("doctor")(doctor)
    app.command("demo")(demo)


def detect(
    model: Model,
    sources: Annotated[
        list[str],
        Argument(
            metavar="SOURCE",
            help="Pictures, folders (searched with their sub-folders), or globs.",
        ),
    ],
    out: Annotated[
        Path | None, Option(help="Write pictures with boxes to this folder.", metavar="DIR")
    ] = None,
    score: Annotated[
        float, Option(help="Show objects above this score.", metavar="0..1", min=0, max=1)
    ] = 0.3,
    backend: Backend = "auto",
    device: Device = "auto",
    stage: Stage = "last",
    json: Json = None,
    batch: Annotated[int, Option(help="Pictures held and run at a time.", metavar="N", min=1)] = 1,
    threads: Threads = None,
    max_pixels: Annotated[
        int | None,
        Option(help="Refuse pictures of more pixels; default: 100 million.", metavar="N", min=1),
    ] = None,
) -> None:
    """Find objects in pictures.

    Prints a table of files, objects and milliseconds. A picture that cannot be read costs one line
    on stderr and the exit code 2; the others are searched all the same.
    """
    from .detect_command import describe_model, detect_files, results_document, results_table
    from .sources import find_sources, result_paths

    found, problems = find_sources(sources, skip=out)
    ready_file(json, [model, *(source.path for source in found)])
    targets = None
    if out is not None:
        ready_folder(out)
        targets = dict(zip(found, result_paths(found, out), strict=True))
    for word, reason in problems:
        _tell_error(f"{word}: {reason}")
    limits = {} if max_pixels is None else {"max_pixels": max_pixels}
    with _open(model, backend, device, threads, stage=stage, max_batch=batch, **limits) as detector:
        with _progress("detect", len(found)) as advance:
            done = detect_files(
                detector,
                found,
                score_threshold=score,
                targets=targets,
                tell=_tell_error,
                advance=advance,
            )
        done.failed[:0] = problems
        if json is not None:
            write_json(json, results_document(describe_model(detector, model), done))
    if done.results:
        typer.echo(results_table(done), err=json == "-")
    failed, total = len(done.failed), len(found) + len(problems)
    if failed == total == 1:
        raise typer.Exit(USER_ERROR)  # its line says it all
    if failed:
        rest = "none is left" if failed == total else "the results of the others are complete"
        raise PictureError(f"{failed} of {total} sources failed, see above; {rest}")


def eval_(
    model: Model,
    annotations: Annotated[
        Path,
        Option(
            help="COCO JSON, YOLO data.yaml (its val split, or data.yaml:test) or folder of .txt, "
            "Pascal VOC folder or list.",
            metavar="PATH",
        ),
    ],
    images: Annotated[
        Path | None,
        Option(
            help="The folder of their pictures, where the format leaves it open.", metavar="DIR"
        ),
    ] = None,
    backend: Backend = "auto",
    device: Device = "auto",
    proposals: Annotated[
        bool, Option("--proposals", help="Of the first stage: recall at 64 to 1000 proposals.")
    ] = False,
    json: Json = None,
    threads: Threads = None,
) -> None:
    """COCO or LVIS metrics of a model file on annotated pictures."""
    from .annotations import read_annotations
    from .detect_command import describe_model
    from .eval_command import evaluate, evaluate_proposals, metrics_table, recall_table
    from .proposal_recall import PROPOSALS

    truth = read_annotations(annotations, images)
    pictures = [truth.folder / image["file_name"] for image in truth.content["images"]]
    ready_file(json, [model, annotations, *pictures])
    with (
        _open(
            model,
            backend,
            device,
            threads,
            stage="first" if proposals else "last",
            proposals=max(PROPOSALS) if proposals else None,
        ) as detector,
        _progress("eval", len(pictures)) as advance,
    ):
        run = evaluate_proposals if proposals else evaluate
        metrics = run(detector, truth, tell=_tell_error, advance=advance)
        metrics |= {"annotations": str(annotations), "model": describe_model(detector, model)}
    if json is not None:
        write_json(json, metrics)
    table = recall_table if proposals else metrics_table
    typer.echo(table(metrics), err=json == "-")
    if metrics["failed"]:
        raise PictureError(
            f"{len(metrics['failed'])} of {metrics['images']} pictures could not be read and "
            f"count as if nothing was found in them"
        )


def bench(
    models: Annotated[list[Path], Argument(metavar="MODEL", help="Model files.")],
    images: Annotated[
        Path | None, Option(help="Real pictures; default: the bundled ones.", metavar="DIR")
    ] = None,
    batch: Annotated[str, Option(help="Pictures a call; several: 1,8.", metavar="N,...")] = "1",
    runs: Annotated[
        int | None, Option(help="Timed calls; default: 100, 20 if above 1 s.", metavar="N", min=1)
    ] = None,
    warmup: Annotated[
        int | None,
        Option(help="Calls before them; default: 20, 3 if above 1 s.", metavar="N", min=0),
    ] = None,
    threads: Threads = None,
    backend: Backend = "auto",
    device: Device = "auto",
    json: Json = None,
) -> None:
    """Latency and throughput of model files, per stage, from picture file to detections.

    Several models are run in turns, picture by picture, and compared with the first.
    """
    from .bench import bench_tables, measure, open_contestant, plan_of

    plan = plan_of(images, _integers("batch", batch), runs, warmup)
    ready_file(json, [*models, *plan.pictures])
    contestants = [
        open_contestant(
            str(path),
            partial(_open, path, backend, device, threads, max_batch=max(plan.batches)),
            threads,
        )
        for path in models
    ]
    rows = measure(contestants, plan, tell=_tell)
    if json is not None:
        write_json(json, rows)
    typer.echo(bench_tables(rows), err=json == "-")


def info(model: Model, json: Json = None) -> None:
    """What a model file says of itself, its graph, and what can run it here."""
    from .info import info_text, inspect_model

    ready_file(json, [model])
    _hand_back(inspect_model(model), info_text, json)


def doctor(json: Json = None) -> None:
    """Which backends work here; for those that don't, why, and the fix."""
    from .doctor import diagnose, doctor_text

    ready_file(json)
    _hand_back(diagnose(), doctor_text, json)


def demo(
    out: Annotated[Path, Option(help="Folder for everything it writes.", metavar="DIR")] = Path(
        "out/demo"
    ),
    score: Annotated[
        float, Option(help="Draw objects above this score.", metavar="0..1", min=0, max=1)
    ] = 0.3,
) -> None:
    """The bundled checkpoint, exported to ONNX, on the bundled pictures.

    Writes the ONNX file, the pictures with boxes and detections.json.
    """
    from .demo import demo_text, run_demo

    typer.echo(demo_text(run_demo(out, score_threshold=score, tell=_tell)))


def _open(
    model: Path,
    backend: str,
    device: str,
    threads: int | None,
    *,
    stage: str = "last",
    proposals: int | None = None,
    **options: Any,
) -> Detector:
    """The whole detector; or of its first stage, of so many proposals, by torch."""
    from .detector import Detector

    if stage not in ("first", "last"):
        raise ValueError(f"stage: expected first or last, got {stage}")
    if stage == "first":
        if model.suffix.lower() != ".safetensors" or backend not in ("auto", "torch"):
            raise ValueError(
                f"stage: expected a .safetensors checkpoint and the backend torch for the first "
                f"stage alone, got {model.name} and {backend}"
            )
        from .backends.opening import open_first_stage

        return Detector(open_first_stage(model, device, proposals), **options)
    if threads is not None:
        if model.suffix.lower() == ".engine":
            raise ValueError(
                f"threads: expected none for {model.name}, which runs on a GPU; leave --threads out"
            )
        if model.suffix.lower() != ".onnx":
            raise ValueError(
                "threads: expected none for torch, which takes them from its environment; "
                f"set OMP_NUM_THREADS={threads} instead"
            )
        options["threads"] = threads
    return Detector.open(model, backend, device, **options)


def _hand_back(
    report: dict[str, Any], text: Callable[[dict[str, Any]], str], json: str | None
) -> None:
    if json is not None:
        write_json(json, report)
    if json != "-":
        typer.echo(text(report))


def _integers(name: str, text: str) -> list[int]:
    parts = text.replace(",", " ").split()
    if not parts or not all(part.isdecimal() for part in parts):
        raise ValueError(f"{name}: expected numbers such as 1,8, got {text!r}")
    return [int(part) for part in parts]


def _tell(line: str) -> None:
    typer.echo(f"cn2: {line}", err=True)


def _tell_error(line: str) -> None:
    typer.echo(f"cn2: error: {line}", err=True)


@contextmanager
def _progress(name: str, total: int) -> Iterator[Callable[[], None]]:
    """A progress bar on stderr, in a terminal only; yields what to call after each picture."""
    from rich.console import Console
    from rich.progress import Progress

    console = Console(stderr=True)
    with Progress(console=console, transient=True, disable=not console.is_terminal) as progress:
        task = progress.add_task(name, total=total)
        yield lambda: progress.advance(task)
