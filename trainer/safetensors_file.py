"""Writing safetensors files piece by piece, and always in the same bytes for the same content.

The safetensors library writes its metadata in an order that changes from run to run.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from .files import write_whole

DTYPES = {
    torch.float32: "F32",
    torch.int64: "I64",
    torch.int32: "I32",
    torch.int16: "I16",
    torch.int8: "I8",
    torch.uint8: "U8",
    torch.bool: "BOOL",
}
ALIGNMENT = 8  # bytes: the tensors begin at a multiple


def write_tensors(path: Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> None:
    """Write a safetensors file, floating point as fp32; it appears whole or not at all.

    Args:
        path: of the file.
        tensors: by name, on any device; at most one at a time is copied.
        metadata: for the header.
    Raises:
        OutputError: it cannot be written.
    """
    names = sorted(tensors, key=lambda name: (-stored_dtype(tensors[name]).itemsize, name))
    ordered = {name: tensors[name] for name in names}
    write_whole(path, _pieces(ordered, metadata))


def stored_dtype(value: Tensor) -> torch.dtype:
    """The dtype that a tensor has in the file."""
    return torch.float32 if value.is_floating_point() else value.dtype


def _pieces(tensors: dict[str, Tensor], metadata: Mapping[str, str]) -> Iterator[Any]:
    header: dict[str, Any] = {"__metadata__": dict(sorted(metadata.items()))}
    end = 0
    for name, value in tensors.items():
        dtype = stored_dtype(value)
        start, end = end, end + value.numel() * dtype.itemsize
        shape = list(value.shape)
        header[name] = {"dtype": DTYPES[dtype], "shape": shape, "data_offsets": [start, end]}
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % ALIGNMENT)
    yield len(text).to_bytes(8, "little") + text
    for value in tensors.values():
        plain = value.detach().to("cpu", stored_dtype(value)).contiguous()
        yield plain.reshape(-1).view(torch.uint8).numpy()
