"""`cn2 eval`: COCO or LVIS metrics of a model file on annotated pictures."""

from __future__ import annotations

import importlib.util
import logging
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .errors import AnnotationError, DependencyError, PictureError
from .reports import format_number, format_table

if TYPE_CHECKING:
    from .detector import Detector
    from .formats.common import AnnotatedPictures
    from .manifest import Manifest

logger = logging.getLogger(__name__)

NAMES_SHOWN = 5  # of files or classes in a message of one line
SUMMARY = ("AP", "AP50", "AP75", "APs", "APm", "APl", "APr", "APc", "APf", "AR100", "AR300")


def evaluate(
    detector: Detector,
    truth: AnnotatedPictures,
    *,
    tell: Callable[[str], None],
    advance: Callable[[], None] = lambda: None,
) -> dict[str, Any]:
    """Run a detector on annotated pictures and score what it finds.

    Args:
        truth: of `read_annotations`. COCO's classes are the model's by id; those of YOLO and VOC,
            which only count them, by name.
        tell: takes a line for each unreadable picture; it counts as one with no object found.
        advance: called after each picture.
    Returns:
        The metrics of `coco_metrics`, and `failed`: [{file, error}].
    Raises:
        AnnotationError: classes do not match, pictures are missing, or there are none.
        DependencyError: faster-coco-eval is not installed.
    """
    from .evaluation import coco_metrics, match_classes
    from .federated import is_federated

    require_evaluator()
    annotations, manifest = truth.content, detector.manifest
    is_federated(annotations)  # LVIS in part only: better said before the work
    if truth.format != "coco":
        match_classes(
            annotations, dict(zip(manifest.category_ids, manifest.class_names, strict=True))
        )
    check_classes(manifest, annotations["categories"])
    paths = find_pictures(annotations["images"], truth.folder)
    results, failed = _run(detector, paths, tell, advance)
    return {**coco_metrics(annotations, results), "failed": failed}


def evaluate_proposals(
    detector: Detector,
    truth: AnnotatedPictures,
    *,
    tell: Callable[[str], None],
    advance: Callable[[], None] = lambda: None,
) -> dict[str, Any]:
    """Run a first stage on annotated pictures and count the objects that its proposals cover.

    Arguments and errors as of `evaluate`; classes do not matter.

    Returns:
        `proposal_recall`'s numbers, and `failed`: [{file, error}].
    """
    from .proposal_recall import proposal_recall

    require_evaluator()
    paths = find_pictures(truth.content["images"], truth.folder)
    results, failed = _run(detector, paths, tell, advance)
    return {**proposal_recall(truth.content, results), "failed": failed}


def _run(
    detector: Detector,
    paths: dict[int, Path],
    tell: Callable[[str], None],
    advance: Callable[[], None],
) -> tuple[list[dict[str, Any]], list[dict[str, str]]]:
    """COCO result dicts of all pictures, and those that could not be read."""
    results: list[dict[str, Any]] = []
    failed: list[dict[str, str]] = []
    for image_id, path in paths.items():
        try:
            results += detector(path).to_coco(image_id)
        except PictureError as error:
            failed.append({"file": str(path), "error": str(error)})
            tell(str(error))
        advance()
    return results, failed


def require_evaluator() -> None:
    """Find out before the work, not after it, whether metrics can be computed.

    Raises:
        DependencyError: faster-coco-eval is not installed.
    """
    if importlib.util.find_spec("faster_coco_eval") is None:
        raise DependencyError("faster-coco-eval is not installed; pip install 'cn2[eval]'")


def find_pictures(images: list[dict[str, Any]], folder: Path) -> dict[int, Path]:
    """Image id -> file.

    Raises:
        AnnotationError: there are none, or some are missing; they are named.
    """
    if not images:
        raise AnnotationError("annotations: expected at least one picture under 'images', got none")
    paths = {image["id"]: folder / image["file_name"] for image in images}
    missing = [path.relative_to(folder) for path in paths.values() if not path.is_file()]
    if missing:
        raise AnnotationError(
            f"{folder}: {len(missing)} of the {len(paths)} annotated pictures are not there: "
            f"{shorten([str(path) for path in missing])}; is it the right folder?"
        )
    return paths


def check_classes(manifest: Manifest, categories: list[dict[str, Any]]) -> None:
    """Hold the model's classes against the dataset's, by category id.

    Classes of one side only, and some names that differ, are warned of.

    Raises:
        AnnotationError: no category id is shared, or every shared one has another name.
    """
    ours = dict(zip(manifest.category_ids, manifest.class_names, strict=True))
    theirs = {category["id"]: category["name"] for category in categories}
    shared = sorted(set(ours) & set(theirs))
    if not shared:
        raise AnnotationError(
            f"classes: the model's ({_name_ids(ours)}) and the annotations' ({_name_ids(theirs)}) "
            f"share no category id; the model was trained on other classes"
        )
    renamed = [
        f"{key} is {ours[key]!r} in the model and {theirs[key]!r} in the annotations"
        for key in shared
        if ours[key].casefold() != theirs[key].casefold()
    ]
    if len(renamed) == len(shared):
        raise AnnotationError(
            f"classes: no shared category id has the same name: {shorten(renamed, 2)}; the model "
            f"was trained on other classes, or the annotations want their names changed"
        )
    if renamed:
        logger.warning("classes: taken for the same: %s", shorten(renamed))
    for side, mine, others, effect in (
        ("annotations", theirs, ours, "the model cannot find them, they count as missed"),
        ("model", ours, theirs, "detections of them are left out"),
    ):
        alone = [name for key, name in mine.items() if key not in others]
        if alone:
            logger.warning("classes of the %s alone: %s; %s", side, shorten(alone), effect)


def _name_ids(classes: dict[int, str]) -> str:
    return shorten([f"{key} {name}" for key, name in classes.items()])


def shorten(names: list[str], limit: int = NAMES_SHOWN) -> str:
    """The first few names, and how many more there are."""
    shown = ", ".join(names[:limit])
    more = len(names) - limit
    return f"{shown} and {more} more" if more > 0 else shown


def summary_table(metrics: dict[str, Any]) -> str:
    """The metrics of all classes together."""
    keys = [key for key in SUMMARY if key in metrics]  # some are LVIS's alone
    return format_table(keys, [[format_number(metrics[key], 3) for key in keys]], left=0)


def metrics_table(metrics: dict[str, Any]) -> str:
    """The metrics, and a row per class; a dash where the pictures hold no such object."""
    summary = summary_table(metrics)
    rows = [
        [name, str(row["objects"]), format_number(row["AP"], 3), format_number(row["AP50"], 3)]
        for name, row in metrics["per_class"].items()
    ]
    return f"{summary}\n\n{format_table(['class', 'objects', 'AP', 'AP50'], rows)}"


def recall_table(metrics: dict[str, Any]) -> str:
    """A row for each number of proposals: recall of all, small, medium and large objects."""
    from .proposal_recall import PROPOSALS

    rows = []
    for count in PROPOSALS:
        values = (metrics[f"AR{letter}{count}"] for letter in ("", "s", "m", "l"))
        rows.append([str(count), *(format_number(value, 3) for value in values)])
    return format_table(["proposals", "AR", "small", "medium", "large"], rows)
