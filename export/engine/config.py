"""TensorRT's builder configuration of our options."""

from __future__ import annotations

from typing import Any

from cn2.runtime.engine_file import EngineProfile
from cn2.runtime.errors import BuildError

from .library import Library
from .network import Network
from .options import BuildOptions, Hardware

LEVELS: dict[Hardware, str] = {"same": "SAME_COMPUTE_CAPABILITY", "ampere": "AMPERE_PLUS"}


def make_config(library: Library, network: Network, options: BuildOptions) -> Any:
    """A configuration with everything that changes the engine.

    Raises:
        BuildError: the library refuses an option.
    """
    trt = library.module
    config = network.builder.create_builder_config()
    _add_profile(network, config, options.profile)
    _set_targets(trt, config, options)
    if not options.tf32:
        config.clear_flag(trt.BuilderFlag.TF32)  # it is on by default
    if options.version_compatible:
        config.set_flag(trt.BuilderFlag.VERSION_COMPATIBLE)
    if options.hardware_compatible is not None:
        level = getattr(trt.HardwareCompatibilityLevel, LEVELS[options.hardware_compatible], None)
        if level is None:
            raise BuildError(
                f"--hardware-compatible {options.hardware_compatible}: {library.runtime} "
                f"{library.version} has no such level"
            )
        config.hardware_compatibility_level = level
    config.profiling_verbosity = trt.ProfilingVerbosity.DETAILED  # or the inspector tells no types
    return config


def _add_profile(network: Network, config: Any, profile: EngineProfile) -> None:
    added = network.builder.create_optimization_profile()
    for name, shapes in input_shapes(profile).items():
        added.set_shape(name, *shapes)
    if config.add_optimization_profile(added) < 0:
        raise BuildError(f"profile: TensorRT refuses {profile}; ask for other sizes")


def input_shapes(profile: EngineProfile) -> dict[str, tuple[tuple[int, ...], ...]]:
    """The smallest, best and largest shape of each input that has a size."""
    sizes = tuple(zip(profile.batch, profile.height, profile.width, strict=True))
    return {
        "images": tuple((batch, height, width, 3) for batch, height, width in sizes),
        "image_sizes": tuple((batch, 2) for batch, _, _ in sizes),
    }


def _set_targets(trt: Any, config: Any, options: BuildOptions) -> None:
    """Nothing for none: TensorRT-RTX then builds for Ampere and newer, TensorRT for this GPU."""
    if not options.targets:
        return
    config.num_compute_capabilities = len(options.targets)
    for index, target in enumerate(options.targets):
        name = target.replace("_", "").upper()
        config.set_compute_capability(getattr(trt.ComputeCapability, name), index)
