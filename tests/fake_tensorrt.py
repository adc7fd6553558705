"""TensorRT's bindings without TensorRT: an engine that finds bright blocks, as `FakeBackend`.

A plan of it is JSON: the manifest, and what is to be wrong with it.
"""

from __future__ import annotations

import ctypes
import hashlib
import json
import threading
from enum import Enum
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np

from cn2.runtime.backends.tensorrt_library import OPERATORS
from cn2.runtime.engine_file import EngineFile, EngineProfile, sidecar_path
from cn2.runtime.errors import ModelFormatError
from cn2.runtime.manifest import Manifest
from fake_backend import FakeBackend, make_manifest
from fake_cuda_runtime import FakeCudaRuntime

VERSION = "9.8.7.6"
ANY = EngineProfile(batch=(1, 4, 8), height=(32, 64, 640), width=(32, 96, 640))
DataType = Enum("DataType", ["FLOAT", "HALF", "INT32", "INT64", "UINT8"])
TensorIOMode = Enum("TensorIOMode", ["NONE", "INPUT", "OUTPUT"])
Severity = Enum("Severity", ["INTERNAL_ERROR", "ERROR", "WARNING", "INFO", "VERBOSE"])


def write_engine(
    path: Path,
    manifest: Manifest | None = None,
    *,
    profiles: tuple[EngineProfile, ...] = (ANY,),
    plan: dict[str, Any] | None = None,
    **changes: Any,
) -> Path:
    """Write a plan of the fake and its JSON, with parts of either changed."""
    manifest = manifest or make_manifest()
    content = {"manifest": json.loads(manifest.to_json()), "profiles": len(profiles)}
    data = json.dumps(content | (plan or {})).encode()
    path.write_bytes(data)
    values: dict[str, Any] = {
        "manifest": manifest,
        "sha256": hashlib.sha256(data).hexdigest(),
        "runtime": "tensorrt-rtx",
        "version": VERSION,
        "targets": ("sm_75", "sm_86"),
        "profiles": profiles,
        "precision": manifest.precision,
    }
    about = EngineFile(**values | changes)
    sidecar_path(path).write_text(about.to_json())
    return path


