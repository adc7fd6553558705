"""A model file's path in, the backend that runs it out; a backend's library loads only here."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from cn2.plugins import library_path

from ..errors import BackendUnavailableError, ModelFormatError
from .base import Backend

# Which backends read which file; the first is the one that "auto" takes.
READERS = {
    ".onnx": ("onnxruntime", "native"),
    ".engine": ("native", "tensorrt"),
    ".safetensors": ("torch",),
}
NAMES = tuple(dict.fromkeys(name for names in READERS.values() for name in names))
# Beside libcn2, one for each binary interface of TensorRT: without either it opens no engine.
ENGINE_MODULES = ("cn2_tensorrt10", "cn2_tensorrt11")


def open_backend(
    path: Path, backend: str = "auto", device: str = "auto", **options: Any
) -> Backend:
    """Open a model file; see `Detector.open`."""
    if backend not in ("auto", *NAMES):
        raise ValueError(f"backend: expected auto, {', '.join(NAMES)}, got {backend!r}")
    readers = READERS.get(path.suffix.lower())
    if readers is None:
        raise ModelFormatError(
            f"{path}: expected a model file ({', '.join(READERS)}), got {path.suffix or 'none'!r}"
        )
    if backend not in ("auto", *readers):
        wanted = " and ".join(suffix for suffix, names in READERS.items() if backend in names)
        raise ModelFormatError(f"{path}: the backend {backend} reads {wanted} files only")
    if not path.is_file():
        raise ModelFormatError(f"{path}: no such file")
    match _first_reader(readers) if backend == "auto" else backend:
        case "onnxruntime":
            from .onnxruntime import OnnxRuntimeBackend

            return OnnxRuntimeBackend.open(path, device=device, **options)
        case "native":
            from .native import NativeBackend

            return NativeBackend.open(path, device=device, **options)
        case "tensorrt":
            from .tensorrt import TensorRTBackend

            return TensorRTBackend.open(path, device=device, **options)
        case _:
            return _open_torch(path, device, **options)


def _first_reader(readers: tuple[str, ...]) -> str:
    """What "auto" is: the first; of engines the bindings, where libcn2 cannot open any."""
    if readers == READERS[".engine"] and not reads_engines():
        return "tensorrt"
    return readers[0]


def reads_engines() -> bool:
    """Whether libcn2 is here, built with TensorRT's headers."""
    modules = any(library_path(name) is not None for name in ENGINE_MODULES)
    return modules and library_path("cn2") is not None


def _open_torch(path: Path, device: str, **options: Any) -> Backend:
    try:
        from cn2.export.torch_backend import TorchBackend
    except ImportError as error:
        raise _needs_torch(path, error) from error
    opened: Backend = TorchBackend.open(path, device=device, **options)
    return opened


def open_first_stage(path: Path, device: str, proposals: int | None) -> Backend:
    """The first stage of a checkpoint; see `cn2.export.first_stage`."""
    try:
        from cn2.export.first_stage import open_first_stage as open_checkpoint
    except ImportError as error:
        raise _needs_torch(path, error) from error
    opened: Backend = open_checkpoint(path, device, proposals)
    return opened


def _needs_torch(path: Path, error: ImportError) -> BackendUnavailableError:
    return BackendUnavailableError(
        f"{path}: a checkpoint needs torch ({error}); pip install 'cn2[export]', "
        f"or export it to ONNX elsewhere"
    )
