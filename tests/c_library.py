"""libcn2's header in ctypes, for the tests: structs, functions, a few short ways to call them."""

from __future__ import annotations

import ctypes
from ctypes import (
    POINTER,
    Structure,
    byref,
    c_char_p,
    c_float,
    c_int32,
    c_int64,
    c_size_t,
    c_void_p,
)
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

OK, INVALID_ARGUMENT, MODEL_ERROR, UNAVAILABLE = 0, 1, 2, 3
INFERENCE_ERROR, OUT_OF_MEMORY, INTERNAL_ERROR = 4, 5, 6
RGB8, BGR8, RGBA8, BGRA8, GREY8, NV12 = range(6)
ANTIALIAS, LINEAR = 0, 1
HOST, CUDA = 0, 1
LOG_CALLBACK = ctypes.CFUNCTYPE(None, c_void_p, c_int32, c_char_p)


class ModelOptions(Structure):
    _fields_ = [
        ("struct_size", ctypes.c_uint32),
        ("threads", c_int32),
        ("device", c_char_p),
        ("runtime_path", c_char_p),
        ("standard_ops", c_int32),
    ]


class ModelInfo(Structure):
    _fields_ = [
        ("struct_size", ctypes.c_uint32),
        *(
            (name, c_int32)
            for name in (
                *("class_count", "max_detections", "proposals", "batch", "canvas_height"),
                *("canvas_width", "canvas_divisor", "short_edge", "long_edge", "interpolation"),
            )
        ),
        ("score_threshold", c_float),
        ("lowest_score_threshold", c_float),
    ]


class Image(Structure):
    _fields_ = [
        ("struct_size", ctypes.c_uint32),
        ("format", c_int32),
        ("memory", c_int32),
        ("width", c_int32),
        ("height", c_int32),
        ("data", c_void_p),
        ("pitch", c_size_t),
        ("chroma", c_void_p),
        ("chroma_pitch", c_size_t),
    ]


class Detection(Structure):
    _fields_ = [("box", c_float * 4), ("score", c_float), ("class_id", c_int32)]


class DetectOptions(Structure):
    _fields_ = [("struct_size", ctypes.c_uint32), ("score_threshold", c_float)]


class Timings(Structure):
    _fields_ = [
        ("struct_size", ctypes.c_uint32),
        ("preprocess_ms", c_float),
        ("inference_ms", c_float),
        ("postprocess_ms", c_float),
    ]


class RawDetections(Structure):
    _fields_ = [
        ("struct_size", ctypes.c_uint32),
        ("rows", c_int32),
        ("num_detections", POINTER(c_int32)),
        ("boxes", POINTER(c_float)),
        ("scores", POINTER(c_float)),
        ("classes", POINTER(c_int32)),
    ]


SIGNATURES: dict[str, tuple[Any, list[Any]]] = {
    "cn2_status_name": (c_char_p, [c_int32]),
    "cn2_last_error": (c_char_p, []),
    "cn2_abi_version": (ctypes.c_uint32, []),
    "cn2_version": (c_char_p, []),
    "cn2_set_log": (c_int32, [c_void_p, c_void_p, c_int32]),
    "cn2_model_open": (c_int32, [c_char_p, c_void_p, c_void_p]),
    "cn2_model_close": (None, [c_void_p]),
    "cn2_model_get_info": (c_int32, [c_void_p, c_void_p]),
    "cn2_model_manifest": (c_char_p, [c_void_p]),
    "cn2_model_class_name": (c_char_p, [c_void_p, c_int32]),
    "cn2_model_category_id": (c_int64, [c_void_p, c_int32]),
    "cn2_model_runtime": (c_char_p, [c_void_p]),
    "cn2_resize": (c_int32, [c_void_p, c_int32, c_void_p, c_int32, c_int32, c_size_t]),
    "cn2_context_create": (c_int32, [c_void_p, c_void_p]),
    "cn2_context_destroy": (None, [c_void_p]),
    "cn2_detect": (
        c_int32,
        [c_void_p, c_void_p, c_size_t, c_void_p, c_void_p, c_size_t, c_void_p],
    ),
    "cn2_context_get_timings": (c_int32, [c_void_p, c_void_p]),
    "cn2_infer": (
        c_int32,
        [c_void_p, c_void_p, c_int32, c_int32, c_int32, c_void_p, c_void_p, c_void_p],
    ),
}


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
        for name, (result, arguments) in SIGNATURES.items():
            function = getattr(self.functions, name)
            function.restype, function.argtypes = result, arguments

    def __getattr__(self, name: str) -> Any:
        return getattr(self.functions, f"cn2_{name}")

    def check(self, status: int) -> None:
        """Raise Failed unless the status is CN2_OK."""
        if status != OK:
            raise Failed(status, self.functions.cn2_last_error().decode())

    def open(self, path: Path, **options: Any) -> Model:
        """Open a model; options as the fields of cn2_model_options."""
        given, handle = ModelOptions(ctypes.sizeof(ModelOptions), **options), c_void_p()
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
        info = ModelInfo(ctypes.sizeof(ModelInfo))
        self.library.check(self.library.model_get_info(self.handle, byref(info)))
        return info

    def detect(
        self, pictures: list[Image], score_threshold: float = -1.0, capacity: int = 300
    ) -> list[Found]:
        images = (Image * len(pictures))(*pictures)
        found = (Detection * (len(pictures) * capacity))()
        counts = (c_size_t * len(pictures))()
        options = DetectOptions(ctypes.sizeof(DetectOptions), score_threshold)
        self.library.check(
            self.library.detect(
                self.context, images, len(pictures), byref(options), found, capacity, counts
            )
        )
        table = np.frombuffer(found, dtype=[("box", "f4", 4), ("score", "f4"), ("class_id", "i4")])
        rows = [table[i * capacity : i * capacity + min(n, capacity)] for i, n in enumerate(counts)]
        return [Found(r["box"].copy(), r["score"].copy(), r["class_id"].copy()) for r in rows]

    def timings(self) -> Timings:
        timings = Timings(ctypes.sizeof(Timings))
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
    made = Image(ctypes.sizeof(Image), format, memory)
    made.kept = pixels, chroma
    made.height, made.width = pixels.shape[:2]
    made.data, made.pitch = pixels.ctypes.data, pixels.strides[0]
    if chroma is not None:
        made.chroma, made.chroma_pitch = chroma.ctypes.data, chroma.strides[0]
    return made
