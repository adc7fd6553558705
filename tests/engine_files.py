"""Engines for tests of what reads them: a plan of a few bytes, and a sound JSON beside it."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

from cn2.runtime.engine_file import EngineFile, EngineProfile, sidecar_path
from fake_backend import make_manifest

PLAN = b"ftrt" + bytes(range(256))


def make_engine_file(**changes: Any) -> EngineFile:
    """The JSON of PLAN, with some fields changed."""
    profile = EngineProfile(batch=(1, 1, 4), height=(64, 64, 128), width=(64, 96, 128))
    values: dict[str, Any] = {
        "manifest": make_manifest(),
        "sha256": hashlib.sha256(PLAN).hexdigest(),
        "runtime": "tensorrt-rtx",
        "version": "1.7.1.116",
        "targets": ("sm_75", "sm_86"),
        "profiles": (profile,),
        "precision": "fp32",
    }
    return EngineFile(**{**values, **changes})


def write_engine(path: Path, about: EngineFile, plan: bytes = PLAN) -> Path:
    """The two files of an engine; returns `path`."""
    path.write_bytes(plan)
    sidecar_path(path).write_text(about.to_json(), encoding="utf-8")
    return path
