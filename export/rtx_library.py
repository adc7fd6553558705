"""TensorRT-RTX's Python package made ready for plugins."""

from __future__ import annotations

import ctypes
import importlib
import threading
from types import ModuleType

from cn2.plugins import library_path
from cn2.runtime.errors import BackendUnavailableError, PluginError

INSTALL = "pip install 'cn2[tensorrt-rtx]'"
BUILD = "run make native where nvcc is"
_lock = threading.Lock()


def open_rtx() -> ModuleType:
    """Import TensorRT-RTX so that its parser may meet plugins.

    The wheel holds `libtensorrt_rtx.so.1`, but the parser opens `libtensorrt_rtx.so` when it meets
    a plugin, and ends the process where that fails; so an empty library of that name, which needs
    the wheel's, is loaded first. Where a full installation has the name, nothing is lost by it.

    Returns:
        The module `tensorrt_rtx`.
    Raises:
        BackendUnavailableError: it is not installed.
        PluginError: the library of that name was not built, or does not load.
    """
    try:
        module = importlib.import_module("tensorrt_rtx")
    except ImportError as error:
        raise BackendUnavailableError(f"tensorrt-rtx: {error}; {INSTALL}") from error
    path = library_path("cn2_rtx_name")
    if path is None:
        raise PluginError(f"libcn2_rtx_name.so: expected it beside libcn2, found none; {BUILD}")
    with _lock:
        _load(str(path))
    return module


def _load(path: str) -> None:
    """Into the process, once: a second load only counts.

    Raises:
        PluginError: it does not load.
    """
    try:
        ctypes.CDLL(path, mode=ctypes.RTLD_GLOBAL)
    except OSError as error:
        raise PluginError(f"{path}: does not load: {error}") from error
