"""Try TensorRT as `cn2 doctor` does: build the smallest engine there is, and run it.

A runtime without a builder (the lean one) is asked only whether it starts.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from .backends.cuda_runtime import Cuda
from .backends.tensorrt_library import TensorRT, open_tensorrt
from .backends.tensorrt_slots import Tensor
from .errors import InferenceError


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
