"""A deserialised engine: its tensors are those of the contract; contexts, and running one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from ..engine_file import EngineFile
from ..errors import BackendUnavailableError, InferenceError, ModelFormatError
from .tensorrt_library import TensorRT
from .tensorrt_slots import INPUTS, OUTPUTS, Slot

TYPES = {"UINT8": np.uint8, "INT32": np.int32, "FLOAT": np.float32}  # TensorRT's names


class LoadedEngine:
    """An engine in memory; `load_engine` makes it."""

    def __init__(self, library: TensorRT, runtime: Any, engine: Any) -> None:
        self.library = library
        self._runtime = runtime  # it must outlive the engine
        self._engine = engine

    def create_context(self) -> Any:
        """A context for one call at a time.

        Raises:
            MemoryError: TensorRT makes none; it wants memory on the GPU.
        """
        context = self._engine.create_execution_context()
        if context is None:
            raise MemoryError(f"TensorRT made no context ({self.library.take_error()})")
        return context

    def execute(
        self,
        slot: Slot,
        profile: int,
        shape: tuple[int, ...],
        addresses: dict[str, int],
    ) -> None:
        """Queue a run on the slot's stream.

        Args:
            profile: of the engine, that takes the shape.
            shape: (B, H, W, 3) of the images.
            addresses: of every tensor, in device memory.
        Raises:
            InferenceError: TensorRT refuses.
        """
        context = slot.context
        if profile != slot.profile:
            self._check(context.set_optimization_profile_async(profile, slot.stream))
            slot.profile = profile
        self._check(context.set_input_shape("images", shape))
        self._check(context.set_input_shape("image_sizes", (shape[0], 2)))
        for name, address in addresses.items():
            self._check(context.set_tensor_address(name, address))
        self._check(context.execute_async_v3(slot.stream))

    def _check(self, done: bool) -> None:
        if not done:
            raise InferenceError(self.library.take_error())


def load_engine(library: TensorRT, about: EngineFile, plan: bytes, path: Path) -> LoadedEngine:
    """Deserialise a plan on the selected device, plugins first.

    Raises:
        BackendUnavailableError: TensorRT refuses it here: another version, another GPU, no plugin.
        ModelFormatError: its tensors are not those of the contract.
        PluginError: the plugin library does not load.
    """
    if not about.runs_with(library.version):
        raise BackendUnavailableError(
            f"{path}: expected {about.runtime} {about.version}, which built it, got "
            f"{library.version}; install that version, or build the engine with this one"
        )
    has_plugins = library.load_plugins()
    runtime = library.module.Runtime(library.log)
    if about.is_version_compatible:
        runtime.engine_host_code_allowed = True  # the version that built it lies in the plan
    engine = runtime.deserialize_cuda_engine(plan)
    if engine is None:
        hint = "" if has_plugins else f"; {library.missing_plugins()}"
        raise BackendUnavailableError(
            f"{path}: {about.runtime} {library.version} does not load it "
            f"({library.take_error()}); it was built for {', '.join(about.targets)}{hint}"
        )
    _check_tensors(engine, about, path)
    return LoadedEngine(library, runtime, engine)


def _check_tensors(engine: Any, about: EngineFile, path: Path) -> None:
    names = [engine.get_tensor_name(index) for index in range(engine.num_io_tensors)]
    found = {name: _describe(engine, name) for name in sorted(names)}
    wanted = {
        name: f"{'in' if name in INPUTS else 'out'} {np.dtype(dtype)} of {count} dimensions"
        for name, (dtype, count) in sorted((INPUTS | OUTPUTS).items())
    }
    if found != wanted:
        raise ModelFormatError(f"{path}: expected the tensors {wanted}, got {found}")
    rows = engine.get_tensor_shape("boxes")[1]
    if rows != about.manifest.detections:
        raise ModelFormatError(
            f"{path}: expected boxes of {about.manifest.detections} rows by its manifest, got "
            f"{rows}; build it again"
        )
    if engine.num_optimization_profiles != len(about.profiles):
        raise ModelFormatError(
            f"{path}: expected {len(about.profiles)} profiles as {path.name}.json says, got "
            f"{engine.num_optimization_profiles}; build it again"
        )


def _describe(engine: Any, name: str) -> str:
    mode = "in" if engine.get_tensor_mode(name).name == "INPUT" else "out"
    kind = engine.get_tensor_dtype(name).name
    dtype = np.dtype(TYPES[kind]).name if kind in TYPES else kind
    return f"{mode} {dtype} of {len(engine.get_tensor_shape(name))} dimensions"
