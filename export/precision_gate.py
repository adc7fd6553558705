"""How much an fp16 file changes what is found, on real pictures, and whether a budget allows it.

The file runs as emulation (precision_emulation.py); the detector in torch, in fp32, is the judge.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from cn2.runtime.backends.onnxruntime import OnnxRuntimeBackend
from cn2.runtime.pictures import open_picture
from cn2.runtime.preprocess import PlacedPicture, place_picture
from cn2.trainer.config import Config
from cn2.trainer.detector import AnyDetector

from .agreement import SAME_IOU, Found, match
from .onnx_file import with_proposals
from .precision import LARGEST, PrecisionError
from .precision_emulation import EmulatedBackend
from .reference import Reference
from .verify import ENOUGH_DETECTIONS, run_file

WORST = 5  # pictures in the table


@dataclass(frozen=True, kw_only=True)
class Budget:
    """What fp16 may change."""

    matched: float = 0.99  # least share of detections that both find
    score: float = 0.01  # largest difference of a score, at which two are still the same

    def __post_init__(self) -> None:
        if not (0 <= self.matched <= 1 and 0 <= self.score <= 1):
            raise ValueError(
                f"budget: expected numbers from 0 to 1, got {self.matched:g} of the detections "
                f"matched and {self.score:g} of a score"
            )


@dataclass(frozen=True, kw_only=True)
class Change:
    """What fp16 changes on one picture, or on many."""

    name: str
    counted: int  # detections of both runs, but those that the score's budget may have let slip
    unmatched: int  # of these, the ones that the other run does not find, or with another score
    score: float  # largest difference among detections that both find
    box_px: float  # the same, of a coordinate, pixels of the resized picture

    @property
    def matched(self) -> float:
        """Share of the detections that count; 1 where none does."""
        return 1 - self.unmatched / max(1, self.counted)

    def within(self, budget: Budget) -> bool:
        return self.matched >= budget.matched


@dataclass(kw_only=True)
class PrecisionReport:
    """What a comparison saw."""

    score_threshold: float  # what both were run at
    pictures: list[Change] = field(default_factory=list)
    largest: float = 0.0  # magnitude of an fp16 value
    layer: str = ""  # where that arises

    @property
    def total(self) -> Change:
        """Over all pictures."""
        return Change(
            name="all",
            counted=sum(p.counted for p in self.pictures),
            unmatched=sum(p.unmatched for p in self.pictures),
            score=max((p.score for p in self.pictures), default=0.0),
            box_px=max((p.box_px for p in self.pictures), default=0.0),
        )

    def rows(self, budget: Budget) -> list[tuple[str, str]]:
        """The table: name and value, at its end the worst pictures."""
        total = self.total
        return [
            ("pictures", str(len(self.pictures))),
            (
                "found by both",
                f"{total.matched:.2%} of {total.counted}, fp32's and fp16's, at "
                f"score > {self.score_threshold:g} (budget {budget.matched:.2%})",
            ),
            ("scores taken for the same", f"within {budget.score:g}"),
            ("largest score difference", f"{total.score:.2g}"),
            ("largest box difference", f"{total.box_px:.2g} px"),
            ("largest fp16 value", f"{self.largest:.4g} of {LARGEST:g}, in {self.layer}"),
            ("worst pictures", "found by both, score, box"),
            *(
                (f"  {p.name}", f"{p.matched:.2%} of {p.counted}, {p.score:.2g}, {p.box_px:.2g} px")
                for p in self.worst()
            ),
        ]

    def worst(self) -> list[Change]:
        """The pictures that change most, worst first."""
        ranked = sorted(self.pictures, key=lambda p: (p.matched, -p.score))
        return ranked[:WORST]


def compare_precision(
    path: Path,
    model: AnyDetector,
    config: Config,
    pictures: Sequence[Path],
    budget: Budget,
    progress: Callable[[str], None] | None = None,
) -> PrecisionReport:
    """Run an fp16 file as emulation, and the detector that it was made of in fp32.

    At the model's own score threshold; where that is within the budget, but fewer than
    `ENOUGH_DETECTIONS` count, at the lowest one.

    Args:
        path: the ONNX file.
        model: the detector, in fp32.
        config: of the detector.
        pictures: files; each is resized and placed by the file's own rule.
        budget: its score tells which detections may fall below a threshold.
        progress: told in words what is done.
    Raises:
        PrecisionError: a value is beyond what fp16 holds.
        PictureError: a picture cannot be read.
    """
    lowered = EmulatedBackend(path)
    manifest = lowered.manifest
    placed = {p.name: place_picture(open_picture(p), manifest.canvas) for p in pictures}
    _require_that_it_runs(path, next(iter(placed.values())))
    reference = Reference(with_proposals(model, manifest.proposals))
    report = PrecisionReport(score_threshold=manifest.score_threshold)
    for threshold in (manifest.score_threshold, manifest.lowest_score_threshold):
        report = PrecisionReport(score_threshold=threshold)
        for number, (name, picture) in enumerate(placed.items(), start=1):
            found = run_file(lowered, picture, threshold)
            _require_finite(lowered, name)
            single = reference.run(picture, threshold)
            most = config.model.limits.detections
            report.pictures.append(compare(name, single, found, threshold, most, budget))
            if progress is not None:
                progress(f"compared {number} of {len(placed)} pictures")
        if not report.total.within(budget) or report.total.counted >= ENOUGH_DETECTIONS:
            break
    if lowered.layers:
        place = int(lowered.peaks.argmax())
        report.largest, report.layer = float(lowered.peaks[place]), lowered.layers[place]
    return report


def _require_that_it_runs(path: Path, picture: PlacedPicture) -> None:
    """The file itself, as a user would run it on a CPU."""
    backend = OnnxRuntimeBackend.open(path, device="cpu", fused=False)
    run_file(backend, picture, None)
    backend.close()


def _require_finite(lowered: EmulatedBackend, picture: str) -> None:
    """Raise PrecisionError, naming the first layer, where a value is beyond fp16."""
    for peak, layer in zip(lowered.peaks, lowered.layers, strict=True):
        if not np.isfinite(peak):
            raise PrecisionError(
                f"fp16: expected values up to {LARGEST:g}, got larger ones in {layer} on "
                f"{picture}; no file was kept; export with --precision fp32"
            )


def compare(
    name: str, single: Found, half: Found, threshold: float, most: int, budget: Budget
) -> Change:
    """Compare the detections of one picture.

    A pair of the same class and place whose scores differ by more than the budget is none. What
    the other run lacks counts only if its score is above the other's limit by more than the budget:
    a score that moves so little below the threshold, or behind the last of `most` rows, is a change
    of score within the budget, and no other one.
    """
    pairs = match(single, half)
    rows, columns = [row for row, _ in pairs], [column for _, column in pairs]
    boxes = np.abs(single.boxes[rows] - half.boxes[columns])
    scores = np.abs(single.scores[rows] - half.scores[columns])
    lost = _count_lost(single, rows, half, threshold, most, budget)
    added = _count_lost(half, columns, single, threshold, most, budget)
    return Change(
        name=name,
        counted=2 * len(pairs) + lost + added,
        unmatched=lost + added + 2 * int((scores > budget.score).sum()),
        score=float(scores.max(initial=0.0)),
        box_px=float(boxes.max(initial=0.0)),
    )


def _count_lost(
    own: Found, matched: list[int], other: Found, threshold: float, most: int, budget: Budget
) -> int:
    """Detections of one run that the other should have and lacks."""
    floor = max(threshold, float(other.scores[-1])) if len(other) == most else threshold
    lost = np.setdiff1d(np.arange(len(own)), matched)
    return int((own.scores[lost] > floor + budget.score).sum())


def require_within(report: PrecisionReport, budget: Budget) -> None:
    """Raise PrecisionError, naming the worst picture, if fp16 changes more than allowed.

    Where neither run finds anything, nothing was compared: that is an error, too.
    """
    total = report.total
    if not total.counted:
        raise PrecisionError(
            f"fp16: expected detections to compare, got none on {len(report.pictures)} pictures at "
            f"score > {report.score_threshold:g}; no file was kept; give pictures of your objects "
            f"by --verify, or export with --precision fp32"
        )
    if total.within(budget):
        return
    raise PrecisionError(
        f"fp16: expected at least {budget.matched:.2%} of the detections matched at IoU "
        f"{SAME_IOU:g} and scores within {budget.score:g}, got {total.matched:.2%}, worst on "
        f"{report.worst()[0].name}; no file was kept; allow more by --budget-matched or "
        f"--budget-score, or export with --precision fp32"
    )
