"""A picture of a run's curves, made from its log: losses, learning rate, AP over steps."""

from __future__ import annotations

import importlib.util
import logging
import math
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cn2.runtime.errors import OutputError

from ..progress import group_losses, read_log

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

logger = logging.getLogger(__name__)

Points = list[tuple[int, float]]  # step, value; steps ascend

WIDTH_IN, DPI = 8.0, 120  # inches, pixels per inch
HEIGHTS_IN = {"losses": 3.6, "rate": 1.8, "scores": 2.6}
FEW = 30  # points that are marked one by one


@dataclass(frozen=True)
class Curves:
    """What there is to draw; each name's points over the steps, none of them empty."""

    losses: dict[str, Points]  # the sum, and a sum for each kind
    rate: dict[str, Points]
    scores: dict[str, Points]


def draw_curves(log: Path, out: Path) -> None:
    """Write a PNG of a run's curves; a log without a row, or no matplotlib, is told in one line.

    Args:
        log: JSON lines of a run; steps that stand in it twice count as they were the last time.
        out: the picture.
    Raises:
        ValueError: the log is damaged.
        OutputError: the picture cannot be written.
    """
    curves = read_curves(read_log(log))
    if not (curves.losses or curves.rate or curves.scores):
        logger.warning("%s: no step to draw a curve of", log)
        return
    if importlib.util.find_spec("matplotlib") is None:
        logger.warning("no curve picture: matplotlib is missing; pip install 'cn2[train]'")
        return
    try:
        _figure(curves).savefig(out, format="png")
    except OSError as error:
        raise OutputError(f"{out}: cannot be written ({error.strerror})") from None


def read_curves(rows: list[dict[str, Any]]) -> Curves:
    """The curves of a log's rows; what is no finite number is left out."""
    train = {row["step"]: row for row in rows if row["kind"] == "train"}
    scored = {row["step"]: row for row in rows if row["kind"] == "validation" and "step" in row}
    losses = {step: group_losses(row["losses"]) for step, row in train.items() if row["losses"]}
    kinds = list(dict.fromkeys(kind for groups in losses.values() for kind in groups))
    return Curves(
        losses=_curves(losses, kinds),
        rate=_curves(train, ["learning_rate"]),
        scores=_curves(scored, ["AP", "AP50"]),
    )


def _curves(rows: dict[int, dict[str, Any]], names: list[str]) -> dict[str, Points]:
    curves = {
        name: [
            (step, rows[step][name]) for step in sorted(rows) if _is_number(rows[step].get(name))
        ]
        for name in names
    }
    return {name: points for name, points in curves.items() if points}


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and math.isfinite(value)


def _figure(curves: Curves) -> Figure:
    """One panel for each kind of curve that there is, over the same steps.

    Without pyplot, which keeps state for the whole process.
    """
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

    kinds = [kind for kind in HEIGHTS_IN if getattr(curves, kind)]
    heights = [HEIGHTS_IN[kind] for kind in kinds]
    figure = Figure((WIDTH_IN, sum(heights) + 0.4), dpi=DPI, layout="constrained")
    grid = figure.subplots(
        len(kinds), sharex=True, squeeze=False, gridspec_kw={"height_ratios": heights}
    )
    for kind, axes in zip(kinds, grid[:, 0], strict=True):
        _draw(axes, kind, getattr(curves, kind))
    grid[-1, 0].set_xlabel("step")
    grid[-1, 0].xaxis.set_major_locator(MaxNLocator(integer=True, steps=[1, 2, 5, 10]))
    figure.align_ylabels()
    return figure


def _draw(axes: Axes, kind: str, curves: dict[str, Points]) -> None:
    for name, points in curves.items():
        steps, values = zip(*points, strict=True)
        marker = "o" if len(points) <= FEW else ""
        width = 1.6 if name in ("loss", "AP") else 1.0
        axes.plot(steps, values, label=_label(name, points), marker=marker, ms=3, lw=width)
    axes.grid(alpha=0.3)
    axes.margins(x=0.02)
    match kind:
        case "losses":
            if all(value > 0 for points in curves.values() for _, value in points):
                _scale_logarithmically(axes)
            axes.set_ylabel("loss")
        case "rate":
            axes.set_ylabel("learning rate")
            axes.set_ylim(bottom=0)
            axes.ticklabel_format(axis="y", style="sci", scilimits=(-2, 3))
        case "scores":
            axes.set_ylabel("AP on validation pictures")
            axes.set_ylim(0, 1)
    if len(curves) > 1:  # beside the panel, where it hides nothing
        axes.legend(loc="center left", bbox_to_anchor=(1.0, 0.5), frameon=False)


def _scale_logarithmically(axes: Axes) -> None:
    """With plain numbers at 1, 2 and 5 of each power of ten."""
    from matplotlib.ticker import LogLocator, NullFormatter

    axes.set_yscale("log")
    axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes.yaxis.set_major_formatter("{x:g}")
    axes.yaxis.set_minor_formatter(NullFormatter())


def _label(name: str, points: Points) -> str:
    """The curve's name; of a score its best value too."""
    if not name.startswith("AP"):
        return {"loss": "sum"}.get(name, name)
    step, best = max(points, key=lambda point: point[1])
    return f"{name}\nbest {best:.3f}\nat step {step}"
