"""TensorRT plugins in a small TensorRT over emulated kernels (plugins/native/plugin_entries.h)."""

from __future__ import annotations

import ctypes
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

FLOAT, HALF, INT32 = 0, 1, 3  # nvinfer1::DataType
LINEAR, CHANNELS_LAST = 0, 8  # nvinfer1::TensorFormat: kLINEAR, kHWC
FLOAT32_FIELD, INT32_FIELD, INT64_FIELD = 1, 5, 10  # nvinfer1::PluginFieldType
BUILD, RUNTIME = 0, 1
TYPES = {np.dtype(np.float32): FLOAT, np.dtype(np.float16): HALF, np.dtype(np.int32): INT32}
DTYPES = {number: dtype for dtype, number in TYPES.items()}
Array = NDArray[Any]


class PluginField(ctypes.Structure):
    """cn2_plugin_field."""

    _fields_ = (
        ("name", ctypes.c_char_p),
        ("data", ctypes.c_void_p),
        ("type", ctypes.c_int32),
        ("length", ctypes.c_int32),
    )


class PluginTensor(ctypes.Structure):
    """cn2_plugin_tensor."""

    _fields_ = (
        ("type", ctypes.c_int32),
        ("format", ctypes.c_int32),
        ("rank", ctypes.c_int32),
        ("sizes", ctypes.c_int64 * 8),
        ("data", ctypes.c_void_p),
    )


class Spec(NamedTuple):
    """A tensor without numbers."""

    shape: tuple[int, ...]
    type: int = FLOAT
    format: int = LINEAR


class PluginLibrary:
    """The library; plugins live as long as it does."""

    def __init__(self, path: Path) -> None:
        self.entries = ctypes.CDLL(str(path))
        for name, result in (
            ("create", ctypes.c_void_p),
            ("clone", ctypes.c_void_p),
            ("creator", ctypes.c_char_p),
            ("workspace", ctypes.c_int64),
            ("take_log", ctypes.c_char_p),
        ):
            self.entry(name).restype = result

    def entry(self, name: str) -> Any:
        return getattr(self.entries, f"cn2_cuda_plugin_{name}")

    def creators(self) -> dict[str, list[str]]:
        """Field names by "NAME VERSION NAMESPACE"."""
        found, index = {}, 0
        while (text := self.entry("creator")(index)) is not None:
            title, *fields = text.decode().split("\n")
            found[title] = fields
            index += 1
        return found

    def create(
        self,
        name: str,
        attributes: Mapping[str, Any],
        *,
        space: str = "cn2",
        phase: int = BUILD,
        ints: type[np.integer[Any]] = np.int32,
    ) -> Plugin:
        """As a parser does with a node's attributes, which are numbers or lists of one type.

        Raises:
            ValueError: there is none; the message is what was logged.
        """
        kept = []
        for value in attributes.values():
            array = np.atleast_1d(np.asarray(value))
            kept.append(array.astype(np.float32 if array.dtype.kind == "f" else ints))
        kinds = {"f4": FLOAT32_FIELD, "i4": INT32_FIELD, "i8": INT64_FIELD}
        fields = (PluginField * len(kept))(
            *(
                PluginField(key.encode(), array.ctypes.data, kinds[array.dtype.str[1:]], array.size)
                for key, array in zip(attributes, kept, strict=True)
            )
        )
        made = self.entry("create")(name.encode(), space.encode(), fields, len(kept), phase)
        return self.plugin(made)

    def plugin(self, pointer: int | None) -> Plugin:
        if pointer is None:
            raise ValueError(self.take_log())
        return Plugin(self, pointer)

    def take_log(self) -> str:
        """What was logged since the last call."""
        text: bytes = self.entry("take_log")()
        return text.decode()


class Plugin:
    """One plugin."""

    def __init__(self, library: PluginLibrary, pointer: int) -> None:
        self._library, self._pointer = library, ctypes.c_void_p(pointer)

    def _call(self, name: str, *arguments: Any) -> Any:
        return self._library.entry(name)(self._pointer, *arguments)

    def _check(self, failed: int) -> None:
        log = self._library.take_log()
        if failed:
            raise ValueError(log)
        assert log == ""

    def clone(self) -> Plugin:
        return self._library.plugin(self._call("clone"))

    def destroy(self) -> None:
        self._call("destroy")

    def fields(self) -> dict[str, list[float]]:
        """What it would serialise."""
        stored = (PluginField * 16)()
        count = self._call("fields", stored, len(stored))
        found = {}
        for field in stored[:count]:
            kind = ctypes.c_float if field.type == FLOAT32_FIELD else ctypes.c_int32
            numbers = ctypes.cast(field.data, ctypes.POINTER(kind))
            found[field.name.decode()] = [numbers[i] for i in range(field.length)]
        return found

    @property
    def output_count(self) -> int:
        return int(self._call("count_outputs"))

    def supports(self, place: int, tensors: Sequence[Spec], inputs: int) -> bool:
        """Whether the tensor at a place may be as it is, given those before it."""
        return bool(self._call("supports", place, _specs(tensors), inputs, len(tensors) - inputs))

    def infer(self, inputs: Sequence[Spec]) -> list[Spec]:
        """Its outputs."""
        made = (PluginTensor * self.output_count)()
        self._check(self._call("infer", _specs(inputs), len(inputs), made, len(made)))
        return [Spec(tuple(one.sizes[: one.rank]), one.type, one.format) for one in made]

    def configure(self, inputs: Sequence[Spec]) -> None:
        """For inputs as large as these at most."""
        self._check(self._call("configure", _specs(inputs), len(inputs)))

    def workspace(self, inputs: Sequence[Spec]) -> int:
        """Bytes."""
        return int(self._call("workspace", _specs(inputs), len(inputs)))

    def run(self, inputs: Sequence[Array]) -> list[Array]:
        """Infer the outputs, attach to a context, and compute them."""
        kept = [np.array(array, order="C") for array in inputs]
        specs = [Spec(array.shape, TYPES[array.dtype]) for array in kept]
        outputs = [np.full(o.shape, -7, DTYPES[o.type]) for o in self.infer(specs)]
        described = _arrays(kept), len(kept), _arrays(outputs), len(outputs)
        self._check(self._call("run", *described))
        return outputs


def _specs(tensors: Sequence[Spec]) -> Any:
    return (PluginTensor * len(tensors))(
        *(PluginTensor(t.type, t.format, len(t.shape), t.shape, None) for t in tensors)
    )


def _arrays(arrays: Sequence[Array]) -> Any:
    return (PluginTensor * len(arrays))(
        *(PluginTensor(TYPES[a.dtype], LINEAR, a.ndim, a.shape, a.ctypes.data) for a in arrays)
    )
