"""The GPU of this machine, as far as an engine depends on it."""

from __future__ import annotations

from dataclasses import dataclass

from cn2.runtime.backends.cuda_runtime import import_cuda
from cn2.runtime.errors import BackendUnavailableError
from cn2.runtime.machine import has_cuda_driver


@dataclass(frozen=True, kw_only=True)
class Gpu:
    """The current CUDA device."""

    name: str
    target: str  # its compute capability, as "sm_86"


def gpu_to_build_on() -> Gpu:
    """The current CUDA device, for a library that measures on it.

    Raises:
        BackendUnavailableError: as `current_gpu`.
    """
    try:
        return current_gpu()
    except BackendUnavailableError as error:
        raise BackendUnavailableError(
            f"tensorrt builds on the GPU that is to run the engine; {error}; build there, or take "
            f"--runtime tensorrt-rtx, which needs none"
        ) from error


def current_gpu() -> Gpu:
    """The current CUDA device.

    Raises:
        BackendUnavailableError: there is none, or no driver, or cuda-bindings is not installed.
    """
    cuda = import_cuda()
    if not has_cuda_driver():
        raise BackendUnavailableError("no GPU: no NVIDIA driver (libcuda.so.1)")
    status, count = cuda.cudaGetDeviceCount()
    if int(status) != 0 or not count:
        raise BackendUnavailableError(f"no GPU (cudaGetDeviceCount: {status.name})")
    _, device = cuda.cudaGetDevice()
    status, properties = cuda.cudaGetDeviceProperties(device)
    if int(status) != 0:
        raise BackendUnavailableError(f"no GPU (cudaGetDeviceProperties: {status.name})")
    name = properties.name.decode("utf-8", "replace").rstrip("\0")
    return Gpu(name=name, target=f"sm_{properties.major}{properties.minor}")
