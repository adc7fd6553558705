"""Files that appear whole or not at all."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from cn2.runtime.errors import OutputError


def write_whole(path: Path, data: bytes | Iterable[Any]) -> None:
    """Write a file through a temporary one beside it, flushed to the disk and then renamed.

    Args:
        path: of the file; folders above it are made.
        data: all of it, or piece by piece what has the buffer interface.
    Raises:
        OutputError: it cannot be written, the disk being full for one; what was there stays.
    """
    pieces: Iterable[Any] = [data] if isinstance(data, bytes) else data
    temporary = path.with_name(path.name + ".tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with temporary.open("wb") as file:
            file.writelines(pieces)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
        _sync_folder(path.parent)
    except OSError as error:
        _remove(temporary)
        raise OutputError(f"{path}: cannot be written ({error.strerror})") from None
    except BaseException:  # Ctrl-C, or what makes the pieces failed
        _remove(temporary)
        raise


def _remove(path: Path) -> None:
    try:
        path.unlink(missing_ok=True)
    except OSError:  # a parent is a file: there is nothing to remove
        return


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
