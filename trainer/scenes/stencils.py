"""Stencil: what one thing covers in a picture and where its second colour lies."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Bytes = NDArray[np.uint8]

# A pixel belongs to a thing whose coverage of it is at least one half.
HALF_COVERED = 128


@dataclass(frozen=True, kw_only=True)
class Stencil:
    """Coverage of one thing on its own patch, placed in a picture.

    alpha: (h, w) coverage, 0..255. tone: (h, w) share of the second colour in the whole pixel,
    0..alpha. left, top: the patch's corner in the picture, pixels; may be negative.
    """

    alpha: Bytes
    tone: Bytes
    left: int
    top: int

    @property
    def own_pixels(self) -> int:
        """Pixels at least half covered, hidden and outside ones too."""
        return int(np.count_nonzero(self.alpha >= HALF_COVERED))

    def crop(self, height: int, width: int) -> "Stencil | None":
        """The part inside a picture of that size; None where nothing of the patch is inside."""
        h, w = self.alpha.shape
        x1, y1 = max(self.left, 0), max(self.top, 0)
        x2, y2 = min(self.left + w, width), min(self.top + h, height)
        if x2 <= x1 or y2 <= y1:
            return None
        rows = slice(y1 - self.top, y2 - self.top)
        columns = slice(x1 - self.left, x2 - self.left)
        return Stencil(
            alpha=self.alpha[rows, columns], tone=self.tone[rows, columns], left=x1, top=y1
        )

    def window(self) -> tuple[slice, slice]:
        """Rows and columns of the picture that the patch covers (crop first)."""
        h, w = self.alpha.shape
        return slice(self.top, self.top + h), slice(self.left, self.left + w)
