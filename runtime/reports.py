"""What commands hand back: files that are whole or absent, and tables for a terminal."""

from __future__ import annotations

import io
import json
import os
import re
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from .errors import OutputError

TEXT_WIDTH = 80  # columns that running text is folded to
NUMBER_LIST = re.compile(r"\[\n([-+.\deE,\s]+)\]")  # indented JSON's; goes onto one line
PIPE_WIDTH = 1000  # columns where nobody looks: nothing is wrapped


def ready_folder(folder: Path) -> None:
    """Make the folder, and make sure that a file can be written there.

    Raises:
        OutputError: it cannot be made or written.
    """
    probe = folder / f".cn2-{os.getpid()}.tmp"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        probe.touch()
        probe.unlink()
    except OSError as error:
        reason = "it is a file" if folder.is_file() else error.strerror
        raise OutputError(
            f"{folder}: expected a folder that can be written, got none ({reason}); "
            f"choose another one"
        ) from error


def ready_file(destination: str | None, inputs: Iterable[Path] = ()) -> None:
    """Find out before the work, not after it, whether `write_json(destination)` can work.

    Args:
        destination: a file, `-`, or None: nothing is to be written.
        inputs: files that the command reads; none of them may be the destination.
    Raises:
        OutputError: it is a folder or one of the inputs, or its folder cannot be written.
    """
    if destination is None or destination == "-":
        return
    path = Path(destination)
    if path.is_dir():
        raise OutputError(f"{path}: expected a file to write, got a folder; add a file's name")
    if _is_special(path):
        return
    for file in inputs if path.exists() else ():
        if _is_same_file(path, file):
            raise OutputError(
                f"{path}: expected a file to write, got one that is read ({file}); choose another"
            )
    ready_folder(path.parent)


def _is_same_file(first: Path, second: Path) -> bool:
    """Whether two names, links followed, are one file; a missing one is no other's."""
    try:
        return first.samefile(second)
    except OSError:
        return False


def write_json(destination: str, document: Any) -> None:
    """Write a document to a file, whole or not at all, or to stdout for `-`.

    Raises:
        OutputError: the file cannot be written.
        ValueError: the document holds NaN or infinity, which JSON has no word for.
    """
    text = json.dumps(document, indent=1, ensure_ascii=False, allow_nan=False) + "\n"
    text = NUMBER_LIST.sub(lambda found: f"[{' '.join(found[1].split())}]", text)
    if destination == "-":
        sys.stdout.write(text)
    else:
        write_whole(Path(destination), text.encode())


def write_whole(path: Path, content: bytes) -> None:
    """Write a file so that nobody ever sees half of it; an older one is replaced.

    A link is replaced too: what it points to may be anything, an original picture for one.

    Raises:
        OutputError: it cannot be written; then an older one is left as it was.
    """
    part = path if _is_special(path) else path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        part.write_bytes(content)
        if part != path:
            part.replace(path)
    except OSError as error:
        if part != path:
            part.unlink(missing_ok=True)
        raise OutputError(f"{path}: cannot be written ({error.strerror})") from error


def _is_special(path: Path) -> bool:
    """A pipe, a device, a link such as /dev/stdout: written in place, never replaced by a file."""
    if path.is_symlink() and path.parts[:2] in (("/", "dev"), ("/", "proc")):
        return True
    return path.exists() and not path.is_file() and not path.is_dir()


def format_table(columns: Sequence[str], rows: Sequence[Sequence[str]], *, left: int = 1) -> str:
    """A table as text: the first `left` columns to the left, the numbers after them to the right.

    In a terminal long cells are folded to its width; in a pipe nothing is.
    """
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="")
    for position, column in enumerate(columns):
        table.add_column(
            Text(column),
            justify="left" if position < left else "right",
            overflow="fold",
            no_wrap=position >= left,
        )
    for row in rows:
        table.add_row(*(Text(cell) for cell in row))
    width = None if sys.stdout.isatty() else PIPE_WIDTH
    console = Console(file=io.StringIO(), width=width, color_system=None, highlight=False)
    console.print(table)
    assert isinstance(console.file, io.StringIO)
    return "\n".join(line.rstrip() for line in console.file.getvalue().rstrip("\n").split("\n"))


def format_number(value: float | None, digits: int = 1) -> str:
    """A number for a table; a dash where there is none."""
    return "-" if value is None else f"{value:.{digits}f}"
