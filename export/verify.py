"""Does an exported file find what the checkpoint finds? Both run on real pictures, one by one.

The file runs in ONNX Runtime as a user would run it; torch is the judge. Where the two differ by
more than the tolerance, torch decides in float64: eager float32 of a deep network can itself be off
by more than that.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from importlib.resources import files
from pathlib import Path

from cn2.runtime.backends.base import Backend
from cn2.runtime.backends.onnxruntime import OnnxRuntimeBackend
from cn2.runtime.errors import Cn2Error, PictureError
from cn2.runtime.pictures import PICTURE_SUFFIXES, open_picture
from cn2.runtime.preprocess import PlacedPicture, place_picture, stack_pictures
from cn2.trainer.config import Config
from cn2.trainer.detector import TwoStageDetector

from .agreement import (
    BOX_TOLERANCE_PX,
    SCORE_TOLERANCE,
    Agreement,
    Found,
    OpenProposals,
    Thresholds,
    compare,
)
from .onnx_file import with_proposals
from .reference import Reference

ENOUGH_DETECTIONS = 20  # fewer at the model's own threshold say little: compare at the lowest too


class VerificationError(Cn2Error):
    """The exported file does not find what the checkpoint finds."""


@dataclass(kw_only=True)
class Verification:
    """What a verification saw."""

    agreement: Agreement = field(default_factory=Agreement)
    score_threshold: float  # the last one compared at
    float32_box_px: float = 0.0  # largest difference from torch in float32, box
    float32_score: float = 0.0  # the same, score
    in_float64: int = 0  # pictures judged in float64, as float32 was beyond the tolerance

    def rows(self) -> list[tuple[str, str]]:
        """The table: name and value."""
        agreement = self.agreement
        excused = ", ".join(f"{count} {why}" for why, count in sorted(agreement.excused.items()))
        return [
            ("pictures", str(agreement.pictures)),
            ("detections in both", f"{agreement.detections} at score > {self.score_threshold:g}"),
            ("largest box difference", f"{agreement.box_px:.2g} px (limit {BOX_TOLERANCE_PX:g})"),
            ("largest score difference", f"{agreement.score:.2g} (limit {SCORE_TOLERANCE:g})"),
            ("excused, on a threshold", excused or "0"),
            ("unexplained", str(len(agreement.unexplained))),
            ("pictures judged in float64", str(self.in_float64)),
        ]


def bundled_pictures() -> list[Path]:
    """The pictures that the package brings along."""
    return pictures_in(Path(str(files("cn2.runtime"))) / "bundled" / "pictures")


def pictures_in(folder: Path) -> list[Path]:
    """The picture files of a folder, sorted by name.

    Raises:
        PictureError: there is none.
    """
    found = sorted(p for p in folder.glob("*") if p.suffix.lower() in PICTURE_SUFFIXES)
    if not found:
        raise PictureError(f"{folder}: expected a folder with pictures to verify on, found none")
    return found


def verify(
    path: Path,
    model: TwoStageDetector,
    config: Config,
    pictures: Sequence[Path],
    progress: Callable[[str], None] | None = None,
) -> Verification:
    """Compare an exported file with the detector that it was made of.

    At the model's own score threshold; where that leaves too few detections to say much (a detector
    of other things than the pictures show), at the lowest one.

    Args:
        path: the ONNX file.
        model: the detector.
        config: of the detector.
        pictures: files; each is resized and placed by the file's own rule.
        progress: told in words what is done.
    Raises:
        PictureError: a picture cannot be read.
    """
    backend = OnnxRuntimeBackend.open(path, device="cpu")
    manifest, second = backend.manifest, config.model.second_stage
    placed = {p.name: place_picture(open_picture(p), manifest.canvas) for p in pictures}
    reference = Reference(with_proposals(model, manifest.proposals))
    result = Verification(score_threshold=manifest.score_threshold)
    for threshold in (None, manifest.lowest_score_threshold):
        result = Verification(
            score_threshold=manifest.score_threshold if threshold is None else threshold
        )
        limits = Thresholds(
            score=result.score_threshold, nms_iou=second.nms_iou, detections=second.detections
        )
        for number, (name, picture) in enumerate(placed.items(), start=1):
            found = run_file(backend, picture, threshold)
            _count_in(result, name, found, picture, reference, limits)
            if progress is not None:
                progress(f"verified {number} of {len(placed)} pictures")
        if result.agreement.unexplained or result.agreement.detections >= ENOUGH_DETECTIONS:
            break
    backend.close()
    return result


def run_file(backend: Backend, picture: PlacedPicture, score_threshold: float | None) -> Found:
    """What an exported file finds in one picture; None: at the file's own threshold."""
    images, sizes = stack_pictures([picture], backend.manifest.batch)
    number, boxes, scores, classes = backend.infer(images, sizes, score_threshold)
    count = int(number[0])
    return Found(boxes=boxes[0, :count], scores=scores[0, :count], classes=classes[0, :count])


def _count_in(
    result: Verification,
    name: str,
    found: Found,
    picture: PlacedPicture,
    reference: Reference,
    limits: Thresholds,
) -> None:
    """Compare one picture, in float64 where float32 is not enough, and count it in."""

    def undecided() -> OpenProposals:
        return reference.open_proposals(picture)

    agreement = compare(reference.run(picture, limits.score), found, limits, undecided)
    result.float32_box_px = max(result.float32_box_px, agreement.box_px)
    result.float32_score = max(result.float32_score, agreement.score)
    if not agreement.holds:
        result.in_float64 += 1
        agreement = compare(reference.run_exact(picture, limits.score), found, limits, undecided)
    agreement.unexplained = [f"{name}: {line}" for line in agreement.unexplained]
    result.agreement.add(agreement)


def require_agreement(result: Verification) -> None:
    """Raise VerificationError, naming the worst difference, unless the two agree."""
    agreement = result.agreement
    if agreement.holds:
        return
    more = f" ({len(agreement.unexplained)} such)" if len(agreement.unexplained) > 1 else ""
    worst = f"; {agreement.unexplained[0]}{more}" if agreement.unexplained else ""
    raise VerificationError(
        f"verification: expected the file to find what torch finds, within {BOX_TOLERANCE_PX:g} px "
        f"and {SCORE_TOLERANCE:g}, got {agreement.box_px:.2g} px and {agreement.score:.2g}{worst}; "
        f"no file was kept; please report it"
    )
