"""plugins/include/cn2.h in ctypes: its structs, functions and numbers, and the errors of its codes.

Structs and functions have the header's names without cn2_; a test compares them field by field.
"""

from __future__ import annotations

import atexit
import ctypes
import logging
from collections.abc import Callable
from ctypes import POINTER, c_char_p, c_float, c_int32, c_int64, c_size_t, c_uint32, c_void_p
from functools import cache
from pathlib import Path
from typing import Any

from cn2.plugins import library_path

from ..errors import BackendUnavailableError, InferenceError, ModelFormatError, PluginError
from .ort_operators import BROKEN_FIX, GET_IT

logger = logging.getLogger(__name__)

ABI_VERSION = 1
ANTIALIAS, LINEAR = 0, 1
RGB8, BGR8, RGBA8, BGRA8, GREY8, NV12 = range(6)
HOST, CUDA = 0, 1
LOG_DEBUG, LOG_INFO, LOG_WARNING, LOG_ERROR = range(4)
NO_LIBRARY = "libcn2 is not here"

ERRORS: dict[int, type[Exception]] = {  # of each status but CN2_OK, 0
    1: ValueError,  # CN2_INVALID_ARGUMENT
    2: ModelFormatError,  # CN2_MODEL_ERROR
    3: BackendUnavailableError,  # CN2_UNAVAILABLE
    4: InferenceError,  # CN2_INFERENCE_ERROR
    5: MemoryError,  # CN2_OUT_OF_MEMORY
    6: RuntimeError,  # CN2_INTERNAL_ERROR: a bug, which keeps its traceback
}


class Sized(ctypes.Structure):
    """A struct that begins with its own size, which is filled in."""

    def __init__(self, **values: Any) -> None:
        super().__init__(struct_size=ctypes.sizeof(type(self)), **values)


class ModelOptions(Sized):
    _fields_ = (
        ("struct_size", c_uint32),
        ("threads", c_int32),
        ("device", c_char_p),
        ("runtime_path", c_char_p),
        ("standard_ops", c_int32),
    )


class ModelInfo(Sized):
    _fields_ = (
        ("struct_size", c_uint32),
        ("class_count", c_int32),
        ("max_detections", c_int32),
        ("proposals", c_int32),
        ("batch", c_int32),
        ("canvas_height", c_int32),
        ("canvas_width", c_int32),
        ("canvas_divisor", c_int32),
        ("short_edge", c_int32),
        ("long_edge", c_int32),
        ("interpolation", c_int32),
        ("score_threshold", c_float),
        ("lowest_score_threshold", c_float),
    )


class Image(Sized):
    _fields_ = (
        ("struct_size", c_uint32),
        ("format", c_int32),
        ("memory", c_int32),
        ("width", c_int32),
        ("height", c_int32),
        ("data", c_void_p),
        ("pitch", c_size_t),
        ("chroma", c_void_p),
        ("chroma_pitch", c_size_t),
    )


class Detection(ctypes.Structure):
    _fields_ = (("box", c_float * 4), ("score", c_float), ("class_id", c_int32))


class DetectOptions(Sized):
    _fields_ = (
        ("struct_size", c_uint32),
        ("score_threshold", c_float),
        ("cuda_stream", c_void_p),
    )


class Timings(Sized):
    _fields_ = (
        ("struct_size", c_uint32),
        ("preprocess_ms", c_float),
        ("inference_ms", c_float),
        ("postprocess_ms", c_float),
        ("device_preprocess_ms", c_float),
        ("device_inference_ms", c_float),
    )


class RawDetections(Sized):
    _fields_ = (
        ("struct_size", c_uint32),
        ("rows", c_int32),
        ("num_detections", POINTER(c_int32)),
        ("boxes", POINTER(c_float)),
        ("scores", POINTER(c_float)),
        ("classes", POINTER(c_int32)),
    )


