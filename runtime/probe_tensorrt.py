"""Try TensorRT as `cn2 doctor` does: build the smallest engine there is, and run it.

A runtime without a builder (the lean one) is asked only whether it starts. libcn2 runs detectors
alone: it opens that engine, for which it has to load TensorRT, and refuses its tensors.
"""

from __future__ import annotations

import hashlib
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from .backends.cuda_runtime import Cuda
from .backends.native import NativeBackend
from .backends.onnx_header import read_metadata
from .backends.tensorrt_library import TensorRT, open_tensorrt
from .backends.tensorrt_slots import Tensor
from .engine_file import EngineFile, EngineProfile, EngineRuntime, sidecar_path
from .errors import InferenceError, ModelFormatError
from .manifest import manifest_from_metadata
from .probe import PROBE_MODEL

OPENED = "expected the inputs"  # what libcn2 says of an engine that is open, and no detector


def negate_one(runtime: str) -> str:
    """Let TensorRT compute -(1) on the first GPU.

    Args:
        runtime: "tensorrt", "tensorrt-rtx".
    Returns:
        Its version.
    Raises:
        BackendUnavailableError: the bindings, cuda-python, a driver or a GPU are missing.
        InferenceError: it does not work, or not right.
    """
    library = open_tensorrt(runtime)
    cuda = Cuda(0)
    cuda.select()
    trt = library.module
    starter = trt.Runtime(library.log)
    if hasattr(trt, "Builder"):
        engine = starter.deserialize_cuda_engine(build_negation(library))
        answer = _run(library, engine, cuda) if engine is not None else None
        if answer != -1:
            reason = library.take_error() if answer is None else f"-(1) was {answer}"
            raise InferenceError(f"{runtime} {library.version} does not run an engine ({reason})")
    return library.version


def open_with_libcn2(runtime: EngineRuntime) -> str:
    """Let libcn2 open an engine that the bindings build; without a builder it is not tried.

    Returns:
        TensorRT's version.
    Raises:
        BackendUnavailableError: libcn2, its TensorRT, a driver or a GPU are missing.
        InferenceError: the bindings build none, or libcn2 does not open it.
        PluginError: libcn2 is of another version, or cannot be loaded.
    """
    library = open_tensorrt(runtime)
    if hasattr(library.module, "Builder"):
        check_opened(runtime, library.version, bytes(build_negation(library)))
    return library.version


def check_opened(runtime: EngineRuntime, version: str, plan: bytes) -> None:
    """Raise unless libcn2 opens a plan, which is no detector's, with the TensorRT that built it."""
    manifest = manifest_from_metadata(read_metadata(PROBE_MODEL), str(PROBE_MODEL))
    about = EngineFile(
        manifest=manifest,
        sha256=hashlib.sha256(plan).hexdigest(),
        runtime=runtime,
        version=version,
        targets=("this GPU",),
        profiles=(EngineProfile(batch=(1, 1, 1), height=(1, 1, 1), width=(1, 1, 1)),),
        precision=manifest.precision,
    )
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "probe.engine"
        path.write_bytes(plan)
        sidecar_path(path).write_text(about.to_json(), encoding="utf-8")
        try:
            NativeBackend.open(path, device="cuda").close()
        except ModelFormatError as error:
            if OPENED in str(error):
                return
            raise InferenceError(str(error).removeprefix(f"{path}: ")) from error
    raise InferenceError("libcn2 took an engine that is no detector's; run make native again")


def build_negation(library: TensorRT, capability: str | None = None) -> Any:
    """The plan of y = -x, float32 [1].

    Args:
        capability: of TensorRT-RTX: a name such as "SM86", for a machine without a GPU; None: the
            GPU that is here.
    Raises:
        InferenceError: TensorRT builds none.
    """
    trt = library.module
    builder = trt.Builder(library.log)
    network = builder.create_network(1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED))
    x = network.add_input("x", trt.DataType.FLOAT, (1,))
    y = network.add_unary(x, trt.UnaryOperation.NEG).get_output(0)
    y.name = "y"
    network.mark_output(y)
    config = builder.create_builder_config()
    if capability is not None:
        config.num_compute_capabilities = 1
        config.set_compute_capability(getattr(trt.ComputeCapability, capability), 0)
    plan = builder.build_serialized_network(network, config)
    if plan is None:
        raise InferenceError(
            f"{library.runtime} {library.version} builds no engine ({library.take_error()})"
        )
    return plan


def _run(library: TensorRT, engine: Any, cuda: Cuda) -> float | None:
    """y of x = 1; None where TensorRT refuses."""
    context, stream = engine.create_execution_context(), cuda.create_stream()
    x, y = Tensor(cuda, np.float32), Tensor(cuda, np.float32)
    try:
        x.reserve((1,))
        y.reserve((1,))
        x.host[:] = 1
        x.upload(stream)
        done = context is not None and all(
            (
                context.set_tensor_address("x", x.device),
                context.set_tensor_address("y", y.device),
                context.execute_async_v3(stream),
            )
        )
        y.download(stream)
        cuda.synchronize(stream)
        return float(y.host[0]) if done else None
    finally:
        x.close()
        y.close()
        cuda.destroy_stream(stream)
