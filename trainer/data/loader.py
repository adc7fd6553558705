"""Batches prepared by worker processes, for training and for validation."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Generator, Iterable, Iterator
from multiprocessing import get_context, parent_process
from typing import Any

import cv2
import torch
from torch.utils.data import DataLoader, Dataset

from cn2.runtime.errors import Cn2Error, PictureError

from ..config import Config
from .batch import Batch, BrokenPicture
from .cache import open_cache
from .coco import CocoDataset
from .order import Part, PartOrder, Planned, epoch_batches
from .plan import whole
from .samples import TrainSamples, ValidationSamples
from .transforms import Size, canvas_size, resized_size

__all__ = [
    "Batch",
    "BrokenPicture",
    "LoaderError",
    "epoch_batches",
    "train_batches",
    "validation_batches",
]


class LoaderError(Cn2Error):
    """A process that prepares batches died."""


def train_batches(
    data: CocoDataset, config: Config, first_step: int = 0, *, rank: int = 0, world: int = 1
) -> Generator[Batch, None, None]:
    """Batches for the steps first_step .. train.steps - 1, `train.accumulate` for each step.

    A picture that cannot be read is replaced by another one and listed in `Batch.broken`. Close it
    where its end is not reached: until then its processes stay, and a script's end waits for them.

    Args:
        data: the pictures.
        config: its `input` and `train` decide all.
        first_step: where to begin.
        rank: which of the processes this is, 0 .. world - 1; each has its own share of a step.
        world: processes that train together; all plan the same canvases.
    Raises:
        ValueError: the batch cannot be shared out; raised at once.
        PictureError: picture after picture cannot be read.
    """
    order = PartOrder(data.pictures, config, first_step, rank, world)
    samples = TrainSamples(data.pictures, config, open_cache(data.pictures, config, world))
    return _batches(samples, order, config.train.workers, config.train.prefetch)


def validation_batches(
    data: CocoDataset, config: Config, batch: int, *, rank: int = 0, world: int = 1
) -> Iterator[Batch]:
    """Every picture once; the pictures of a batch share one canvas, so none changes another.

    A picture that cannot be read is left out and listed in `Batch.broken`; a batch of such
    pictures alone has no picture.

    Args:
        data: the pictures.
        config: its `input` decides the sizes.
        batch: most pictures in a batch.
        rank: which of the processes this is; it gets the batches rank, rank + world, ...
        world: processes that share the batches.
    """
    parts = _validation_parts(data, config, batch)[rank::world]
    samples = ValidationSamples(data.pictures, config.input.interpolation)
    return _batches(samples, parts, min(config.train.workers, 1), config.train.prefetch)


def _validation_parts(data: CocoDataset, config: Config, batch: int) -> list[Part]:
    rule = config.input
    groups: dict[Size, list[Planned]] = {}
    for index, picture in enumerate(data.pictures):
        size = resized_size(
            picture.height, picture.width, rule.short_edge, rule.long_edge, rule.rounding
        )
        group = groups.setdefault(canvas_size([size], rule.divisor), [])
        group.append(Planned(index, index, whole(size)))
    return [
        Part(samples=group[first : first + batch], canvas=canvas)
        for canvas, group in groups.items()
        for first in range(0, len(group), batch)
    ]


def _batches(
    samples: Dataset[Any], parts: Iterable[Part], workers: int, prefetch: int
) -> Generator[Batch, None, None]:
    loader: DataLoader[Any] = DataLoader(
        samples,
        batch_size=None,  # a part is a batch already
        sampler=parts,
        collate_fn=_as_it_is,
        num_workers=workers,
        prefetch_factor=prefetch if workers else None,
        multiprocessing_context=_context(workers),
        worker_init_fn=_start_worker,
        pin_memory=torch.cuda.is_available(),
        generator=torch.Generator(),  # leaves the global random state alone
    )
    return _raise_errors(loader)


def _as_it_is(batch: Any) -> Any:
    return batch


def _raise_errors(loader: Iterable[Batch | PictureError]) -> Generator[Batch, None, None]:
    try:
        for batch in loader:
            if isinstance(batch, PictureError):
                raise batch
            yield batch
    except RuntimeError as error:
        if "DataLoader worker" not in str(error):
            raise
        raise LoaderError(
            "a process that reads pictures was killed, perhaps for want of memory; "
            "lower train.workers, train.prefetch or train.cache_mb"
        ) from error


def _context(workers: int) -> str | None:
    """A fork of a process whose OpenCV or OpenMP threads have run waits for them for ever.

    The server that is forked instead imports torch once for all workers.
    """
    if not workers:
        return None
    get_context("forkserver").set_forkserver_preload(["__main__", __name__])
    return "forkserver"


def _start_worker(_: int) -> None:
    """Stopping is the parent's business, and OpenCV's own threads would only get in the way."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    cv2.setNumThreads(1)
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    """torch's own watch waits for another parent id, but a forkserver lives while workers do."""
    parent = parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)
