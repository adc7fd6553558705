"""Where the native libraries are that `make native` or a wheel brought; nothing is loaded here."""

from __future__ import annotations

import os
from pathlib import Path

FOLDER_VARIABLE = "CN2_LIBRARY_DIR"


def library_path(name: str) -> Path | None:
    """The file of a native library.

    Args:
        name: "cn2" (the C library), "cn2_ort_ops" (operators for ONNX Runtime), "cn2_trt_plugins"
            (plugins for TensorRT), "cn2_rtx_name" (see `cn2.export.rtx_library`).
    Returns:
        lib<name>.so in $CN2_LIBRARY_DIR if that is set, else in `lib/` beside this file; None where
        it is not there.
    """
    folder = os.environ.get(FOLDER_VARIABLE)
    path = (Path(folder) if folder else Path(__file__).parent / "lib") / f"lib{name}.so"
    return path if path.is_file() else None


def trt_plugins_path() -> Path | None:
    """The library of plugins for TensorRT 10, 11 and TensorRT-RTX; None where it was not built."""
    return library_path("cn2_trt_plugins")
