"""Decoded pictures, kept in memory that all worker processes share.

With a cache every picture passes through its cached form, whether or not there is room for it or it
is there already: what a run sees does not depend on the memory of the machine.
"""

from __future__ import annotations

import logging
import os

import numpy as np
from numpy.typing import NDArray

from ..config import Config
from ..train_config import Resize
from .coco import Picture
from .memory import SharedBytes, free_memory
from .plan import largest_scaled
from .reading import read_reduced
from .transforms import Pixels, Size, resize

logger = logging.getLogger(__name__)

MEBIBYTE = 1 << 20
NO_ROOM = -1


def open_cache(pictures: list[Picture], config: Config, world: int = 1) -> PictureCache | None:
    """The cache that `train.cache_mb` asks for, or None.

    It takes at most half of the free memory; the processes on this machine divide both by them.
    """
    if not config.train.cache_mb:
        return None
    processes = int(os.environ.get("LOCAL_WORLD_SIZE", world))  # torchrun sets it
    limit = min(config.train.cache_mb * MEBIBYTE, free_memory() // 2) // processes
    cache = PictureCache(pictures, config, limit)
    logger.info(
        "cache: room for %d of %d pictures in %d MB",
        cache.held,
        len(pictures),
        cache.size // MEBIBYTE,
    )
    return cache


class PictureCache:
    """Pixels by the picture's index; whoever needs them first decodes them.

    The shared memory holds a flag per picture, set after the pixels, then the pixels.
    """

    def __init__(self, pictures: list[Picture], config: Config, limit: int) -> None:
        """Lay out as many pictures, in their order, as there is room for in `limit` bytes."""
        self.pictures, self.interpolation = pictures, config.input.interpolation
        self.sizes = [cached_size(picture, config.train.resize) for picture in pictures]
        self.starts, self.size = _lay_out(self.sizes, limit)
        self.held = int((self.starts != NO_ROOM).sum())
        self.memory = SharedBytes(self.size)

    def read(self, index: int) -> Pixels:
        """The whole picture, not below the largest size that training shows it at; read-only.

        Raises:
            PictureError: unreadable, or another size than the annotations say.
        """
        kept = self._place(index)
        if kept is None:
            return self._decode(index)
        if not self._is_filled(index):
            kept[:] = self._decode(index)
            with self.memory.locked(index):
                self.memory.values[index] = 1
        kept.flags.writeable = False
        return kept

    def _place(self, index: int) -> Pixels | None:
        """Where the picture's pixels lie, (H, W, 3)."""
        start, (height, width) = self.starts[index], self.sizes[index]
        if start == NO_ROOM:
            return None
        return self.memory.values[start : start + height * width * 3].reshape(height, width, 3)

    def _is_filled(self, index: int) -> bool:
        with self.memory.locked(index):
            return bool(self.memory.values[index])

    def _decode(self, index: int) -> Pixels:
        size = self.sizes[index]
        return resize(read_reduced(self.pictures[index], size), size, self.interpolation)


def cached_size(picture: Picture, rule: Resize) -> Size:
    """The size that a picture is kept at: its own, or the largest that it is shown at if less."""
    own = (picture.height, picture.width)
    largest = largest_scaled(rule, own)
    return largest if largest[0] < own[0] and largest[1] < own[1] else own


def _lay_out(sizes: list[Size], limit: int) -> tuple[NDArray[np.int64], int]:
    """Where each picture's pixels start, behind the flags, and how many bytes that makes."""
    starts = np.full(len(sizes), NO_ROOM, np.int64)
    end = len(sizes)
    for index, (height, width) in enumerate(sizes):
        if end + height * width * 3 <= limit:
            starts[index] = end
            end += height * width * 3
    return starts, end
