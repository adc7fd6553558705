"""`cn2 detect`: pictures in; pictures with boxes, a JSON file and a table out."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .errors import Cn2Error, OutputError
from .reports import format_number, format_table, write_whole
from .sources import Source

if TYPE_CHECKING:
    from .detections import Detections
    from .detector import Detector
    from .pictures import Pixels


@dataclass(frozen=True, kw_only=True)
class Result:
    """What was found in one picture."""

    source: Source
    found: Detections
    duration_ms: float
    """From file to detections; of a batch, its share."""
    drawn: Path | None = None
    """The picture with boxes; None: none was asked for, or it could not be written."""


@dataclass(kw_only=True)
class Results:
    """What was found in all pictures, and which ones failed, and why."""

    results: list[Result] = field(default_factory=list)
    failed: list[tuple[str, str]] = field(default_factory=list)
    """(file or word, message of one line)."""


def detect_files(
    detector: Detector,
    sources: Sequence[Source],
    *,
    score_threshold: float | None = None,
    targets: Mapping[Source, Path] | None = None,
    tell: Callable[[str], None],
    advance: Callable[[], None] = lambda: None,
) -> Results:
    """Search pictures; a bad one is told and noted, and the others are searched all the same.

    Args:
        detector: its `max_batch` is how many pictures are held and run at a time.
        sources: the pictures.
        score_threshold: keep detections above it; None: the model's own.
        targets: where to write the pictures with boxes; None: write none.
        tell: takes the one-line message of each picture that failed, as it fails.
        advance: called after each picture.
    """
    done = Results()

    def note(source: Source, error: Exception) -> None:
        done.failed.append((str(source.path), str(error)))
        tell(str(error))

    for chunk in _chunks(sources, detector.max_batch):
        opened = list(_open(chunk, detector.max_pixels, note))
        pictures = [pixels for _, pixels, _ in opened]
        found, timings = detector.detect_timed(pictures, score_threshold)
        for (source, pixels, decode_ms), one in zip(opened, found, strict=True):
            duration_ms = decode_ms + timings.total_ms / len(opened)
            drawn = None if targets is None else targets[source]
            try:
                if drawn is not None:
                    write_picture(drawn, one.draw(pixels))
            except OutputError as error:
                drawn = None
                note(source, error)
            done.results.append(
                Result(source=source, found=one, duration_ms=duration_ms, drawn=drawn)
            )
        for _ in chunk:
            advance()
    return done


def _chunks(sources: Sequence[Source], size: int) -> Iterator[Sequence[Source]]:
    return (sources[start : start + size] for start in range(0, len(sources), size))


def _open(
    sources: Sequence[Source], max_pixels: int, note: Callable[[Source, Exception], None]
) -> Iterator[tuple[Source, Pixels, float]]:
    """The pictures that can be read, with the milliseconds that reading took."""
    import time

    from .pictures import open_picture

    for source in sources:
        start = time.perf_counter()
        try:
            pixels = open_picture(source.path, max_pixels=max_pixels)
        except Cn2Error as error:
            note(source, error)
            continue
        yield source, pixels, (time.perf_counter() - start) * 1e3


def write_picture(path: Path, pixels: Pixels) -> None:
    """Write an RGB picture (H, W, 3) in the format of its suffix; its folder is made.

    Raises:
        OutputError: it cannot be written, or the format cannot hold a picture of that size.
    """
    import cv2

    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        fits, content = cv2.imencode(path.suffix.lower(), cv2.cvtColor(pixels, cv2.COLOR_RGB2BGR))
    except OSError as error:
        raise OutputError(f"{path}: cannot be written ({error.strerror})") from error
    except cv2.error:
        fits = False
    if not fits:
        height, width = pixels.shape[:2]
        raise OutputError(f"{path}: a picture of {width}x{height} cannot be written in this format")
    write_whole(path, content.tobytes())


def describe_model(detector: Detector, path: Path) -> dict[str, Any]:
    """Which model gave a result, for JSON."""
    manifest = detector.manifest
    return {
        "file": str(path),
        "preset": manifest.preset,
        "precision": manifest.precision,
        "backend": detector.backend.name,
        "device": detector.backend.device,
        "class_names": list(manifest.class_names),
        "category_ids": list(manifest.category_ids),
        "checkpoint_sha256": manifest.checkpoint_sha256,
    }


def results_document(model: dict[str, Any], done: Results) -> dict[str, Any]:
    """The document of `--json`; docs/json.md describes it."""
    return {
        "model": model,
        "images": [_image_entry(result) for result in done.results],
        "failed": [{"file": file, "error": message} for file, message in done.failed],
    }


def _image_entry(result: Result) -> dict[str, Any]:
    height, width = result.found.image_size
    found = result.found
    columns = zip(found.boxes, found.scores, found.class_ids.tolist(), found.labels, strict=True)
    drawn = {} if result.drawn is None else {"drawn": str(result.drawn)}
    return {
        "file": str(result.source.path),
        "width": width,
        "height": height,
        **drawn,
        "detections": [
            {
                "box": [_shortest(side) for side in box],
                "score": _shortest(score),
                "class_id": class_id,
                "label": label,
            }
            for box, score, class_id, label in columns
        ],
    }


def _shortest(value: Any) -> float:
    """A float32 by the fewest digits that give it back: 0.1, not 0.10000000149011612."""
    return float(str(value))


def results_table(done: Results) -> str:
    """The summary: a row per picture, and their sum."""
    rows = [
        [str(r.source.path), str(len(r.found)), format_number(r.duration_ms)] for r in done.results
    ]
    table = format_table(["file", "objects", "ms"], rows)
    total_ms = sum(result.duration_ms for result in done.results)
    objects = sum(len(result.found) for result in done.results)
    if not total_ms:
        return table
    speed = 1e3 * len(done.results) / total_ms
    pictures = f"{len(done.results)} picture{'s' if len(done.results) != 1 else ''}"
    return f"{table}\n\n{pictures}, {objects} objects, {speed:.1f} images/s"
