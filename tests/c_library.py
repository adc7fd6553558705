"""libcn2 for the tests: its functions, which take any pointer here, and short ways to call them.

Structs and signatures are those of the package, which a test compares with the header.
"""

from __future__ import annotations

import ctypes
from ctypes import byref, c_char_p, c_int32, c_int64, c_size_t, c_uint32, c_void_p
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from cn2.runtime.backends.libcn2 import (
    FUNCTIONS,
    HOST,
    RGB8,
    Detection,
    DetectOptions,
    Image,
    ModelInfo,
    ModelOptions,
    Timings,
)

OK, INVALID_ARGUMENT, MODEL_ERROR, UNAVAILABLE = 0, 1, 2, 3
INFERENCE_ERROR, OUT_OF_MEMORY, INTERNAL_ERROR = 4, 5, 6
PLAIN = (None, c_char_p, c_int32, c_int64, c_size_t, c_uint32, c_void_p)


class Failed(Exception):
    """A call returned another status than CN2_OK."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


class Found(NamedTuple):
    """Detections of one picture; boxes (n, 4), scores (n,), class ids (n,)."""

    boxes: npt.NDArray[np.float32]
    scores: npt.NDArray[np.float32]
    class_ids: npt.NDArray[np.int32]


class Library:
    """The functions of libcn2."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.functions = ctypes.CDLL(str(path))
        for name, (result, arguments) in FUNCTIONS.items():
            function = getattr(self.functions, f"cn2_{name}")
            function.restype = result
            function.argtypes = [kind if kind in PLAIN else c_void_p for kind in arguments]

    def __getattr__(self, name: str) -> Any:
        return getattr(self.functions, f"cn2_{name}")

    def check(self, status: int) -> None:
        """Raise Failed unless the status is CN2_OK."""
        if status != OK:
            raise Failed(status, self.functions.cn2_last_error().decode())

    def open(self, path: Path, **options: Any) -> Model:
        """Open a model; options as the fields of cn2_model_options."""
        given, handle = ModelOptions(**options), c_void_p()
        self.check(self.model_open(str(path).encode(), byref(given), byref(handle)))
        return Model(self, handle)

    def resized(
        self, picture: Image, interpolation: int, height: int, width: int, pitch: int = 0
    ) -> npt.NDArray[np.uint8]:
        """A picture resized; (height, width, 3)."""
        rows = np.full((height, pitch or width * 3), 7, dtype=np.uint8)
        self.check(
            self.resize(byref(picture), interpolation, rows.ctypes.data, width, height, pitch)
        )
        return rows[:, : width * 3].reshape(height, width, 3)


class Model:
    """An opened model with a context; closed by `close`."""

    def __init__(self, library: Library, handle: c_void_p) -> None:
        self.library, self.handle, self.context = library, handle, c_void_p()
        library.check(library.context_create(handle, byref(self.context)))

    def info(self) -> ModelInfo:
        info = ModelInfo()
        self.library.check(self.library.model_get_info(self.handle, byref(info)))
        return info

    def detect(
        self,
        pictures: list[Image],
        score_threshold: float = -1.0,
        capacity: int = 300,
        cuda_stream: int | None = None,
    ) -> list[Found]:
        images = (Image * len(pictures))(*pictures)
        found = (Detection * (len(pictures) * capacity))()
        counts = (c_size_t * len(pictures))()
        options = DetectOptions(score_threshold=score_threshold, cuda_stream=cuda_stream)
        self.library.check(
            self.library.detect(
                self.context, images, len(pictures), byref(options), found, capacity, counts
            )
        )
        table = np.frombuffer(found, dtype=[("box", "f4", 4), ("score", "f4"), ("class_id", "i4")])
        rows = [table[i * capacity : i * capacity + min(n, capacity)] for i, n in enumerate(counts)]
        return [Found(r["box"].copy(), r["score"].copy(), r["class_id"].copy()) for r in rows]

    def timings(self) -> Timings:
        timings = Timings()
        self.library.check(self.library.context_get_timings(self.context, byref(timings)))
        return timings

    def close(self) -> None:
        self.library.context_destroy(self.context)
        self.library.model_close(self.handle)


def image(
    pixels: npt.NDArray[np.uint8],
    format: int = RGB8,
    chroma: npt.NDArray[np.uint8] | None = None,
    memory: int = HOST,
) -> Image:
    """A picture of these rows; their stride is its pitch. It keeps them alive."""
    made = Image(format=format, memory=memory)
    made.kept = pixels, chroma
    made.height, made.width = pixels.shape[:2]
    made.data, made.pitch = pixels.ctypes.data, pixels.strides[0]
    if chroma is not None:
        made.chroma, made.chroma_pitch = chroma.ctypes.data, chroma.strides[0]
    return made


def refused(library: Library, status: int, expected: int, said: str) -> None:
    """The call failed so, and the thread's last error says this in one line."""
    message = library.last_error().decode()
    assert (status, said in message) == (expected, True), message
    assert "\n" not in message


def open_status(library: Library, path: Path | bytes | None, **options: Any) -> int:
    """cn2_model_open; where it fails the handle stays as it was."""
    given, handle = ModelOptions(**options), c_void_p(1234)
    name = str(path).encode() if isinstance(path, Path) else path
    status: int = library.model_open(name, byref(given), byref(handle))
    if status == OK:
        library.model_close(handle)
    else:
        assert handle.value == 1234
    return status
