"""TensorRT's timing cache: what it measured in earlier builds, so that it need not again."""

from __future__ import annotations

import logging
import os
import re
from pathlib import Path
from typing import Any

from cn2.runtime.errors import OutputError

from .files import write_whole
from .gpu import Gpu
from .library import Library

LOG = logging.getLogger(__name__)


def default_timing_cache(library: Library, gpu: Gpu) -> Path:
    """The file for a version and a GPU, in the user's cache folder."""
    base = os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
    name = re.sub(r"[^A-Za-z0-9.]+", "-", f"{library.version}-{gpu.name}-{gpu.target}")
    return Path(base) / "cn2" / f"timing-{name}.cache"


def load_timing_cache(config: Any, path: Path) -> None:
    """Let a build use what a file holds, or start anew where it is of no use."""
    content = path.read_bytes() if path.is_file() else b""
    cache = config.create_timing_cache(content)
    if cache is not None and config.set_timing_cache(cache, False):
        return
    LOG.warning("%s: of another TensorRT or GPU, or torn; measuring anew", path)
    config.set_timing_cache(config.create_timing_cache(b""), False)


def save_timing_cache(config: Any, path: Path) -> None:
    """Keep what a build measured; a file that cannot be written is a warning."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_whole(path, bytes(config.get_timing_cache().serialize()))
    except (OSError, OutputError) as error:
        LOG.warning("the timing cache is not kept: %s", error)
