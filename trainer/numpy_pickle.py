"""Pickles of numpy arrays, such as detectron2's .pkl files, read without running anything in them.

Only builtin containers, numbers, texts and numpy's arrays, dtypes and scalars are allowed; even
those are stand-ins of ours, so that no code of numpy sees what a stranger wrote.
"""

from __future__ import annotations

import math
import pickle
import re
import warnings
from collections import OrderedDict
from pathlib import Path
from typing import Any, BinaryIO, ClassVar, Literal

import numpy as np
import torch
from torch import Tensor

NUMBER = re.compile(r"[<>=|]?[biuf][1248]")  # what numpy calls its dtypes of plain numbers
CALLS = 3  # at most for an array: itself, its dtype, its bytes


class ForbiddenNameError(Exception):
    """A pickle asks for something that is no data; `name` says for what."""

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.name = name


class TooManyError(Exception):
    """A pickle makes more things than was allowed."""


def load_numpy_pickle(path: Path, most: int) -> Any:
    """What a pickle holds, its arrays as `PickledArray`.

    Args:
        path: of the pickle.
        most: arrays that it may have; about, so that time is not spent on many more.

    Raises:
        ForbiddenNameError: it asks for anything else than data. Nothing was run.
        TooManyError: it has more arrays.
        Exception: of any kind, where the bytes are no pickle or a torn one.
    """
    with path.open("rb") as stream:
        unpickler = _Unpickler(_Stream(stream, path.stat().st_size), encoding="latin1")
        unpickler.calls_left = CALLS * most
        return unpickler.load()


class PickledType:
    """What a pickle says of a dtype."""

    __slots__ = ("byte_order", "code")

    def __init__(self, code: str) -> None:
        self.code = code
        self.byte_order: Literal["<", ">", "="] = "="

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        """Take numpy's state of a dtype: a version, the byte order, what structures have."""
        self.byte_order = {"<": "<", ">": ">"}.get(state[1], "=")  # type: ignore[assignment]

    @property
    def is_number(self) -> bool:
        """Whether it is a plain number, and not a text or a structure."""
        return NUMBER.fullmatch(self.code) is not None

    @property
    def dtype(self) -> np.dtype[Any]:
        """The dtype itself, of plain numbers."""
        if not self.is_number:
            raise ValueError(f"expected numbers, got dtype {self.code!r:.20}")
        return np.dtype(self.code).newbyteorder(self.byte_order)


class PickledArray:
    """What a pickle says of an array."""

    __slots__ = ("data", "fortran", "shape", "type")

    def __init__(self) -> None:
        self.shape: tuple[int, ...] = (0,)
        self.type = PickledType("f4")
        self.fortran = False
        self.data: Any = b""  # bytes, or a text where Python 2 wrote it

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        """Take numpy's state of an array: (version,) shape, dtype, is Fortran's order, data."""
        shape, self.type, self.fortran, self.data = state[-4:]
        self.shape = tuple(int(side) for side in shape)

    @property
    def is_numbers(self) -> bool:
        """Whether it holds plain numbers."""
        return isinstance(self.type, PickledType) and self.type.is_number

    def tensor(self) -> Tensor:
        """The array as a tensor; it may share the pickle's memory, so only read it.

        Raises:
            ValueError: not of numbers, or the data do not fill the shape.
        """
        dtype = self.type.dtype
        data = self.data.encode("latin1") if isinstance(self.data, str) else self.data
        if min(self.shape, default=0) < 0 or len(data) != math.prod(self.shape) * dtype.itemsize:
            raise ValueError(f"expected data of shape {self.shape}, got {len(data)} bytes")
        order: Literal["C", "F"] = "F" if self.fortran else "C"
        array = np.ndarray(self.shape, dtype, data, order=order)
        with warnings.catch_warnings():  # it is read-only: half the memory of a copy
            warnings.filterwarnings("ignore", message="The given NumPy array is not writable")
            return torch.from_numpy(array.astype(dtype.newbyteorder("="), copy=False))


