"""Which classes a batch is judged on where nobody looked for all of them in every picture.

Source: federated loss, Zhou et al., "Joint COCO and LVIS workshop at ECCV 2020"; as in the official
code the background counts as one of the classes that are present.
"""

from __future__ import annotations

import torch
from torch import Tensor

SMALLEST_WAIT = 1e-30  # of an exponential draw, so that nothing is divided by 0


def draw_ranks(weights: Tensor, generator: torch.Generator | None = None) -> Tensor:
    """A random order of the classes: the first ones are a draw without replacement.

    Args:
        weights: (C,) >= 0; the next class is drawn in proportion to them.
        generator: on the CPU, so that a seed means one thing; None for torch's global one.
    Returns:
        (C,) numbers; the class with the largest comes first, and one with 0 never.
    """
    waits = torch.empty(len(weights)).exponential_(generator=generator).clamp(min=SMALLEST_WAIT)
    return weights / waits.to(weights.device)


def federated_classes(classes: Tensor, ranks: Tensor, count: int) -> Tensor:
    """The classes that the RoIs of a batch are judged on.

    Args:
        classes: (R,) int64 of the RoIs, in 0..C; C is the background.
        ranks: (C,) of `draw_ranks`.
        count: so many classes in all, the background among them if it occurs.
    Returns:
        (C,) bool: those that occur, and of the others the first by rank, ties by the lower class,
        until there are `count`.
    """
    present = torch.zeros(len(ranks) + 1, dtype=torch.bool, device=ranks.device)
    present[classes] = True
    order = torch.cat([ranks, ranks.new_zeros(1)])  # nobody draws the background
    order = torch.where(present, torch.inf, order)
    best = torch.sort(order, descending=True, stable=True).indices[:count]
    drawn = torch.zeros_like(present)
    drawn[best] = order[best] > 0
    return (present | drawn)[:-1]


def frequency_weights(image_counts: Tensor, power: float) -> Tensor:
    """The weights of `draw_ranks`: (C,) pictures with each class, to some power, float32."""
    return image_counts.to(torch.float32) ** power
