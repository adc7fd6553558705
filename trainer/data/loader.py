"""Pictures of a data set to batches on one canvas, in an order that a seed and a step decide.

Every sample has a number, counted from the start of training. Its picture, its size and its flip
follow from (seed, number) alone, so a run continued at step n sees what it would have seen.
"""

from __future__ import annotations

import random
import signal
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from typing import NamedTuple

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler

from cn2.runtime.errors import PictureError

from ..config import Config, InputConfig, ShortEdgeConfig, TrainConfig
from ..structures import Target
from .coco import CocoDataset, Picture
from .transforms import (
    Boxes,
    Pixels,
    canvas_size,
    flip_horizontally,
    read_picture,
    resize,
    resized_size,
    scale_boxes,
)


class Sample(NamedTuple):
    """One picture, resized, with its ground truth in the resized picture's pixels."""

    pixels: Pixels
    boxes: Boxes
    picture: Picture
    number: int = 0


class BrokenPicture(NamedTuple):
    path: str
    reason: str


@dataclass(frozen=True, kw_only=True)
class Batch:
    """Pictures on one canvas."""

    images: Tensor  # (B, H, W, 3) uint8 RGB, each picture at the top left, zeros elsewhere
    image_sizes: Tensor  # (B, 2) int64 height, width of the picture on the canvas
    targets: list[Target]
    pictures: list[Picture]
    numbers: list[int] = field(default_factory=list)
    broken: list[BrokenPicture] = field(default_factory=list)

    def pin_memory(self) -> Batch:
        """The same batch, its pictures in memory that a GPU copies from while it computes."""
        return replace(self, images=self.images.pin_memory())


class TrainSamples(Dataset[Sample | PictureError]):
    """Augmented samples by (sample number, index of the picture)."""

    def __init__(self, data: CocoDataset, input: InputConfig, train: TrainConfig) -> None:
        self.data, self.input, self.train = data, input, train

    def __getitem__(self, key: tuple[int, int]) -> Sample | PictureError:
        try:
            return self.load(*key)
        except PictureError as error:  # raised out of a worker it would become a page of text
            return error

    def load(self, number: int, index: int) -> Sample:
        """Read, resize and perhaps flip a picture, as the sample's number decides."""
        draw = random.Random(f"{self.train.seed}/{number}")
        resize = self.train.resize
        assert isinstance(resize, ShortEdgeConfig)  # resize-crop: to come in this branch
        short_edge = draw.choice(range(resize.smallest, resize.largest + 1, resize.step))
        flipped = draw.random() < self.train.flip
        picture = self.data.pictures[index]
        self._number = number
        size = resized_size(picture.height, picture.width, short_edge, resize.long_edge)
        sample = load_sample(picture, size, self.input, reduced=True)
        if flipped:
            pixels, boxes = flip_horizontally(sample.pixels, sample.boxes)
            return Sample(pixels, boxes, picture, number)
        return sample._replace(number=number)


class ValidationSamples(Dataset[Sample | PictureError]):
    """Pictures by index, resized by the detector's own input rule, as the exported file is fed."""

    def __init__(self, data: CocoDataset, input: InputConfig) -> None:
        self.data, self.input = data, input

    def __getitem__(self, index: int) -> Sample | PictureError:
        try:
            picture = self.data.pictures[index]
            return load_sample(picture, self.size(index), self.input, reduced=False)
        except PictureError as error:
            return error

    def size(self, index: int) -> tuple[int, int]:
        """(height, width) of the resized picture."""
        picture = self.data.pictures[index]
        return resized_size(
            picture.height, picture.width, self.input.short_edge, self.input.long_edge
        )


def load_sample(
    picture: Picture, size: tuple[int, int], input: InputConfig, *, reduced: bool
) -> Sample:
    """Read a picture and resize it; `reduced` lets a JPEG be decoded at a fraction of its size.

    Raises:
        PictureError: unreadable, or another size than the annotations say.
    """
    pixels = read_picture(picture.path, reduce_to=size if reduced else None)
    height, width = pixels.shape[:2]
    whole = (height, width) == (picture.height, picture.width)
    if not whole and not (reduced and _is_reduction(picture, height, width)):
        raise PictureError(
            f"{picture.path}: expected {picture.width}x{picture.height} pixels as the annotations "
            f"say, got {width}x{height}; was it rotated or replaced?"
        )
    boxes = scale_boxes(picture.boxes, (picture.height, picture.width), size)
    return Sample(resize(pixels, size, input.interpolation), boxes, picture)