def blocks(height: int = 64, width: int = 96) -> np.ndarray:
    """Red on the left, blue below."""
    picture = np.zeros((height, width, 3), np.uint8)
    picture[: height // 2, : width // 3, 0] = 200
    picture[height // 2 :, width // 2 :, 2] = 250
    return picture


class ILogger:
    """As pybind's classes: the base must be initialised."""

    Severity = Severity

    def __init__(self) -> None:
        self.is_ready = True


class FakeTensorRT:
    """The module; `cuda` is whose memory and streams its engines use."""

    ILogger = ILogger
    DataType, TensorIOMode = DataType, TensorIOMode
    __version__ = VERSION

    def __init__(self, cuda: FakeCudaRuntime) -> None:
        self.cuda = cuda
        self.contexts = 0
        self.libraries: list[str] = []
        self.plugins = [("PyramidRoIAlign", "1", "somebody's")]  # that it knows
        self.brings = [(name, "1", "cn2") for name in OPERATORS]  # what a library adds to them
        self.loads_libraries = True
        self.refuses = ""  # a method of a context that returns False
        self.logger: Any = None
        self.runtime: Any = None  # the last one

    def get_plugin_registry(self) -> Any:
        return self

    @property
    def all_creators(self) -> list[Any]:
        keys = ("name", "plugin_version", "plugin_namespace")
        return [SimpleNamespace(**dict(zip(keys, one, strict=True))) for one in self.plugins]

    def load_library(self, path: str) -> Any:
        self.libraries.append(path)
        if not self.loads_libraries:
            self.logger.log(Severity.ERROR, "not a plugin\nlibrary")
            return None
        self.plugins += self.brings
        return object()

    def Runtime(self, logger: Any) -> Any:
        assert logger.is_ready
        self.logger = logger
        self.runtime = SimpleNamespace(
            deserialize_cuda_engine=lambda plan: self._load(plan, logger)
        )
        return self.runtime

    def _load(self, plan: bytes, logger: Any) -> FakeEngine | None:
        logger.log(Severity.WARNING, "a warning")
        try:
            return FakeEngine(self, json.loads(plan), logger)
        except (ValueError, ModelFormatError):
            logger.log(Severity.ERROR, "Error Code 1: Serialization (magic tag\n does not match)")
            return None


class FakeEngine:
    def __init__(self, module: FakeTensorRT, content: dict[str, Any], logger: Any) -> None:
        self.module, self.logger = module, logger
        self.manifest = Manifest.from_json(json.dumps(content["manifest"]))
        rows = content.get("rows", self.manifest.detections)
        self.tensors: dict[str, tuple[str, str, tuple[int, ...]]] = {
            "images": ("INPUT", "UINT8", (-1, -1, -1, 3)),
            "image_sizes": ("INPUT", "INT32", (-1, 2)),
            "score_threshold": ("INPUT", "FLOAT", ()),
            "num_detections": ("OUTPUT", "INT32", (-1,)),
            "boxes": ("OUTPUT", "FLOAT", (-1, rows, 4)),
            "scores": ("OUTPUT", "FLOAT", (-1, rows)),
            "classes": ("OUTPUT", content.get("classes", "INT32"), (-1, rows)),
        }
        self.num_optimization_profiles = content["profiles"]
        self.num_io_tensors = len(self.tensors)
        self.has_contexts = content.get("contexts", True)

    def get_tensor_name(self, index: int) -> str:
        return list(self.tensors)[index]

    def get_tensor_mode(self, name: str) -> TensorIOMode:
        return TensorIOMode[self.tensors[name][0]]

    def get_tensor_dtype(self, name: str) -> DataType:
        return DataType[self.tensors[name][1]]

    def get_tensor_shape(self, name: str) -> tuple[int, ...]:
        return self.tensors[name][2]

    def create_execution_context(self) -> FakeContext | None:
        if not self.has_contexts:
            self.logger.log(Severity.ERROR, "out of memory")
            return None
        self.module.contexts += 1
        return FakeContext(self)


class FakeContext:
    """Runs what lies at the addresses; one thread at a time, as the real one."""

    def __init__(self, engine: FakeEngine) -> None:
        self._engine, self._cuda = engine, engine.module.cuda
        self._shapes: dict[str, tuple[int, ...]] = {}
        self._addresses: dict[str, int] = {}
        self._busy = threading.Lock()
        self.profile = 0

    def __getattr__(self, name: str) -> Any:
        function = getattr(self, f"do_{name}")
        if self._engine.module.refuses == name:
            self._engine.logger.log(Severity.ERROR, f"fake: {name}\nrefused")
            return lambda *_: False
        return lambda *arguments: function(*arguments) is not False

    def do_set_optimization_profile_async(self, profile: int, stream: int) -> None:
        assert 0 <= profile < self._engine.num_optimization_profiles
        assert stream in self._cuda.streams
        self.profile = profile

    def do_set_input_shape(self, name: str, shape: tuple[int, ...]) -> None:
        assert isinstance(shape, tuple)
        self._shapes[name] = shape

    def do_set_tensor_address(self, name: str, address: int) -> None:
        assert address % 256 == 0
        self._addresses[name] = address

    def do_execute_async_v3(self, stream: int) -> None:
        assert set(self._addresses) == set(self._engine.tensors)
        assert self._busy.acquire(blocking=False), "two calls in one context"
        self._cuda.queue(stream, self._run)

    def _run(self) -> None:
        images = self._array("images", self._shapes["images"], np.uint8)
        sizes = self._array("image_sizes", self._shapes["image_sizes"], np.int32)
        threshold = float(self._array("score_threshold", (), np.float32))
        backend = FakeBackend(self._engine.manifest)
        found = backend.infer(images, sizes, round(threshold, 6))
        for name, value in found._asdict().items():
            self._array(name, value.shape, value.dtype)[...] = value
        self._busy.release()

    def _array(self, name: str, shape: tuple[int, ...], dtype: Any) -> np.ndarray:
        size = int(np.prod(shape)) * np.dtype(dtype).itemsize
        address = self._addresses[name]
        assert self._cuda.is_on_device(address, size), f"{name}: not in device memory"
        memory = (ctypes.c_uint8 * size).from_address(address)
        return np.frombuffer(memory, dtype).reshape(shape)
