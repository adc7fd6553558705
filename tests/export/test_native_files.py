"""libcn2 finds in files of other settings what the backend onnxruntime finds.

The usual files are compared where they are exported: test_onnx_file.py, test_one_stage.py,
test_fused_file.py.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from cn2.export.onnx_file import export_onnx
from cn2.runtime.backends.native import NativeBackend
from cn2.runtime.errors import ModelFormatError
from cn2.trainer.config import Config
from exported import Exported, lively_detector
from factories import tiny_config
from native_agreement import assert_native_agrees
from native_libraries import needs_library

pytestmark = needs_library("cn2")


def antialiased_config() -> Config:
    """Sides cut off, Pillow's filter, blue first."""
    config = tiny_config()
    changes: dict[str, Any] = {
        "interpolation": "antialias",
        "rounding": "down",
        "color_order": "BGR",
    }
    return replace(config, input=replace(config.input, short_edge=96, **changes))


@pytest.mark.slow  # exports
@pytest.mark.parametrize("options", [{}, {"ops": "fused", "size": (64, 160), "batch": 2}])
def test_antialiased_pictures_on_any_canvas_and_a_fixed_one(
    options: dict[str, Any], tmp_path: Path, quick_export: None
) -> None:
    config = antialiased_config()
    export_onnx(lively_detector(config), config, tmp_path / "m.onnx", **options)
    assert_native_agrees(tmp_path / "m.onnx")


def test_kernels_that_a_file_has_no_use_for(tiny: Exported) -> None:
    with pytest.raises(ModelFormatError, match="expected fused operators, got standard ones"):
        NativeBackend.open(tiny.path, device="cpu", fused=True)
