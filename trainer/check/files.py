"""Picture files looked at in threads: headers of all, pixels of as many as time allows, copies."""

from __future__ import annotations

import hashlib
import os
import random
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from cn2.runtime.errors import PictureError
from cn2.runtime.evaluation import upright_size

from ..data.transforms import read_picture

THREADS = min(8, (os.cpu_count() or 1) + 1)
T = TypeVar("T")
R = TypeVar("R")


@dataclass(frozen=True, kw_only=True)
class PictureFile:
    """What a file's header says."""

    path: Path
    size: tuple[int, int] | None  # (height, width), upright; None: no picture
    bytes: int  # 0: no such file
    error: str = ""  # one line, where there is no size


def look_at(paths: Sequence[Path]) -> list[PictureFile]:
    """The header of each file."""
    return _in_threads(_look, paths)


def _look(path: Path) -> PictureFile:
    try:
        length = os.stat(path).st_size
    except (OSError, ValueError) as error:  # of an impossible name
        return PictureFile(path=path, size=None, bytes=0, error=f"{path}: no file ({error})")
    try:
        return PictureFile(path=path, size=upright_size(path), bytes=length)
    except PictureError as error:
        return PictureFile(path=path, size=None, bytes=max(length, 1), error=str(error))


def decode_some(paths: Sequence[Path], seconds: float) -> tuple[int, list[str]]:
    """Decode pictures in a random order until all are done or the time is up.

    Returns:
        How many were decoded, and a line for each that cannot be.
    """
    deadline = time.monotonic() + seconds
    order = random.Random(0).sample(list(paths), len(paths))

    def decode(path: Path) -> str | None:
        if time.monotonic() > deadline:
            return None
        try:
            read_picture(path)
        except PictureError as error:
            return str(error)
        return ""

    answers = [answer for answer in _in_threads(decode, order) if answer is not None]
    return len(answers), sorted(answer for answer in answers if answer)


def same_bytes(paths: Iterable[Path]) -> list[list[Path]]:
    """Groups of files whose content is the same; only those of the same length are read."""
    by_length: dict[int, list[Path]] = defaultdict(list)
    for path in dict.fromkeys(paths):
        try:
            by_length[path.stat().st_size].append(path)
        except OSError:
            continue  # not there: somebody else's finding
    suspects = [path for group in by_length.values() if len(group) > 1 for path in group]
    by_digest: dict[str, list[Path]] = defaultdict(list)
    for path, digest in zip(suspects, _in_threads(_digest, suspects), strict=True):
        if digest:
            by_digest[digest].append(path)
    return [group for group in by_digest.values() if len(group) > 1]


def _digest(path: Path) -> str:
    try:
        return hashlib.blake2b(path.read_bytes(), digest_size=16).hexdigest()
    except OSError:
        return ""


def _in_threads(work: Callable[[T], R], items: Sequence[T]) -> list[R]:
    with ThreadPoolExecutor(THREADS) as pool:
        return list(pool.map(work, items))
