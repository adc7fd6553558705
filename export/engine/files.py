"""An engine's two files: put in place so that no moment leaves a pair that looks whole and is not.

The plan comes first, then the JSON that holds its hash. A writer killed in between leaves a plan
with the JSON of another one, or with none, which every reader refuses, and the next build replaces.
Writers of one folder place their pairs one after the other.
"""

from __future__ import annotations

import hashlib
import os
import re
import secrets
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from cn2.runtime.engine_file import EngineFile, read_engine, sidecar_path
from cn2.runtime.errors import ModelFormatError, OutputError


def place_engine(path: Path, plan: bytes, about: EngineFile) -> None:
    """Write an engine.

    Raises:
        OutputError: it cannot be written; an earlier engine may be of no more use then.
    """
    if hashlib.sha256(plan).hexdigest() != about.sha256:
        raise ValueError(f"{path}: expected a plan of sha256 {about.sha256}, got another one")
    contents = {path: plan, sidecar_path(path): about.to_json().encode()}
    drafts: list[Path] = []
    try:
        remove_leftovers(path)
        for target, content in contents.items():
            drafts.append(draft_of(target))
            _write(drafts[-1], content)
        with alone_in(path.absolute().parent):
            for draft, target in zip(drafts, contents, strict=True):
                os.replace(draft, target)
        sync_folder(path.absolute().parent)
    except OSError as error:
        for draft in drafts:
            draft.unlink(missing_ok=True)
        raise OutputError(f"{path}: cannot be written ({error.strerror})") from error


def write_whole(path: Path, content: bytes) -> None:
    """Write a file that appears whole or not at all.

    Raises:
        OutputError: it cannot be written.
    """
    draft = draft_of(path)
    try:
        _write(draft, content)
        os.replace(draft, path)
    except OSError as error:
        draft.unlink(missing_ok=True)
        raise OutputError(f"{path}: cannot be written ({error.strerror})") from error


def draft_of(path: Path) -> Path:
    """A new name, under which this process writes a file before it is whole."""
    return path.with_name(f".{path.name}.{os.getpid()}.{secrets.token_hex(4)}.tmp")


def _write(draft: Path, content: bytes) -> None:
    """A draft with this content, on the disk."""
    with draft.open("xb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


@contextmanager
def alone_in(folder: Path) -> Iterator[None]:
    """Let no other writer place a pair in a folder meanwhile: two of them would mix theirs.

    Where there are no such locks (Windows, some network drives) it goes on without: such a pair is
    refused by every reader, as that of a killed writer is.
    """
    try:
        import fcntl
    except ImportError:  # Windows
        yield
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        with suppress(OSError):
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)  # and the lock is gone, as when the process is killed


def sync_folder(folder: Path) -> None:
    """Bring the names of a folder's files to the disk."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def remove_leftovers(path: Path) -> None:
    """Remove the drafts of an engine whose writers are no more."""
    for target in (path, sidecar_path(path)):
        pattern = re.compile(rf"\.{re.escape(target.name)}\.(\d+)\.[0-9a-f]+\.tmp")
        for draft in path.absolute().parent.iterdir():
            found = pattern.fullmatch(draft.name)
            if found and not _is_running(int(found[1])):
                draft.unlink(missing_ok=True)


def _is_running(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except OSError:
        pass  # somebody else's
    return True


def current_engine(path: Path, key: str) -> EngineFile | None:
    """The engine that is there, if it was built from the same things; None: it is to be built.

    A missing, torn or foreign one counts as none.
    """
    try:
        about = read_engine(path)
    except ModelFormatError:
        return None
    return about if about.build.get("key") == key else None
