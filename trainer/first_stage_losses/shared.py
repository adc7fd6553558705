"""What the losses of all first stages share."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple, Protocol

import torch
from torch import Tensor

from ..first_stage.coding import places_first
from ..structures import FirstStageOutput, Target
from ..targets.grid import PyramidGrid, pyramid_grid

Share = Callable[[float], float]


class FirstStageLosses(Protocol):
    """The losses of a first stage by name, finite and with a gradient, objects or not."""

    def __call__(
        self,
        output: FirstStageOutput,
        targets: Sequence[Target],
        strides: Sequence[int],
        settled: Tensor | None = None,
    ) -> dict[str, Tensor]:
        """Compare dense predictions with the ground truth.

        Args:
            output: of the first stage, B pictures.
            targets: ground truth of each picture.
            strides: pixels per cell of each level.
            settled: (B, M * A) bool, places of all levels that are no negatives, as the second
                stage learns background from them; None: there are none.
        """
        ...


class DensePredictions(NamedTuple):
    """The predictions of all levels, place after place, in fp32."""

    logits: Tensor  # (B, M * A, C)
    regression: Tensor  # (B, M * A, D)
    grid: PyramidGrid  # of the M cells


def all_places(
    output: FirstStageOutput, strides: Sequence[int], per_cell: int = 1
) -> DensePredictions:
    """The predictions of every place of a pyramid whose cells have `per_cell` places each."""
    sizes = [(level.shape[2], level.shape[3]) for level in output.logits]
    logits = join_levels(output.logits, per_cell)
    return DensePredictions(
        logits,
        join_levels(output.regressions, per_cell),
        pyramid_grid(sizes, strides, logits.device),
    )


def without_settled(wanted: Tensor, settled: Tensor | None) -> Tensor:
    """(B, M) bool: places that count, all but the settled negatives, which want 0 throughout."""
    if settled is None:
        return torch.ones_like(wanted[..., 0], dtype=torch.bool)
    return ~settled | (wanted > 0).any(dim=2)


def join_levels(levels: Sequence[Tensor], per_cell: int) -> Tensor:
    """Channels (B, A * D, h, w) of each level as (B, M * A, D), in fp32."""
    return torch.cat([places_first(level, per_cell) for level in levels], dim=1).float()


def labels_of(target: Target, classes: int) -> Tensor:
    """(N,) the column of each object's class; 0 where there is one for all."""
    return target.classes if classes > 1 else torch.zeros_like(target.classes)
