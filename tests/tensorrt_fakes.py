"""libcn2 beside its modules, with TensorRT and NVIDIA's driver faked, for test_c_tensorrt*.py.

Programs run in a process of their own: a driver, once loaded, stays.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np

from c_library import Model, image
from cn2.runtime.canvas import CanvasRule
from cn2.runtime.manifest import Manifest
from fake_backend import make_manifest
from native_libraries import ROOT, missing

BUILD = Path(os.environ.get("CN2_NATIVE_BUILD", ROOT / "build" / "native"))
PROFILE = "profile 1 4 64 128 64 128"
PLAN = f"fake plan -1 -1 -1 2 threshold {PROFILE}"
FIXED_PLAN = "fake plan -1 64 96 2 threshold profile 1 4 64 64 96 96"
FIXED = make_manifest(
    canvas=CanvasRule(
        short_edge=64, long_edge=96, divisor=32, interpolation="linear", fixed=(64, 96)
    )
)
PLUGINS = "libcn2_trt_plugins.so"
TIMEOUT_S = 60

# What each program begins with: libcn2 as `library`, the fake driver as `cuda`, `picture` of a grey
# level, `painted` of one that is written on a stream, and `show` for detections.
PRELUDE = """
import ctypes, os, sys, threading
from ctypes import byref, c_char_p, c_long, c_size_t, c_ulonglong, c_void_p
from pathlib import Path
import numpy as np
from c_library import *
from cn2.runtime.backends.libcn2 import *
library = Library(Path({library!r}))
try:
    cuda = ctypes.CDLL("libcuda.so.1")
    cuda.fake_cuda_log.restype, cuda.fake_cuda_live.restype = c_char_p, c_long
    cuda.fake_cuda_waiting.restype = c_long
except OSError:
    cuda = None
engine = Path({engine!r})
def picture(level, height=64, width=96, **kind):
    return image(np.full((height, width, 3), level, np.uint8), **kind)
def in_context(call, *arguments):
    cuda.cuCtxPushCurrent_v2(c_void_p(1))
    status = call(*arguments)
    cuda.cuCtxPopCurrent_v2(byref(c_void_p()))
    assert status == 0, status
def new_stream():
    made = c_void_p()
    in_context(cuda.cuStreamCreate, byref(made), 1)
    return made.value
def painted(level, stream, height=64, width=96):
    one = picture(0, height, width, memory=1)
    where = (c_ulonglong(one.data), level, c_size_t(height * width * 3))
    in_context(cuda.cuMemsetD8Async, *where, c_void_p(stream))
    return one
def show(found):
    for one in found:
        print([round(float(s), 4) for s in one.scores], one.boxes.tolist(), one.class_ids.tolist())
def calls():
    return cuda.fake_cuda_log().decode()
said = []
hear = LogCallback(lambda _, level, text: said.append((level, text.decode())))
"""


class FakeGpu:
    """A folder with libcn2 and its modules, an engine, and an environment with the fakes."""

    def __init__(self, folder: Path, version: int) -> None:
        self.folder, self.version = folder, version
        self.runtime = needed(BUILD / "fake_tensorrt" / f"libnvinfer.so.{version}")
        self.libraries = folder / "lib"
        self.libraries.mkdir()
        self.add(needed(BUILD / "libcn2.so"))  # a copy: it looks beside its own file
        self.add(needed(BUILD / f"libcn2_tensorrt{version}.so"))
        self.engine = folder / "m.engine"
        self.environment = {
            "LD_LIBRARY_PATH": str(needed(BUILD / "fake_cuda" / "libcuda.so.1").parent),
            "CN2_TENSORRT": str(self.runtime),
            "PYTHONPATH": str(ROOT / "tests"),
        }

    def add(self, library: Path) -> None:
        """Put a library beside libcn2."""
        shutil.copy(library, self.libraries)

    def add_kernels(self) -> None:
        """libcn2_cuda, with emulated kernels."""
        self.add(needed(BUILD / "emulated" / "libcn2_cuda.so"))

    def write(self, plan: str = PLAN, manifest: Manifest | None = None, **changes: Any) -> None:
        """The engine's two files; `changes` of its JSON."""
        manifest = manifest or make_manifest()
        sidecar = {
            "manifest": json.loads(manifest.to_json()),
            "sha256": hashlib.sha256(plan.encode()).hexdigest(),
            "runtime": "tensorrt",
            "version": f"{self.version}.0.0",
            "targets": ["sm_86"],
            "profiles": [],
            "precision": manifest.precision,
        }
        self.engine.write_text(plan)
        Path(f"{self.engine}.json").write_text(json.dumps({**sidecar, **changes}))

    def run(self, program: str, **environment: str) -> str:
        """What a program prints after PRELUDE."""
        prelude = PRELUDE.format(library=str(self.libraries / "libcn2.so"), engine=str(self.engine))
        done = subprocess.run(
            [sys.executable, "-c", prelude + program],
            capture_output=True,
            text=True,
            timeout=TIMEOUT_S,
            env={**os.environ, **self.environment, **environment},
        )
        assert done.returncode == 0, done.stderr[-3000:]
        return done.stdout

    def refusal(self, options: str = "", **environment: str) -> tuple[int, str]:
        """Status and text of an engine that cannot be opened."""
        program = f"print(open_status(library, engine{options}))\n"
        said = self.run(program + "print(library.last_error().decode())", **environment)
        status, message = said.splitlines()  # one line
        return int(status), message


def shown(model: Model, *pictures: tuple[int, int, int]) -> str:
    """As `show` prints what a model finds in pictures of a grey level, height, width."""
    images = [
        image(np.full((height, width, 3), level, np.uint8)) for level, height, width in pictures
    ]
    lines = []
    for one in model.detect(images):
        scores = [round(float(score), 4) for score in one.scores]
        lines.append(f"{scores} {one.boxes.tolist()} {one.class_ids.tolist()}\n")
    return "".join(lines)


def needed(path: Path) -> Path:
    """A file that `make native` builds; without it see `missing`."""
    return path if path.is_file() else missing(f"{path.name}: not built; make native")
