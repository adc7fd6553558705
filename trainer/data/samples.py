"""Parts of steps to batches: read, resize, cut out, flip; unreadable pictures are replaced."""

from __future__ import annotations

import random

from torch.utils.data import Dataset

from cn2.runtime.errors import PictureError

from ..config import Config, Interpolation
from .batch import Batch, BrokenPicture, Sample, broken_picture, collate
from .cache import PictureCache
from .coco import Picture
from .order import Part, Planned
from .plan import View, draw_view, shrink_to_canvas
from .reading import read_reduced, read_whole
from .transforms import (
    Pixels,
    Size,
    flip_horizontally,
    flip_vertically,
    move_boxes,
    resize_part,
)

REPLACEMENTS = 20  # pictures drawn in place of one that cannot be read


class TrainSamples(Dataset[Batch | PictureError]):
    """Training batches by the part of a step."""

    def __init__(
        self, pictures: list[Picture], config: Config, cache: PictureCache | None = None
    ) -> None:
        self.pictures, self.train, self.cache = pictures, config.train, cache
        self.interpolation = config.input.interpolation

    def __getitem__(self, part: Part) -> Batch | PictureError:
        broken: list[BrokenPicture] = []
        try:
            samples = [self._readable(planned, part.canvas, broken) for planned in part.samples]
        except PictureError as error:  # raised out of a worker it would become a page of text
            return error
        return collate(samples, part.canvas, [p.number for p in part.samples], broken)

    def load(self, planned: Planned) -> Sample:
        """The view of the picture, and what of its ground truth lies in it.

        Raises:
            PictureError: unreadable, or another size than the annotations say.
        """
        picture = self.pictures[planned.index]
        if self.cache is None:
            pixels = read_reduced(picture, planned.view.scaled)
        else:
            pixels = self.cache.read(planned.index)
        return look(picture, pixels, planned.view, self.interpolation)

    def _readable(self, planned: Planned, canvas: Size, broken: list[BrokenPicture]) -> Sample:
        """The sample, or the first one that can be read of those drawn in its place."""
        for attempt in range(1, REPLACEMENTS + 2):
            try:
                return self.load(planned)
            except PictureError as error:
                broken.append(broken_picture(self.pictures[planned.index], error))
            planned = self.replacement(planned.number, attempt, canvas)
        raise PictureError(
            f"{broken[-1].path}: {broken[-1].reason}; it is the last of {REPLACEMENTS + 1} "
            "pictures drawn one after another that cannot be read"
        )

    def replacement(self, number: int, attempt: int, canvas: Size) -> Planned:
        """Another picture in a sample's place, as the seed, its number and the attempt decide.

        The canvas, which other processes have planned too, stays; a picture too big for it is
        scaled less.
        """
        draw = random.Random(f"{self.train.seed}/{number}/{attempt}")
        index = draw.randrange(len(self.pictures))
        picture = self.pictures[index]
        view = draw_view(self.train, number, (picture.height, picture.width))
        return Planned(number, index, shrink_to_canvas(view, canvas))


class ValidationSamples(Dataset[Batch]):
    """Pictures resized by the detector's own input rule, as the exported file is fed."""

    def __init__(self, pictures: list[Picture], interpolation: Interpolation) -> None:
        self.pictures, self.interpolation = pictures, interpolation

    def __getitem__(self, part: Part) -> Batch:
        read: list[tuple[int, Sample]] = []
        broken: list[BrokenPicture] = []
        for planned in part.samples:
            picture = self.pictures[planned.index]
            try:
                sample = look(picture, read_whole(picture), planned.view, self.interpolation)
                read.append((planned.number, sample))
            except PictureError as error:
                broken.append(broken_picture(picture, error))
        samples, numbers = [s for _, s in read], [n for n, _ in read]
        return collate(samples, part.canvas, numbers, broken)


def look(picture: Picture, pixels: Pixels, view: View, interpolation: Interpolation) -> Sample:
    """The view of a picture, of which `pixels` are the whole at any scale."""
    seen = resize_part(pixels, view.scaled, view.offset, view.size, interpolation)
    before = (picture.height, picture.width)
    boxes = move_boxes(picture.boxes, before, view.scaled, view.offset, view.size)
    kept = (boxes[:, 2:] > boxes[:, :2]).all(axis=1)
    boxes = boxes[kept]
    if view.mirrored:
        seen, boxes = flip_horizontally(seen, boxes)
    if view.upended:
        seen, boxes = flip_vertically(seen, boxes)
    return Sample(seen, boxes, picture.classes[kept], picture)
