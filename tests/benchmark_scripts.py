"""The scripts of benchmarks/ as modules; they import each other by bare names, as when run."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType

BENCHMARKS = Path(__file__).resolve().parent.parent / "benchmarks"


@contextmanager
def imported(*names: str) -> Iterator[dict[str, ModuleType]]:
    """Modules by name, freshly imported; afterwards no script is left in sys.modules."""
    scripts = {path.stem for path in BENCHMARKS.glob("*.py")}
    sys.path.insert(0, str(BENCHMARKS))
    try:
        yield {name: importlib.import_module(name) for name in names}
    finally:
        sys.path.remove(str(BENCHMARKS))
        for name in scripts & sys.modules.keys():
            del sys.modules[name]
