"""A model file's path in, the backend that runs it out; a backend's library loads only here."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ..errors import BackendUnavailableError, ModelFormatError
from .base import Backend

READERS = {".onnx": "onnxruntime", ".safetensors": "torch"}  # which backend reads which file


def open_backend(
    path: Path, backend: str = "auto", device: str = "auto", **options: Any
) -> Backend:
    """Open a model file; see `Detector.open`."""
    if backend not in ("auto", *READERS.values()):
        raise ValueError(f"backend: expected auto, onnxruntime or torch, got {backend!r}")
    reader = READERS.get(path.suffix.lower())
    if reader is None:
        raise ModelFormatError(
            f"{path}: expected a model file ({', '.join(READERS)}), got {path.suffix or 'none'!r}"
        )
    if backend not in ("auto", reader):
        wanted = next(suffix for suffix, name in READERS.items() if name == backend)
        raise ModelFormatError(f"{path}: the backend {backend} reads {wanted} files only")
    if not path.is_file():
        raise ModelFormatError(f"{path}: no such file")
    if reader == "torch":
        return _open_torch(path, device, **options)
    from .onnxruntime import OnnxRuntimeBackend

    return OnnxRuntimeBackend.open(path, device=device, **options)


def _open_torch(path: Path, device: str, **options: Any) -> Backend:
    try:
        from cn2.export.torch_backend import TorchBackend
    except ImportError as error:
        raise BackendUnavailableError(
            f"{path}: a checkpoint needs torch ({error}); pip install 'cn2[export]', "
            f"or export it to ONNX elsewhere"
        ) from error
    opened: Backend = TorchBackend.open(path, device=device, **options)
    return opened
