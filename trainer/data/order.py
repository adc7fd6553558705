"""The order of training pictures, and which process sees which: by seed and step alone.

Every sample has a number, counted from the start of training. Its picture, its size and its flip
follow from (seed, number), so a run continued at step n sees what it would have seen.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from torch.utils.data import Sampler

from ..config import Config, InputConfig
from ..train_config import ResizeCropConfig, TrainConfig
from .coco import Picture
from .plan import View, draw_view
from .transforms import Size, canvas_size


@dataclass(frozen=True)
class Planned:
    """One sample to come."""

    number: int  # of the sample, from the start of training
    index: int  # of the picture in the data set
    view: View


@dataclass(frozen=True, kw_only=True)
class Part:
    """The samples that one process lays on one canvas."""

    samples: list[Planned]
    canvas: Size


class SampleOrder(Sampler[list[tuple[int, int]]]):
    """Each step's (sample number, picture index); each epoch is shuffled by its own seed."""

    def __init__(self, pictures: list[Picture], train: TrainConfig, first_step: int) -> None:
        squares = isinstance(train.resize, ResizeCropConfig)  # no shape saves padding there
        self.portrait = np.array([not squares and p.height > p.width for p in pictures], bool)
        self.batch, self.seed = train.batch, train.seed
        self.first_step, self.steps = first_step, train.steps

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


class PartOrder(Sampler[Part]):
    """One process's share of every step: `train.accumulate` parts, one after another.

    A part of the step is a contiguous slice of it, and each process takes a contiguous slice of the
    part. The canvas is planned from the whole part, so that all processes use the same: GroupNorm
    sees the padding, and a share must look as it would in one process.
    """

    def __init__(
        self, pictures: list[Picture], config: Config, first_step: int, rank: int, world: int
    ) -> None:
        self.pictures, self.train, self.input = pictures, config.train, config.input
        self.order = SampleOrder(pictures, config.train, first_step)
        self.rank = rank
        self.share = share_size(config.train, world)

    def __iter__(self) -> Iterator[Part]:
        size = self.train.batch // self.train.accumulate
        for step in self.order:
            for first in range(0, len(step), size):
                yield self._share(step[first : first + size])

    def __len__(self) -> int:
        return len(self.order) * self.train.accumulate

    def _share(self, keys: list[tuple[int, int]]) -> Part:
        planned = [self._plan(number, index) for number, index in keys]
        canvas = training_canvas([p.view.size for p in planned], self.train, self.input)
        first = self.rank * self.share
        return Part(samples=planned[first : first + self.share], canvas=canvas)

    def _plan(self, number: int, index: int) -> Planned:
        picture = self.pictures[index]
        view = draw_view(self.train, number, (picture.height, picture.width))
        return Planned(number, index, view)


def share_size(train: TrainConfig, world: int) -> int:
    """Pictures that one of `world` processes takes in one part of a step.

    Raises:
        ValueError: the batch does not divide.
    """
    if train.batch % (world * train.accumulate):
        raise ValueError(
            f"train.batch: expected a multiple of {world * train.accumulate} ({world} processes x "
            f"train.accumulate {train.accumulate}), got {train.batch}"
        )
    return train.batch // (world * train.accumulate)


def training_canvas(sizes: list[Size], train: TrainConfig, input: InputConfig) -> Size:
    """The canvas for views of these sizes; always the whole square where squares are cut."""
    if isinstance(train.resize, ResizeCropConfig):
        sizes = [(train.resize.size, train.resize.size)]
    return canvas_size(sizes, input.divisor)
