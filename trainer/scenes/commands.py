"""`cn2 scenes`: write synthetic scenes with COCO annotations."""

from pathlib import Path
from typing import Annotated

import typer


def scenes(
    out: Annotated[Path, typer.Argument(help="Folder for pictures and annotations.json.")],
    count: Annotated[int, typer.Option(help="Number of pictures.")] = 1000,
    seed: Annotated[int, typer.Option(help="Seed of the first; the next ones follow.")] = 0,
    held_out: Annotated[
        bool, typer.Option("--held-out", help="Scenes that no training set contains.")
    ] = False,
    processes: Annotated[int | None, typer.Option(help="Default: one per core.")] = None,
) -> None:
    """Write synthetic scenes: 8 classes told apart by shape and texture, COCO annotations."""
    from rich.console import Console
    from rich.progress import Progress

    from .write import write_scenes

    console = Console(stderr=True)
    with Progress(console=console, transient=True, disable=not console.is_terminal) as progress:
        task = progress.add_task("scenes", total=count)
        path = write_scenes(
            out,
            count,
            seed,
            held_out=held_out,
            processes=processes,
            report=lambda done: progress.update(task, completed=done),
        )
    typer.echo(f"{count} pictures, {path}")


def register(app: typer.Typer) -> None:
    """Add the command to the `cn2` application."""
    app.command("scenes")(scenes)
