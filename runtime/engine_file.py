"""A TensorRT engine: the raw plan `MODEL.engine`, and what it says of itself, `MODEL.engine.json`.

The hash in the JSON guards against mix-ups and torn files, not against an engine of somebody you
don't trust: a plan is code.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any, ClassVar, Literal

from .errors import ModelFormatError
from .manifest import Manifest

EngineRuntime = Literal["tensorrt", "tensorrt-rtx"]
Range = tuple[int, int, int]  # smallest, best, largest


@dataclass(frozen=True, kw_only=True)
class EngineProfile:
    """The inputs that an engine takes, and those that it is fastest at."""

    __pydantic_config__: ClassVar[Any] = {"extra": "forbid"}

    batch: Range  # pictures a run
    height: Range  # of the canvas, pixels
    width: Range

    def __post_init__(self) -> None:
        for name, (low, best, high) in asdict(self).items():
            if not 1 <= low <= best <= high:
                raise ValueError(
                    f"profile: {name}: expected 1 <= min <= opt <= max, got {low}, {best}, {high}"
                )

    def takes(self, batch: int, height: int, width: int) -> bool:
        """Whether inputs of this size lie within the profile."""
        sizes = ((batch, self.batch), (height, self.height), (width, self.width))
        return all(low <= size <= high for size, (low, _, high) in sizes)


@dataclass(frozen=True, kw_only=True)
class EngineFile:
    """What stands beside a plan."""

    __pydantic_config__: ClassVar[Any] = {"extra": "forbid"}

    manifest: Manifest
    sha256: str  # of the plan, hexadecimal
    runtime: EngineRuntime
    version: str  # of the library that built it, as "1.7.1.116"
    targets: tuple[str, ...]  # what it runs on, as "sm_86"; with "+": and on newer ones
    device: str = ""  # the GPU that it was built on; empty: none was needed
    profiles: tuple[EngineProfile, ...]
    precision: str  # the manifest's
    build: dict[str, Any] = field(default_factory=dict)  # how it was built: docs/engines.md

    def __post_init__(self) -> None:
        if not re.fullmatch(r"[0-9a-f]{64}", self.sha256):
            raise ValueError(f"sha256: expected 64 hexadecimal digits, got {self.sha256!r:.80}")
        if not self.targets or not self.profiles:
            raise ValueError("expected at least one of targets and of profiles, got none")
        if self.precision != self.manifest.precision:
            raise ValueError(
                f"precision: expected {self.manifest.precision}, as the manifest says, got "
                f"{self.precision!r:.80}"
            )

    def runs_with(self, version: str) -> bool:
        """Whether that version of the runtime may run it.

        The one that built it may, and of an engine built with --version-compatible newer ones of
        the same major.
        """
        if not self.is_version_compatible:
            return version == self.version
        built, here = _numbers(self.version), _numbers(version)
        return built[:1] == here[:1] and built <= here

    @property
    def is_version_compatible(self) -> bool:
        """Whether it was built with --version-compatible: then it brings code of its own."""
        options = self.build.get("options")
        return isinstance(options, dict) and options.get("version_compatible") is True

    def profile_for(self, batch: int, height: int, width: int) -> int | None:
        """The first profile that takes inputs of this size; None: there is none."""
        found = (n for n, p in enumerate(self.profiles) if p.takes(batch, height, width))
        return next(found, None)

    def to_json(self) -> str:
        """The text of the JSON file."""
        return json.dumps(asdict(self), ensure_ascii=False, indent=1) + "\n"


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in re.findall(r"\d+", version))


def sidecar_path(path: Path) -> Path:
    """Where the JSON of an engine lies."""
    return path.with_name(f"{path.name}.json")


def read_sidecar(path: Path) -> EngineFile:
    """What an engine says of itself; nothing looks at the plan.

    Raises:
        ModelFormatError: no such file, torn, not ours, or newer than this package.
    """
    sidecar = sidecar_path(path)
    try:
        text = sidecar.read_text(encoding="utf-8")
    except FileNotFoundError as error:
        raise ModelFormatError(
            f"{path}: expected {sidecar.name} beside it, found none; cn2 build writes both"
        ) from error
    except (OSError, UnicodeDecodeError) as error:
        raise ModelFormatError(f"{sidecar}: cannot be read ({error})") from error
    try:
        values = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ModelFormatError(f"{sidecar}: no JSON ({error}); build the engine again") from error
    if not isinstance(values, dict) or not isinstance(values.get("manifest"), dict):
        raise ModelFormatError(f"{sidecar}: expected an object with a manifest, found none")
    Manifest.from_json(json.dumps(values["manifest"]), str(sidecar))  # a newer one is told as such
    return _validate(text, str(sidecar))


def read_engine(path: Path) -> EngineFile:
    """What an engine says of itself, once the plan's hash is known to be the one that it says.

    Raises:
        ModelFormatError: as `read_plan`.
    """
    return read_plan(path)[0]


def read_plan(path: Path) -> tuple[EngineFile, bytes]:
    """What an engine says of itself, and its plan: the very bytes whose hash it says.

    Raises:
        ModelFormatError: a file is missing, torn or not ours, or the plan has another hash.
    """
    about = read_sidecar(path)
    try:
        plan = path.read_bytes()
    except OSError as error:
        raise ModelFormatError(f"{path}: cannot be read ({error.strerror})") from error
    found = hashlib.sha256(plan).hexdigest()
    if found != about.sha256:
        raise ModelFormatError(
            f"{path}: expected sha256 {about.sha256} as {sidecar_path(path).name} says, got "
            f"{found}; torn or mixed up, build it again"
        )
    return about, plan


def _validate(text: str, source: str) -> EngineFile:
    from pydantic import TypeAdapter, ValidationError

    try:
        return TypeAdapter(EngineFile).validate_json(text, strict=True)
    except ValidationError as error:
        raise ModelFormatError(f"{source}: not valid: {_first(error.errors()[0])}") from error


def _first(error: Mapping[str, Any]) -> str:
    place = "".join(f"{part}: " for part in error["loc"])
    if error["type"] == "unexpected_keyword_argument":
        known = ", ".join(item.name for item in fields(EngineFile))
        return f"{place}unknown key, expected {known}; update cn2"
    message = str(error["msg"]).removeprefix("Value error, ")
    return (
        place
        + message
        + ("" if error["type"] == "value_error" else f", got {error['input']!r:.80}")
    )
