"""TensorRT-RTX with our plugins: files parsed, and engines built for GPUs that are not here."""

from __future__ import annotations

from pathlib import Path
from types import ModuleType
from typing import Any

from cn2.export.rtx_library import open_rtx
from cn2.runtime.backends.tensorrt_library import open_tensorrt
from cn2.runtime.errors import BackendUnavailableError
from native_libraries import built_library, missing

_loggers: list[Any] = []  # the first one, which all objects of the process keep


def rtx_with_plugins() -> ModuleType:
    """The module; skips, or fails where it is required, without it or the plugins."""
    built_library("cn2_trt_plugins")
    try:
        module = open_rtx()
    except BackendUnavailableError as error:
        missing(str(error))
    open_tensorrt("tensorrt-rtx").load_plugins()
    return module


def logged(rtx: ModuleType) -> list[str]:
    """The warnings and errors that TensorRT-RTX has logged in this process; may be cleared."""
    lines: list[str] = _logger(rtx).lines
    return lines


def _logger(rtx: ModuleType) -> Any:
    class Logger(rtx.ILogger):  # type: ignore[name-defined,misc]
        def __init__(self) -> None:
            super().__init__()
            self.lines: list[str] = []

        def log(self, severity: Any, line: str) -> None:
            if severity <= rtx.ILogger.WARNING:
                self.lines.append(line)

    if not _loggers:
        _loggers.append(Logger())
    return _loggers[0]


class Parsed:
    """A file, as a network."""

    def __init__(self, rtx: ModuleType, model: Path | bytes) -> None:
        data = model if isinstance(model, bytes) else model.read_bytes()
        logged(rtx).clear()
        self._rtx, self._builder = rtx, rtx.Builder(_logger(rtx))
        self.network = self._builder.create_network(0)
        self._parser = rtx.OnnxParser(self.network, _logger(rtx))
        self.succeeded: bool = self._parser.parse(data)

    def plugins(self) -> list[list[tuple[int, ...]]]:
        """The shapes of the outputs of each plugin."""
        layers = [self.network.get_layer(i) for i in range(self.network.num_layers)]
        return [
            [tuple(layer.get_output(i).shape) for i in range(layer.num_outputs)]
            for layer in layers
            if layer.type == self._rtx.LayerType.PLUGIN_V3
        ]

    def build(self, canvas: tuple[int, int], *targets: str) -> int:
        """Bytes of an engine for these architectures ("SM86"), one or two pictures."""
        config = self._builder.create_builder_config()
        profile = self._builder.create_optimization_profile()
        for name, shape in (("images", (*canvas, 3)), ("image_sizes", (2,))):
            profile.set_shape(name, (1, *shape), (1, *shape), (2, *shape))
        config.add_optimization_profile(profile)
        config.num_compute_capabilities = len(targets)
        for index, target in enumerate(targets):
            config.set_compute_capability(getattr(self._rtx.ComputeCapability, target), index)
        plan = self._builder.build_serialized_network(self.network, config)
        return 0 if plan is None else int(plan.nbytes)