def _is_reduction(picture: Picture, height: int, width: int) -> bool:
    return any(
        (height, width) == (-(-picture.height // by), -(-picture.width // by)) for by in (2, 4, 8)
    )


class SampleOrder(Sampler[list[tuple[int, int]]]):
    """Endless batches of (sample number, picture index), each epoch shuffled by its own seed."""

    def __init__(
        self, data: CocoDataset, batch: int, seed: int, first_step: int, steps: int
    ) -> None:
        self.portrait = np.array([p.height > p.width for p in data.pictures], bool)
        self.batch, self.seed = batch, seed
        self.first_step, self.steps = first_step, steps

    def __iter__(self) -> Iterator[list[tuple[int, int]]]:
        steps_per_epoch = -(-len(self.portrait) // self.batch)
        epoch, order = -1, np.empty((0, 0), np.int64)
        for step in range(self.first_step, self.steps):
            if step // steps_per_epoch != epoch:
                epoch = step // steps_per_epoch
                order = epoch_batches(self.portrait, self.batch, self.seed, epoch)
            indices = order[step % steps_per_epoch]
            yield [(step * self.batch + i, int(index)) for i, index in enumerate(indices)]

    def __len__(self) -> int:
        return max(self.steps - self.first_step, 0)


def epoch_batches(
    portrait: NDArray[np.bool_], batch: int, seed: int, epoch: int
) -> NDArray[np.int64]:
    """One epoch's batches; portrait pictures lie apart, so that canvases carry less padding.

    Args:
        portrait: (N,) whether each picture is higher than wide, N >= 1.
        batch: pictures per batch.
        seed: of the run.
        epoch: number of the epoch.
    Returns:
        (ceil(N / batch), batch) picture indices: each picture once, a few again in the batch that
        would not be full; at most two batches mix the shapes.
    """
    draw = np.random.default_rng([seed, epoch])
    order = draw.permutation(len(portrait))
    shapes = (order[~portrait[order]], order[portrait[order]])
    whole = [part[: len(part) // batch * batch] for part in shapes]
    rest = [part[len(part) // batch * batch :] for part in shapes]
    again = np.resize(order, -len(order) % batch)
    return draw.permutation(np.concatenate([*whole, *rest, again]).reshape(-1, batch))


def collate(samples: list[Sample], divisor: int) -> Batch:
    """Lay samples on one canvas, each at the top left."""
    sizes = [(sample.pixels.shape[0], sample.pixels.shape[1]) for sample in samples]
    height, width = canvas_size(sizes, divisor)
    images = np.zeros((len(samples), height, width, 3), np.uint8)
    for canvas, sample, (h, w) in zip(images, samples, sizes, strict=True):
        canvas[:h, :w] = sample.pixels
    targets = [
        Target(
            boxes=torch.from_numpy(np.ascontiguousarray(sample.boxes)),
            classes=torch.from_numpy(sample.picture.classes),
            image_id=sample.picture.image_id,
        )
        for sample in samples
    ]
    return Batch(
        images=torch.from_numpy(images),
        image_sizes=torch.tensor(sizes, dtype=torch.int64),
        targets=targets,
        pictures=[sample.picture for sample in samples],
        numbers=[sample.number for sample in samples],
    )


class _Collate:
    """`collate` with its divisor, in a form that worker processes can receive."""

    def __init__(self, divisor: int) -> None:
        self.divisor = divisor

    def __call__(self, samples: list[Sample | PictureError]) -> Batch | PictureError:
        good = [sample for sample in samples if isinstance(sample, Sample)]
        bad = [sample for sample in samples if isinstance(sample, PictureError)]
        return bad[0] if bad else collate(good, self.divisor)


class _Split:
    def __init__(self, order, acc, rank, world):
        self.o, self.a, self.r, self.w = order, acc, rank, world

    def __iter__(self):
        for keys in self.o:
            n = len(keys) // (self.a * self.w)
            for a in range(self.a):
                i = (a * self.w + self.r) * n
                yield keys[i : i + n]

    def __len__(self):
        return len(self.o) * self.a


def _split(*a):
    return _Split(*a)


def train_batches(
    data: CocoDataset, config: Config, first_step: int = 0, *, rank: int = 0, world: int = 1
) -> Iterator[Batch]:
    """Batches for the steps first_step .. train.steps - 1, prepared by worker processes.

    Raises:
        PictureError: a picture cannot be read.
    """
    train = config.train
    loader = DataLoader(
        TrainSamples(data, config.input, train),
        batch_sampler=_split(
            SampleOrder(data, train.batch, train.seed, first_step, train.steps),
            train.accumulate,
            rank,
            world,
        ),
        collate_fn=_Collate(config.input.divisor),
        num_workers=train.workers,
        multiprocessing_context=_context(train.workers),
        worker_init_fn=_start_worker,
        pin_memory=torch.cuda.is_available(),
        generator=torch.Generator(),  # leaves the global random state alone
    )
    return _raise_errors(loader)


def validation_batches(
    data: CocoDataset, config: Config, batch: int, *, rank: int = 0, world: int = 1
) -> Iterator[Batch]:
    """Every picture once; the pictures of a batch share one canvas, so none changes another.

    Raises:
        PictureError: a picture cannot be read.
    """
    samples = ValidationSamples(data, config.input)
    groups: dict[tuple[int, int], list[int]] = {}
    for index in range(len(data.pictures)):
        canvas = canvas_size([samples.size(index)], config.input.divisor)
        groups.setdefault(canvas, []).append(index)
    batches = [of[i : i + batch] for of in groups.values() for i in range(0, len(of), batch)][
        rank::world
    ]
    workers = min(config.train.workers, 1)
    loader = DataLoader(
        samples,
        batch_sampler=batches,
        collate_fn=_Collate(config.input.divisor),
        num_workers=workers,
        multiprocessing_context=_context(workers),
        worker_init_fn=_start_worker,
        generator=torch.Generator(),
    )
    return _raise_errors(loader)


def _raise_errors(loader: Iterable[Batch | PictureError]) -> Iterator[Batch]:
    for batch in loader:
        if isinstance(batch, PictureError):
            raise batch
        yield batch


def _context(workers: int) -> str | None:
    """A fork of a process whose OpenCV or OpenMP threads have run waits for them for ever."""
    return "forkserver" if workers else None


def _start_worker(_: int) -> None:
    """Stopping is the parent's business, and OpenCV's own threads would only get in the way."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    cv2.setNumThreads(1)
