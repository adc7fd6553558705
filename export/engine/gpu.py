"""The GPU of this machine, as far as an engine depends on it."""

from __future__ import annotations

from dataclasses import dataclass

from cn2.runtime.errors import BackendUnavailableError


@dataclass(frozen=True, kw_only=True)
class Gpu:
    """The current CUDA device."""

    name: str
    target: str  # its compute capability, as "sm_86"


def current_gpu() -> Gpu:
    """The current CUDA device.

    Raises:
        BackendUnavailableError: there is none, or no driver, or cuda-bindings is not installed.
    """
    try:
        from cuda.bindings import runtime
    except ImportError as error:
        raise BackendUnavailableError(
            f"the GPU cannot be asked for ({error}); pip install cuda-bindings"
        ) from error
    try:
        status, count = runtime.cudaGetDeviceCount()
    except RuntimeError as error:  # the driver's library is not here
        raise BackendUnavailableError(f"no CUDA driver ({error})") from error
    if int(status) != 0 or not count:
        raise BackendUnavailableError(f"no GPU (cudaGetDeviceCount: {status.name})")
    _, device = runtime.cudaGetDevice()
    status, properties = runtime.cudaGetDeviceProperties(device)
    if int(status) != 0:
        raise BackendUnavailableError(f"no GPU (cudaGetDeviceProperties: {status.name})")
    name = properties.name.decode() if isinstance(properties.name, bytes) else properties.name
    return Gpu(name=name.rstrip("\0"), target=f"sm_{properties.major}{properties.minor}")
