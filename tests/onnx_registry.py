"""torch's table of ONNX translations, built once for all exports of a test run.

torch.onnx.export builds it anew each time: some 4 s of the 5 s that a single operator takes.
"""

from __future__ import annotations

import copy
import functools
from typing import Any

import pytest


def share_registry(patch: pytest.MonkeyPatch) -> None:
    """Until the patch is undone, give each export a copy of one table; it may add to its copy."""
    try:
        from torch.onnx._internal.exporter._registration import ONNXRegistry
    except ImportError:  # another torch: slower, else the same
        return
    build = functools.cache(ONNXRegistry.from_torchlib)

    def copied(*arguments: Any, **options: Any) -> ONNXRegistry:
        registry = copy.copy(build(*arguments, **options))
        registry.functions = {name: list(known) for name, known in registry.functions.items()}
        return registry

    patch.setattr(ONNXRegistry, "from_torchlib", staticmethod(copied))
