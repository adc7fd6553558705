"""TensorRT's Python library, with our plugins in its registry."""

from __future__ import annotations

import importlib
import importlib.util
import logging
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from cn2.export.rtx_library import open_rtx
from cn2.plugins import trt_plugins_path
from cn2.runtime.engine_file import EngineRuntime
from cn2.runtime.errors import BackendUnavailableError, PluginError

MODULES: dict[EngineRuntime, str] = {"tensorrt": "tensorrt", "tensorrt-rtx": "tensorrt_rtx"}
MAJORS: dict[EngineRuntime, tuple[int, ...]] = {"tensorrt": (10, 11), "tensorrt-rtx": (1,)}
PLUGIN_LIBRARY = "libcn2_trt_plugins.so"
LOG = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Library:
    """An opened library."""

    runtime: EngineRuntime
    module: Any
    version: str
    logger: Any
    """Kept for as long as the process lives, as the library wants; `errors` is what it said."""
    plugins: Path

    @property
    def targets(self) -> tuple[str, ...]:
        """The compute capabilities that it can build for without such a GPU, as "sm_86"."""
        names = getattr(self.module, "ComputeCapability", None)
        members = () if names is None else names.__members__
        return tuple(f"sm_{name[2:]}" for name in members if name.startswith("SM"))


def installed_runtime() -> EngineRuntime:
    """The library to build with where none is named.

    Raises:
        BackendUnavailableError: there is none.
    """
    for runtime, module in MODULES.items():
        if importlib.util.find_spec(module) is not None:
            return runtime
    raise BackendUnavailableError(
        "--runtime: neither tensorrt nor tensorrt-rtx is installed; "
        "pip install 'cn2[tensorrt-rtx]', which builds without a GPU too"
    )


@cache
def open_library(runtime: EngineRuntime) -> Library:
    """The library with our plugins; opened once.

    Raises:
        BackendUnavailableError: not installed, or of a version that this package does not know.
        PluginError: our plugins are not built, or the library refuses them.
    """
    plugins = trt_plugins_path()
    if plugins is None:
        raise PluginError(
            f"{PLUGIN_LIBRARY}: not here, and engines need its operators; build it with "
            f"`make native`, which needs CUDA's nvcc"
        )
    module = _import(runtime)
    version = str(module.__version__)
    if not version.split(".")[0].isdigit() or int(version.split(".")[0]) not in MAJORS[runtime]:
        known = " or ".join(f"{major}.x" for major in MAJORS[runtime])
        raise BackendUnavailableError(f"{runtime}: expected version {known}, got {version}")
    logger = make_logger(module)
    if not module.get_plugin_registry().load_library(str(plugins)):
        raise PluginError(f"{plugins}: {runtime} {version} does not load it; run `make native` again")
    return Library(
        runtime=runtime, module=module, version=version, logger=logger, plugins=plugins
    )


def _import(runtime: EngineRuntime) -> Any:
    try:
        return open_rtx() if runtime == "tensorrt-rtx" else importlib.import_module("tensorrt")
    except ImportError as error:
        raise BackendUnavailableError(
            f"{runtime}: cannot be imported ({error}); pip install 'cn2[{runtime}]'"
        ) from error


def make_logger(module: Any) -> Any:
    """A logger that keeps errors in `errors`, and hands the rest to Python's logging."""

    class Logger(module.ILogger):  # type: ignore[misc, name-defined]
        def __init__(self) -> None:
            module.ILogger.__init__(self)
            self.errors: list[str] = []

        def log(self, severity: Any, message: str) -> None:
            if severity <= module.ILogger.Severity.ERROR:
                self.errors.append(message.strip())
            LOG.debug("%s", message)

    return Logger()
