"""Does an exported file find what the checkpoint finds? Both run on real pictures, one by one.

The file runs in ONNX Runtime as a user would run it; torch is the judge. A deep network in float32
can itself be further from the truth than the limits: the fixtures' random weights are, now and
then. So where the two differ by more, torch runs in float64 too, and its own float32 error there,
doubled, is the limit if it is larger. Such pictures are counted.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from importlib.resources import files
from pathlib import Path

from cn2.runtime.backends.base import Backend
from cn2.runtime.backends.onnx_header import read_metadata
from cn2.runtime.backends.onnxruntime import OnnxRuntimeBackend
from cn2.runtime.backends.ort_operators import kernels_are_here
from cn2.runtime.errors import Cn2Error, PictureError
from cn2.runtime.manifest import manifest_from_metadata
from cn2.runtime.pictures import PICTURE_SUFFIXES, open_picture
from cn2.runtime.preprocess import PlacedPicture, place_picture, stack_pictures
from cn2.trainer.config import Config
from cn2.trainer.detector import AnyDetector

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
    score_threshold: float  # what both were run at
    rounded: int = 0  # pictures beyond the limits, but within twice torch's own rounding
    own_box_px: float = 0.0  # on those: torch in float32 against float64, largest box difference
    own_score: float = 0.0  # the same, score

    def rows(self) -> list[tuple[str, str]]:
        """The table: name and value."""
        agreement = self.agreement
        excused = ", ".join(f"{count} {why}" for why, count in sorted(agreement.excused.items()))
        rows = [
            ("pictures", str(agreement.pictures)),
            ("detections in both", f"{agreement.detections} at score > {self.score_threshold:g}"),
            ("largest box difference", f"{agreement.box_px:.2g} px (limit {BOX_TOLERANCE_PX:g})"),
            ("largest score difference", f"{agreement.score:.2g} (limit {SCORE_TOLERANCE:g})"),
            ("excused, on a threshold", excused or "0"),
            ("unexplained", str(len(agreement.unexplained))),
        ]
        if self.rounded:
            own = f"{self.own_box_px:.2g} px, {self.own_score:.2g}"
            rows.append(
                ("beyond a limit", f"{self.rounded} pictures; torch's own rounding there: {own}")
            )
        return rows


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
    model: AnyDetector,
    config: Config,
    pictures: Sequence[Path],
    progress: Callable[[str], None] | None = None,
    *,
    fused: bool = False,
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
        fused: by the kernels of fused operators; else by their bodies.
    Raises:
        BackendUnavailableError, PluginError: `fused`, and their library is not here or not ours.
        PictureError: a picture cannot be read.
    """
    backend = OnnxRuntimeBackend.open(path, device="cpu", fused=fused)
    manifest, own = backend.manifest, config.model.limits
    placed = {p.name: place_picture(open_picture(p), manifest.canvas) for p in pictures}
    reference = Reference(with_proposals(model, manifest.proposals))
    result = Verification(score_threshold=manifest.score_threshold)
    for threshold in (None, manifest.lowest_score_threshold):
        result = Verification(
            score_threshold=manifest.score_threshold if threshold is None else threshold
        )
        limits = Thresholds(
            score=result.score_threshold, nms_iou=own.nms_iou, detections=own.detections
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


def verify_all(
    path: Path,
    model: AnyDetector,
    config: Config,
    pictures: Sequence[Path],
    progress: Callable[[str], None] | None = None,
) -> dict[str, Verification]:
    """`verify` in each way that the file runs here, by a name of the way.

    Fused operators run by their bodies everywhere, and by their kernels where the library is.
    """
    found = {"standard operators": verify(path, model, config, pictures, progress)}
    manifest = manifest_from_metadata(read_metadata(path), str(path))
    if manifest.ops == "fused" and kernels_are_here():
        found["fused operators"] = verify(path, model, config, pictures, progress, fused=True)
    return found


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
    """Compare one picture and count it in; if need be, with torch's own rounding as the limit."""

    def undecided() -> OpenProposals:
        return reference.open_proposals(picture)

    single = reference.run(picture, limits.score)
    agreement = compare(single, found, limits, undecided)
    if not agreement.holds:
        exact = reference.run_exact(picture, limits.score)
        own = compare(exact, single, limits)
        wide = replace(
            limits,
            box_limit_px=max(limits.box_limit_px, 2 * own.box_px),
            score_limit=max(limits.score_limit, 2 * own.score),
        )
        again = [compare(judge, found, wide, undecided) for judge in (single, exact)]
        agreement = min(again, key=lambda a: len(a.unexplained))
        if agreement.holds:
            result.rounded += 1
            result.own_box_px = max(result.own_box_px, own.box_px)
            result.own_score = max(result.own_score, own.score)
    agreement.unexplained = [f"{name}: {line}" for line in agreement.unexplained]
    result.agreement.add(agreement)


def require_agreement(result: Verification) -> None:
    """Raise VerificationError, naming the first difference, unless file and checkpoint agree."""
    lines = result.agreement.unexplained
    if not lines:
        return
    more = f" ({len(lines)} such differences)" if len(lines) > 1 else ""
    raise VerificationError(
        f"verification: expected the file to find what torch finds, within {BOX_TOLERANCE_PX:g} px "
        f"and {SCORE_TOLERANCE:g}, got {lines[0]}{more}; no file was kept; please report it"
    )
