"""The operators of docs/operators.md in ONNX Runtime: their library, added to a session."""

from __future__ import annotations

import ctypes
import logging
from pathlib import Path
from typing import Any

from cn2.plugins import library_path

from ..errors import BackendUnavailableError, ModelFormatError, PluginError
from ..manifest import Manifest

logger = logging.getLogger(__name__)

LIBRARY = "cn2_ort_ops"
VERSION = 1  # of the domain cn2, as files name it
GET_IT = "make native in a source tree, or install a wheel that was built with a compiler"
BROKEN_FIX = "run make native again, or install the package again"
CPU_ALONE = (
    "fused operators have kernels for the CPU alone in a library that was built without nvcc; "
    "build it with nvcc, open it with device='cpu', or without fused=True"
)


def add_operators(
    options: Any, manifest: Manifest, path: Path, *, on_cpu: bool, wanted: bool | None
) -> bool:
    """Let a session run fused operators by their kernels.

    Args:
        options: onnxruntime.SessionOptions.
        manifest: of the file.
        path: the file, for messages.
        on_cpu: whether the session runs on the CPU; on CUDA the library must have kernels for it.
        wanted: False: leave the bodies, which any ONNX Runtime runs; None: the kernels where that
            can be; True: the kernels.
    Returns:
        Whether the kernels run. With None, a library that is there and does not load is a warning.
    Raises:
        BackendUnavailableError, ModelFormatError, PluginError: `wanted`, and it cannot be.
    """
    if wanted is False or (wanted is None and manifest.ops != "fused"):
        return False
    try:
        return _add(options, manifest, path, on_cpu, required=wanted is True)
    except PluginError as error:
        if wanted:
            raise
        logger.warning("%s; the model runs without it, more slowly", error)
        return False


def _add(options: Any, manifest: Manifest, path: Path, on_cpu: bool, required: bool) -> bool:
    check_fused(manifest, path)
    library = library_path(LIBRARY)
    if library is None:
        if required:
            raise BackendUnavailableError(
                f"{path}: fused operators need lib{LIBRARY}, found none; {GET_IT}"
            )
        return False
    if not on_cpu and not runs_on_cuda(library):
        if required:
            raise BackendUnavailableError(f"{path}: {CPU_ALONE}")
        return False  # the CPU's would carry the features there and back
    add_library(options, library)
    return True


def check_fused(manifest: Manifest, path: Path) -> None:
    """Raise ModelFormatError unless a file has fused operators."""
    if manifest.ops != "fused":
        raise ModelFormatError(
            f"{path}: expected fused operators, got {manifest.ops} ones; "
            f"export it with --ops fused, or open it without fused=True"
        )


def add_library(options: Any, library: Path) -> None:
    """Check a library and register it with onnxruntime.SessionOptions; PluginError if it fails."""
    check_library(library)
    try:
        options.register_custom_ops_library(str(library))
    except Exception as error:  # ONNX Runtime's exceptions share no base of their own
        raise PluginError(f"{library}: ONNX Runtime cannot load it ({_one_line(error)})") from error


def kernels_are_here() -> bool:
    """Whether there is a library; it may still not load."""
    return library_path(LIBRARY) is not None


def check_library(library: Path) -> None:
    """Raise PluginError unless a library loads and has the operators of this package."""
    try:
        version = int(ctypes.CDLL(str(library)).cn2_operators_version())
    except OSError as error:
        raise PluginError(
            f"{library}: cannot be loaded ({_one_line(error)}); {BROKEN_FIX}"
        ) from error
    except AttributeError as error:
        raise PluginError(
            f"{library}: expected our operator library, got another one; {BROKEN_FIX}"
        ) from error
    if version != VERSION:
        raise PluginError(
            f"{library}: operators of version {version}, this package needs {VERSION}; {BROKEN_FIX}"
        )


def runs_on_cuda(library: Path) -> bool:
    """Whether a library has kernels for ONNX Runtime's CUDA provider; PluginError as above."""
    check_library(library)
    return bool(ctypes.CDLL(str(library)).cn2_operators_run_on_cuda())


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())
