"""What the translations write with: the standard operators, and constants."""

from __future__ import annotations

from typing import Any, TypeAlias

from onnxscript import opset20

OPSET = 20
op: Any = opset20  # its annotations name eager tensors, not the values of a graph being written
Value: TypeAlias = Any  # an onnx_ir.Value


def ints(*values: int) -> Value:
    """int64 (n,)."""
    return op.Constant(value_ints=list(values))


def floats(*values: float) -> Value:
    """float32 (n,)."""
    return op.Constant(value_floats=list(values))


def number(value: float) -> Value:
    """float32 ()."""
    return op.Constant(value_float=value)
