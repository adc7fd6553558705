"""Structs of older and newer headers: defaults for what is missing, zeros past what is known."""

from __future__ import annotations

import ctypes
import sys
from ctypes import byref, c_size_t
from typing import Any

import numpy as np

from c_library import (
    INVALID_ARGUMENT,
    Model,
    image,
    refused,
)
from cn2.runtime.backends.libcn2 import (
    Detection,
    DetectOptions,
    Image,
    ModelInfo,
)

GREY = np.full((64, 96, 3), 204, np.uint8)


def padded(structure: ctypes.Structure, size: int, tail: int = 0) -> Any:
    """The first bytes of a struct that says it is `size` long, then `tail` bytes."""
    content = bytearray(bytes(structure).ljust(size, bytes([tail]))[:size])
    content[:4] = size.to_bytes(4, sys.byteorder)
    return (ctypes.c_char * size).from_buffer(content)


def test_shorter_structs_have_the_defaults(tiny: Model) -> None:
    options = DetectOptions(score_threshold=0.95)
    library, counts = tiny.library, (c_size_t * 1)()
    arguments = (tiny.context, byref(image(GREY)), 1)
    for size, expected in ((8, 0), (4, 2)):
        given = padded(options, size)
        library.check(library.detect(*arguments, given, None, 0, counts))
        assert counts[0] == expected
    info = ModelInfo(class_count=-7, max_detections=-7, proposals=-7)
    info.struct_size = 12
    library.check(library.model_get_info(tiny.handle, byref(info)))
    assert (info.struct_size, info.class_count, info.max_detections, info.proposals) == (
        *(12, 3, 3),
        -7,
    )
    short = padded(image(GREY), Image.pitch.offset)  # no pitch: rows follow one another
    library.check(library.detect(tiny.context, short, 1, None, None, 0, counts))
    assert counts[0] == 2


def test_longer_structs_must_be_zero_past_what_is_known(tiny: Model) -> None:
    library, counts = tiny.library, (c_size_t * 1)()
    arguments = (tiny.context, byref(image(GREY)), 1)
    options = DetectOptions(score_threshold=0.95)
    library.check(library.detect(*arguments, padded(options, 24), None, 0, counts))
    assert counts[0] == 0
    status = library.detect(*arguments, padded(options, 24, tail=1), None, 0, counts)
    refused(library, status, INVALID_ARGUMENT, "upgrade libcn2")
    for size in (0, 3, 5, 2000):
        given = padded(options, max(size, 4))
        given[:4] = size.to_bytes(4, sys.byteorder)
        status = library.detect(*arguments, given, None, 0, counts)
        refused(library, status, INVALID_ARGUMENT, "struct_size")


def test_an_array_of_longer_structs(tiny: Model) -> None:
    """Elements as long as the first one says; the second picture has another size."""
    stride, other = 80, np.full((32, 48, 3), 102, np.uint8)
    both = b"".join(bytes(padded(image(pixels), stride)) for pixels in (GREY, other))
    counts, found = (c_size_t * 2)(), (Detection * 4)()
    tiny.library.check(tiny.library.detect(tiny.context, both, 2, None, found, 2, counts))
    assert list(counts) == [2, 2]
    assert list(found[2].box) == [0, 0, 48, 32]
    mixed = bytearray(both)
    mixed[stride : stride + 4] = (56).to_bytes(4, sys.byteorder)
    status = tiny.library.detect(tiny.context, bytes(mixed), 2, None, found, 2, counts)
    refused(tiny.library, status, INVALID_ARGUMENT, "images[1]: expected a struct_size of 80")
