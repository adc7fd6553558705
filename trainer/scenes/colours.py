"""Colours of things: one distribution for every class and for clutter, visible where they lie."""

import numpy as np
from numpy.typing import NDArray

Colour = NDArray[np.float32]  # (3,) RGB, 0..255

CANDIDATES = 24
MIN_SURROUND_DISTANCE = 75.0  # Euclidean in RGB, between the rim and what lies around it
MIN_TONE_LUMA = 60.0  # between a thing's two colours; JPEG halves the resolution of the rest
LUMA = np.array([0.299, 0.587, 0.114], np.float32)


def pick_colours(
    rng: np.random.Generator, surroundings: NDArray[np.uint8]
) -> tuple[Colour, Colour]:
    """First (rim) and second (texture) colour of a thing.

    The first differs from nearly all of the surroundings, the second from the first; both are
    uniform otherwise.

    Args:
        rng: consumed.
        surroundings: (N, 3) RGB pixels around the thing; N may be 0.
    """
    candidates = rng.uniform(0, 255, (CANDIDATES, 3)).astype(np.float32)
    around = surroundings.astype(np.float32)
    if len(around):
        distances = np.linalg.norm(candidates[:, None] - around[None], axis=2)
        worst = np.quantile(distances, 0.05, axis=1)
    else:
        worst = np.full(CANDIDATES, np.inf)
    first = candidates[_first_above(worst, MIN_SURROUND_DISTANCE)]
    others = rng.uniform(0, 255, (CANDIDATES, 3)).astype(np.float32)
    second = others[_first_above(np.abs(others @ LUMA - first @ LUMA), MIN_TONE_LUMA)]
    return first, second


def _first_above(values: NDArray[np.floating], threshold: float) -> int:
    """Index of the first value that reaches the threshold, of the greatest where none does."""
    good = np.flatnonzero(values >= threshold)
    return int(good[0]) if len(good) else int(np.argmax(values))
