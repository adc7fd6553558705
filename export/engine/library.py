"""TensorRT's Python library, with our plugins in its registry."""

from __future__ import annotations

import importlib.util
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from cn2.plugins import trt_plugins_path
from cn2.runtime.backends.tensorrt_library import MODULES, TensorRT, open_tensorrt
from cn2.runtime.engine_file import EngineRuntime
from cn2.runtime.errors import BackendUnavailableError, PluginError

from ..rtx_library import open_rtx

MAJORS: dict[EngineRuntime, tuple[str, ...]] = {"tensorrt": ("10", "11"), "tensorrt-rtx": ("1",)}
PLUGIN_LIBRARY = "libcn2_trt_plugins.so"


@dataclass(frozen=True, kw_only=True)
class Library:
    """An opened library."""

    runtime: EngineRuntime
    opened: TensorRT
    plugins: Path
    """The file of our plugins."""

    @property
    def module(self) -> Any:
        """The Python module."""
        return self.opened.module

    @property
    def version(self) -> str:
        """As "1.7.1.116"."""
        return self.opened.version

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
    for runtime in MAJORS:
        if importlib.util.find_spec(MODULES[runtime]) is not None:
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
            f"{PLUGIN_LIBRARY}: expected it beside libcn2, found none, and engines need its "
            f"operators; run `make native` where CUDA's nvcc is"
        )
    if runtime == "tensorrt-rtx":
        open_rtx()
    opened = open_tensorrt(runtime)
    check_version(runtime, opened.version)
    opened.load_plugins()
    return Library(runtime=runtime, opened=opened, plugins=plugins)


def check_version(runtime: EngineRuntime, version: str) -> None:
    """Raise BackendUnavailableError unless this package knows the version's ways."""
    major = version.split(".")[0]
    if major not in MAJORS[runtime]:
        known = " or ".join(f"{known}.x" for known in MAJORS[runtime])
        raise BackendUnavailableError(f"{runtime}: expected version {known}, got {version}")
