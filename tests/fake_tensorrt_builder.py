"""The builder's half of full TensorRT: TensorRT-RTX's, with what only the full one has.

It parses for real, and "builds" PLAN. What it was asked for lies in `asked`.
"""

from __future__ import annotations

from types import ModuleType, SimpleNamespace
from typing import Any

PLAN = b"a plan"
SOUND_CACHE = b"timings"  # of this version and GPU


class FakeConfig:
    """A configuration whose timing cache, flags and levels are only written down."""

    def __init__(self, real: Any, asked: dict[str, Any]) -> None:
        self.__dict__.update(real=real, asked=asked)
        asked.update(set_flags=[], cleared_flags=[])

    def __getattr__(self, name: str) -> Any:
        return getattr(self.real, name)

    def __setattr__(self, name: str, value: Any) -> None:
        self.asked[name] = value
        if name != "hardware_compatibility_level":  # which TensorRT-RTX warns of
            setattr(self.real, name, value)

    def set_flag(self, flag: Any) -> None:
        self.asked["set_flags"].append(flag.name)

    def clear_flag(self, flag: Any) -> None:
        self.asked["cleared_flags"].append(flag.name)
        self.real.clear_flag(flag)

    def create_timing_cache(self, content: bytes) -> Any:
        return SimpleNamespace(content=content)

    def set_timing_cache(self, cache: Any, ignore_mismatch: bool) -> bool:
        assert not ignore_mismatch
        if cache.content not in (b"", SOUND_CACHE):
            return False
        self.asked["timing_cache"] = cache.content
        return True

    def get_timing_cache(self) -> Any:
        return SimpleNamespace(serialize=lambda: SOUND_CACHE)


def fake_tensorrt(rtx: ModuleType, version: str) -> Any:
    """The module `tensorrt` of a version; 11 has strongly typed networks only, and no flag."""
    asked: dict[str, Any] = {}

    class Builder:
        def __init__(self, logger: Any) -> None:
            self.real = rtx.Builder(logger)

        def __getattr__(self, name: str) -> Any:
            return getattr(self.real, name)

        def create_network(self, flags: int) -> Any:
            asked["network_flags"] = flags
            return self.real.create_network(flags)

        def create_builder_config(self) -> FakeConfig:
            return FakeConfig(self.real.create_builder_config(), asked)

        def build_serialized_network(self, network: Any, config: FakeConfig) -> bytes:
            return PLAN

    class Module(ModuleType):
        def __getattr__(self, name: str) -> Any:
            return getattr(rtx, name)

    module = Module("tensorrt")
    module.__dict__.update(__version__=version, Builder=Builder, asked=asked)
    module.__dict__["ComputeCapability"] = None  # full TensorRT has none
    if version.startswith("11"):
        module.__dict__["NetworkDefinitionCreationFlag"] = SimpleNamespace()
    return module
