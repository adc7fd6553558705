"""The line of NVIDIA's own tool that builds the same engine."""

from __future__ import annotations

import shlex
from pathlib import Path

from cn2.runtime.engine_file import EngineRuntime
from cn2.runtime.manifest import Manifest

from .config import input_shapes
from .options import BuildOptions, Hardware, capability

TOOLS: dict[EngineRuntime, str] = {"tensorrt": "trtexec", "tensorrt-rtx": "tensorrt_rtx"}
LEVELS: dict[Hardware, str] = {"same": "sameComputeCapability", "ampere": "ampere+"}


def tool_line(
    options: BuildOptions,
    manifest: Manifest,
    *,
    onnx: Path,
    engine: Path,
    plugins: Path,
    timing_cache: Path | None = None,
) -> str:
    """A command line for a shell.

    Args:
        onnx: the file that is built, in which score_threshold has no default.
    """
    words = [TOOLS[options.runtime], f"--onnx={onnx}", f"--saveEngine={engine}"]
    words += [f"--staticPlugins={plugins}"]
    if options.runtime == "tensorrt":
        words += ["--stronglyTyped"]  # always so in TensorRT-RTX
    if manifest.batch is None or manifest.canvas.fixed is None:
        words += _shapes(options)
    if options.targets:
        words += ["--computeCapabilities=" + ",".join(str(capability(t)) for t in options.targets)]
    if not options.tf32:
        words += ["--noTF32"]
    if options.version_compatible:
        words += ["--versionCompatible"]
    if options.hardware_compatible is not None:
        words += [f"--hardwareCompatibilityLevel={LEVELS[options.hardware_compatible]}"]
    if timing_cache is not None:
        words += [f"--timingCacheFile={timing_cache}"]
    words += ["--profilingVerbosity=detailed", "--skipInference"]
    return shlex.join(words)


def _shapes(options: BuildOptions) -> list[str]:
    shapes = input_shapes(options.profile)
    return [
        f"--{kind}Shapes="
        + ",".join(f"{name}:{'x'.join(map(str, of[index]))}" for name, of in shapes.items())
        for index, kind in enumerate(("min", "opt", "max"))
    ]
