"""The log of a run for TensorBoard: `tensorboard --logdir RUN` shows it while it grows."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..progress import group_losses

if TYPE_CHECKING:
    from torch.utils.tensorboard import SummaryWriter

    from ..data.transforms import Pixels

logger = logging.getLogger(__name__)

QUEUE = 1000  # points that may wait for the writing thread, so that no report waits for it
FLUSH_S = 10  # seconds that points may stay in memory; a kill loses them
SINGLE_VALUES = ("learning_rate", "gradient_norm", "images_per_s", "waited_for_data")


class TensorBoardLog:
    """Writes event files into a folder; without the package it says so once and writes nothing."""

    def __init__(self, folder: Path, first_step: int) -> None:
        """Go on after `first_step` steps; points of later ones, which a kill undid, are hidden.

        TensorBoard's fast loader hides an undone point only once its tag has a new one.
        """
        self._writer = _open(folder, first_step)

    def train(self, step: int, row: dict[str, Any]) -> None:
        """The row of a report: "losses" by name, and any of SINGLE_VALUES."""
        values = {f"loss/{name}": value for name, value in row["losses"].items()}
        if values:
            values |= {f"loss_groups/{k}": v for k, v in group_losses(row["losses"]).items()}
        values |= {f"train/{name}": row[name] for name in SINGLE_VALUES if name in row}
        self._scalars(values, step)

    def validation(self, step: int, metrics: dict[str, Any]) -> None:
        """Metrics as `validate` returns them, AP by class too; what could not be scored is no 0."""
        values = {f"validation/{k}": v for k, v in metrics.items() if isinstance(v, float)}
        for name, of_class in metrics.get("per_class", {}).items():
            if isinstance(of_class["AP"], float):
                values[f"AP_per_class/{name}"] = of_class["AP"]
        self._scalars(values, step)
        if self._writer is not None:
            self._writer.flush()

    def pictures(self, step: int, pictures: list[Pixels]) -> None:
        """Sample pictures, (H, W, 3) uint8 RGB; each place in the list has its own slider."""
        if self._writer is not None:
            for place, pixels in enumerate(pictures):
                self._writer.add_image(f"samples/{place}", pixels, step, dataformats="HWC")

    def _scalars(self, values: dict[str, float], step: int) -> None:
        if self._writer is not None:
            for tag, value in values.items():
                self._writer.add_scalar(tag, value, step)

    def close(self) -> None:
        """Write what is left."""
        if self._writer is not None:
            self._writer.close()


def _open(folder: Path, first_step: int) -> SummaryWriter | None:
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        logger.warning("no TensorBoard log: the package is missing; pip install 'cn2[train]'")
        return None
    # Points from purge_step on are hidden: those of a first step are kept, of a fresh run none.
    purge_step = first_step + 1 if first_step else 0
    return SummaryWriter(str(folder), purge_step=purge_step, max_queue=QUEUE, flush_secs=FLUSH_S)
