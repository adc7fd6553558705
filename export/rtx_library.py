"""TensorRT-RTX's Python package made ready for plugins, and our plugins for any TensorRT."""

from __future__ import annotations

import ctypes
import importlib
import threading
from types import ModuleType
from typing import Any

from cn2.plugins import library_path, trt_plugins_path
from cn2.runtime.errors import BackendUnavailableError, PluginError

OPERATORS = ("PyramidRoIAlign", "ProposalNMS", "DetectionNMS")
VERSION, NAMESPACE = "1", "cn2"
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


def load_plugins(tensorrt: Any) -> None:
    """Make our plugins known to a TensorRT, once for the process.

    Args:
        tensorrt: the module `tensorrt`, or what `open_rtx` returned.
    Raises:
        PluginError: the library was not built, does not load, or lacks a plugin.
    """
    path = trt_plugins_path()
    if path is None:
        raise PluginError(f"libcn2_trt_plugins.so: expected it beside libcn2, found none; {BUILD}")
    registry = tensorrt.get_plugin_registry()
    with _lock:
        if _unknown(registry) and registry.load_library(str(path)) is None:
            raise PluginError(f"{path}: {tensorrt.__name__} does not load it; {BUILD} again")
        unknown = _unknown(registry)
    if unknown:
        raise PluginError(f"{path}: expected plugins {', '.join(unknown)}; {BUILD} again")


def _unknown(registry: Any) -> list[str]:
    """Those of our operators that a registry does not have."""
    known = {(c.name, c.plugin_version, c.plugin_namespace) for c in registry.all_creators}
    return [name for name in OPERATORS if (name, VERSION, NAMESPACE) not in known]
