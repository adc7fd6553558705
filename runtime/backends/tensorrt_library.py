"""TensorRT's bindings, of either kind: imported, checked against an engine, plugins loaded."""

from __future__ import annotations

import importlib
import logging
import threading
from functools import cache
from typing import Any

from cn2.plugins import library_path

from ..errors import BackendUnavailableError, PluginError
from .ort_operators import BROKEN_FIX, GET_IT

logger = logging.getLogger(__name__)

MODULES = {"tensorrt": "tensorrt", "tensorrt-rtx": "tensorrt_rtx"}  # of each runtime
PLUGINS = "cn2_trt_plugins"
OPERATORS = ("PyramidRoIAlign", "ProposalNMS", "DetectionNMS")  # of ours, as plugins
OPERATOR_VERSION, NAMESPACE = "1", "cn2"
_loading = threading.Lock()


class TensorRT:
    """The bindings of one runtime, and what it logs."""

    def __init__(self, runtime: str) -> None:
        """Import the bindings.

        Args:
            runtime: "tensorrt", "tensorrt-rtx".
        Raises:
            BackendUnavailableError: they are not installed.
        """
        self.runtime = runtime
        try:
            self.module: Any = importlib.import_module(MODULES[runtime])
        except (ImportError, OSError) as error:  # OSError: its own libraries do not load
            raise BackendUnavailableError(
                f"{runtime} cannot be imported ({_one_line(error)}); pip install 'cn2[{runtime}]'"
            ) from error
        self.version = str(self.module.__version__)
        self.log = _make_log(self.module)

    def take_error(self) -> str:
        """The last line that TensorRT logged as an error, and forget it."""
        line, self.log.last_error = self.log.last_error, ""
        return str(line) or "it gave no reason"

    def load_plugins(self) -> bool:
        """Make our plugins known to TensorRT, once for the process; whether they are here.

        Raises:
            PluginError: the library is here, and TensorRT does not load it, or it lacks a plugin.
        """
        path = library_path(PLUGINS)
        if path is None:
            return False
        registry = self.module.get_plugin_registry()
        with _loading:
            if _unknown(registry) and registry.load_library(str(path)) is None:
                raise PluginError(
                    f"{path}: {self.runtime} {self.version} cannot load it ({self.take_error()}); "
                    f"{BROKEN_FIX}"
                )
            unknown = _unknown(registry)
        if unknown:
            raise PluginError(f"{path}: expected plugins {', '.join(unknown)}; {BROKEN_FIX}")
        return True

    @staticmethod
    def missing_plugins() -> str:
        """A line for engines that do not load where the plugins are not here."""
        return f"if the engine has plugins, they are in lib{PLUGINS}, found none; {GET_IT}"


@cache
def open_tensorrt(runtime: str) -> TensorRT:
    """The bindings of a runtime; TensorRT wants one logger that lives as long as the process."""
    return TensorRT(runtime)


def _unknown(registry: Any) -> list[str]:
    """Those of our operators that a registry does not have, in the version of this package."""
    known = {(c.name, c.plugin_version, c.plugin_namespace) for c in registry.all_creators}
    return [name for name in OPERATORS if (name, OPERATOR_VERSION, NAMESPACE) not in known]


def _make_log(module: Any) -> Any:
    """A logger of TensorRT's that hands lines to Python's, and keeps the last error."""
    severity = module.ILogger.Severity
    levels = {severity.WARNING: logging.INFO, severity.INFO: logging.DEBUG}

    class Log(module.ILogger):  # type: ignore[misc]  # the bindings have no types
        def __init__(self) -> None:
            module.ILogger.__init__(self)
            self.last_error = ""

        def log(self, level: Any, message: str) -> None:
            if level in (severity.ERROR, severity.INTERNAL_ERROR):
                self.last_error = _one_line(message)  # raised, so not logged as well
            elif level in levels:
                logger.log(levels[level], "%s", message)

    return Log()


def _one_line(words: object) -> str:
    return " ".join(str(words).split())
