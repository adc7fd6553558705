"""From the command line's SOURCE words to pictures, and to the names their results get."""

from __future__ import annotations

import glob
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from .errors import OutputError
from .pictures import PICTURE_SUFFIXES

# What pictures with boxes are written as; the others become PNG.
WRITTEN_SUFFIXES = frozenset({".bmp", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp"})


@dataclass(frozen=True)
class Source:
    """One picture to read."""

    path: Path
    """The file, as named by the user or found in a folder; it may turn out not to exist."""
    name: Path
    """Its name below the output folder: a picture in a folder keeps its sub-folder."""


def find_sources(
    words: Sequence[str], skip: Path | None = None
) -> tuple[list[Source], list[tuple[str, str]]]:
    """Expand files, folders and globs into pictures.

    Args:
        words: a file; a folder, searched with its sub-folders for PICTURE_SUFFIXES, hidden ones
            left out; or a glob (`**` crosses folders), whose matches count as if typed.
        skip: a folder that holds results: not searched when it lies inside a searched folder.
    Returns:
        The pictures, each name once (a link and what it points to are two), in the order of
        `words` and sorted by name within one, and (word, reason) for every word that stands for no
        picture.
    """
    sources: dict[Path, Source] = {}
    problems: list[tuple[str, str]] = []
    for word in words:
        paths = _match_glob(word)
        if not paths:
            problems.append((word, "no file matches; check the pattern, or quote it less"))
        for path in paths:
            found = list(_walk(path, skip)) if path.is_dir() else [Source(path, Path(path.name))]
            if not found:
                kinds = ", ".join(suffix[1:] for suffix in sorted(PICTURE_SUFFIXES))
                problems.append((str(path), f"no picture in this folder (looked for {kinds})"))
            for source in found:
                sources.setdefault(source.path.parent.resolve() / source.path.name, source)
    return list(sources.values()), problems


def _match_glob(word: str) -> list[Path]:
    path = Path(word)
    if path.exists() or not glob.has_magic(word):
        return [path]
    return [Path(match) for match in sorted(glob.glob(word, recursive=True))]


def _walk(folder: Path, skip: Path | None) -> Iterator[Source]:
    skipped = skip.resolve() if skip is not None else None
    for parent, folders, files in os.walk(folder):
        here = Path(parent)
        folders[:] = sorted(
            name
            for name in folders
            if not name.startswith(".") and (here / name).resolve() != skipped
        )
        for name in sorted(files):
            path = here / name
            if path.suffix.lower() in PICTURE_SUFFIXES and not name.startswith("."):
                yield Source(path, path.relative_to(folder))


def result_paths(sources: Sequence[Source], out: Path) -> list[Path]:
    """Where each picture with boxes goes: below `out`, under its own name.

    No two results share a path: a second `a.jpg` becomes `a-2.jpg`. The same sources get the same
    paths every time, so a second run replaces the results of the first.

    Raises:
        OutputError: a folder that results go to holds a source; its pictures might be overwritten,
            and the next run would take results for sources.
    """
    taken: set[str] = set()
    results = []
    for source in sources:
        name = source.name
        if name.suffix.lower() not in WRITTEN_SUFFIXES:
            name = name.with_name(name.name + ".png")
        path = _free_path(out / name, taken)
        taken.add(_key(path))
        results.append(path)
    _refuse_source_folders(sources, [out, *(path.parent for path in results)])
    return results


def _refuse_source_folders(sources: Sequence[Source], folders: Sequence[Path]) -> None:
    """Raise OutputError if one of the folders, under any name, holds a source or its original."""
    held: dict[Path, Path] = {}
    for source in sources:
        if source.path.exists():
            held.setdefault(source.path.parent, source.path)
            held.setdefault(source.path.resolve().parent, source.path)
    sources_of = {_identity(folder): path for folder, path in held.items()}
    for folder in dict.fromkeys(folders):
        source_path = sources_of.get(_identity(folder))
        if source_path is not None:
            raise OutputError(
                f"{folder}: expected a folder for results alone, got the one that holds the source "
                f"{source_path}; choose another"
            )


def _identity(folder: Path) -> tuple[int, int] | Path:
    """Equal for two names of one folder; one that does not exist yet is only its own path."""
    try:
        found = folder.stat()
    except OSError:
        return folder.resolve()
    return found.st_dev, found.st_ino


def _free_path(path: Path, taken: set[str]) -> Path:
    number = 1
    free = path
    while _key(free) in taken:
        number += 1
        free = path.with_name(f"{path.stem}-{number}{path.suffix}")
    return free


def _key(path: Path) -> str:
    return str(path).casefold()  # some file systems tell no capitals apart
