"""What an engine is built for: runtime, GPUs, sizes, compatibility."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, get_args

from cn2.runtime.engine_file import EngineProfile, EngineRuntime

Hardware = Literal["same", "ampere"]  # GPUs of the same compute capability; Ampere and newer


@dataclass(frozen=True, kw_only=True)
class BuildOptions:
    """One engine's options; a change of any of them makes another engine."""

    runtime: EngineRuntime
    profile: EngineProfile
    targets: tuple[str, ...] = ()  # of tensorrt-rtx, as "sm_86"; none: Ampere and newer
    version_compatible: bool = False  # of tensorrt: newer versions of the same major run it
    hardware_compatible: Hardware | None = None  # of tensorrt; None: the GPU that builds it
    tf32: bool = False  # fp32 convolutions and products may round their inputs to 10 bits

    def __post_init__(self) -> None:
        if self.runtime == "tensorrt" and self.targets:
            raise ValueError(
                f"--target {','.join(self.targets)}: tensorrt builds for the GPU it runs on; "
                f"leave it out, or take --hardware-compatible or --runtime tensorrt-rtx"
            )
        if self.runtime == "tensorrt-rtx" and self.version_compatible:
            raise ValueError(
                "--version-compatible: TensorRT-RTX has no such engines; build one with each "
                "version that runs it"
            )
        if self.runtime == "tensorrt-rtx" and self.hardware_compatible:
            raise ValueError(
                f"--hardware-compatible {self.hardware_compatible}: TensorRT-RTX has no such "
                f"engines; name the GPUs with --target"
            )


def parse_runtime(text: str) -> EngineRuntime:
    """Raise ValueError unless it is one."""
    for runtime in get_args(EngineRuntime):
        if runtime == text:
            return runtime  # type: ignore[no-any-return]
    raise ValueError(f"--runtime: expected {' or '.join(get_args(EngineRuntime))}, got {text!r}")


def parse_hardware(text: str) -> Hardware:
    """Raise ValueError unless it is one."""
    for level in get_args(Hardware):
        if level == text:
            return level  # type: ignore[no-any-return]
    raise ValueError(f"--hardware-compatible: expected same or ampere, got {text!r}")


def parse_targets(text: str) -> tuple[str, ...]:
    """`sm_75,sm_86` as compute capabilities, ascending, each once.

    Raises:
        ValueError: of another form.
    """
    names = [name.strip() for name in text.split(",")]
    wrong = [name for name in names if not re.fullmatch(r"sm_\d{2,3}", name)]
    if wrong:
        raise ValueError(
            f"--target: expected compute capabilities, for example sm_75,sm_86, got {text!r}"
        )
    return tuple(sorted(set(names), key=capability))


def capability(target: str) -> int:
    """75 of "sm_75"."""
    return int(target.removeprefix("sm_").removesuffix("+"))


def check_targets(targets: Sequence[str], known: Sequence[str]) -> None:
    """Raise ValueError, naming what there is, unless the library can build for all of them."""
    unknown = [target for target in targets if target not in known]
    if unknown:
        raise ValueError(
            f"--target: expected of {', '.join(known)}, which TensorRT-RTX can build for, got "
            f"{', '.join(unknown)}"
        )