LogCallback = ctypes.CFUNCTYPE(None, c_void_p, c_int32, c_char_p)
Status = c_int32  # no function returns an int32 that is no status
Handle = c_void_p  # cn2_model *, cn2_context *

FUNCTIONS: dict[str, tuple[Any, list[Any]]] = {  # what each returns, and its arguments
    "status_name": (c_char_p, [Status]),
    "last_error": (c_char_p, []),
    "abi_version": (c_uint32, []),
    "version": (c_char_p, []),
    "set_log": (Status, [LogCallback, c_void_p, c_int32]),
    "model_open": (Status, [c_char_p, POINTER(ModelOptions), POINTER(Handle)]),
    "model_close": (None, [Handle]),
    "model_get_info": (Status, [Handle, POINTER(ModelInfo)]),
    "model_manifest": (c_char_p, [Handle]),
    "model_class_name": (c_char_p, [Handle, c_int32]),
    "model_category_id": (c_int64, [Handle, c_int32]),
    "model_runtime": (c_char_p, [Handle]),
    "resize": (Status, [POINTER(Image), c_int32, c_void_p, c_int32, c_int32, c_size_t]),
    "context_create": (Status, [Handle, POINTER(Handle)]),
    "context_destroy": (None, [Handle]),
    "detect": (
        Status,
        [Handle, POINTER(Image), c_size_t, POINTER(DetectOptions), c_void_p, c_size_t, c_void_p],
    ),
    "context_get_timings": (Status, [Handle, POINTER(Timings)]),
    "infer": (
        Status,
        [
            *(Handle, c_void_p, c_int32, c_int32, c_int32, c_void_p),
            *(POINTER(DetectOptions), POINTER(RawDetections)),
        ],
    ),
}


class Libcn2:
    """A loaded library: `library.detect(...)` is cn2_detect.

    Functions that return a status raise what ERRORS has for it, with cn2_last_error()'s line.
    """

    def __init__(self, path: Path) -> None:
        """Load the library at a path.

        Raises:
            PluginError: it cannot be loaded, or has another ABI.
        """
        try:
            loaded = ctypes.CDLL(str(path))
            for name, (result, arguments) in FUNCTIONS.items():
                function = getattr(loaded, f"cn2_{name}")
                function.restype, function.argtypes = result, arguments
                if result is Status:
                    function.errcheck = self._raise
                setattr(self, name, function)
        except (OSError, AttributeError) as error:
            raise PluginError(f"{path}: cannot be loaded ({error}); {BROKEN_FIX}") from error
        found = self.abi_version()
        if found != ABI_VERSION:
            raise PluginError(
                f"{path}: ABI {found}, this package needs {ABI_VERSION}; {BROKEN_FIX}"
            )

    def __getattr__(self, name: str) -> Callable[..., Any]:
        raise AttributeError(f"libcn2 has no function cn2_{name}")  # the others are attributes

    def _raise(self, status: int, _function: object, _arguments: object) -> None:
        if status:
            line: bytes = self.last_error()
            raise ERRORS.get(status, RuntimeError)(line.decode("utf-8", "replace"))


def open_library() -> Libcn2:
    """The library of this package, loaded once.

    Raises:
        BackendUnavailableError: it was not built.
        PluginError: it cannot be loaded, or has another ABI.
    """
    path = library_path("cn2")
    if path is None:
        raise BackendUnavailableError(f"{NO_LIBRARY}; {GET_IT}")
    return _load(path)


@cache
def _load(path: Path) -> Libcn2:
    library = Libcn2(path)
    library.set_log(LOG_TO_PYTHON, None, LOG_WARNING)
    atexit.register(library.set_log, LogCallback(), None, LOG_ERROR)  # Python is gone after that
    return library


def _log(_user: object, level: int, message: bytes) -> None:
    """Hand a line of libcn2 to Python's logging, whose levels are these plus one, times ten."""
    logger.log(10 * (level + 1), "%s", message.decode("utf-8", "replace"))


LOG_TO_PYTHON = LogCallback(_log)  # libcn2 keeps its address