class _Callable:
    """What a pickle may call; without a single attribute that it could set."""

    __slots__ = ()


class _MakeType(_Callable):
    __slots__ = ()

    def __call__(self, code: Any, *_: Any) -> PickledType:
        return PickledType(str(code))


class _MakeArray(_Callable):
    __slots__ = ()

    def __call__(self, *_: Any) -> PickledArray:
        return PickledArray()  # its __setstate__ gets all there is


class _MakeFromBuffer(_Callable):
    """`numpy.core.numeric._frombuffer`, as numpy writes arrays in pickle's protocol 5."""

    __slots__ = ()

    def __call__(self, data: Any, kind: Any, shape: Any, order: Any) -> PickledArray:
        array = PickledArray()
        array.__setstate__((shape, kind, order == "F", data))
        return array


class _MakeScalar(_Callable):
    __slots__ = ()

    def __call__(self, kind: Any, data: Any) -> Any:
        data = data.encode("latin1") if isinstance(data, str) else data
        return np.frombuffer(data, kind.dtype)[0].item()


class _MakeBytes(_Callable):
    """Before protocol 3 bytes were texts to be encoded; bytearrays are made of either."""

    __slots__ = ()

    def __call__(self, data: Any = b"", *_: Any) -> bytes:
        if not isinstance(data, bytes | str):
            raise ValueError(f"expected bytes or a text, got {type(data).__name__}")
        return data.encode("latin1") if isinstance(data, str) else data


def _allowed() -> dict[str, Any]:
    """Full names in pickles -> our stand-ins, or builtin types, which cannot be changed."""
    allowed: dict[str, Any] = {
        "numpy.dtype": _MakeType(),
        "numpy.ndarray": _Callable(),  # an argument of _reconstruct, never called
        "_codecs.encode": _MakeBytes(),
        "collections.OrderedDict": OrderedDict,
    }
    for core in ("numpy.core", "numpy._core"):  # before and since numpy 2
        allowed[f"{core}.multiarray._reconstruct"] = _MakeArray()
        allowed[f"{core}.multiarray.scalar"] = _MakeScalar()
        allowed[f"{core}.numeric._frombuffer"] = _MakeFromBuffer()
    for module in ("builtins", "__builtin__"):
        for kind in (set, frozenset, list, tuple, dict):
            allowed[f"{module}.{kind.__name__}"] = kind
        allowed[f"{module}.bytearray"] = _MakeBytes()
    return allowed


ALLOWED = _allowed()


class _Unpickler(pickle._Unpickler):
    """Python's own unpickler, in Python: the one in C can be made to fill the memory."""

    calls_left = 0

    def load_reduce(self) -> None:
        self.calls_left -= 1
        if self.calls_left < 0:
            raise TooManyError
        super().load_reduce()  # type: ignore[misc]  # not in typeshed

    dispatch: ClassVar[dict[int, Any]] = {
        **pickle._Unpickler.dispatch,
        pickle.REDUCE[0]: load_reduce,
    }

    def find_class(self, module: str, name: str) -> Any:
        full = f"{module}.{name}"
        if full not in ALLOWED:
            raise ForbiddenNameError(full)
        return ALLOWED[full]

    def get_extension(self, code: int) -> None:
        raise ForbiddenNameError(f"copyreg extension {code}")

    def persistent_load(self, pid: Any) -> Any:
        raise ForbiddenNameError("a persistent id")


class _Stream:
    """A file that never reads more than is left: a pickle's claimed lengths are not believed."""

    def __init__(self, stream: BinaryIO, size: int) -> None:
        self.stream = stream
        self.size = size
        self.readline = stream.readline

    def read(self, count: int) -> bytes:
        left = self.size - self.stream.tell()
        if count > left:
            raise EOFError(f"{count} bytes are claimed where {left} are left")
        return self.stream.read(count)

    def readinto(self, buffer: Any) -> int:
        data = self.read(len(buffer))
        buffer[: len(data)] = data
        return len(data)
