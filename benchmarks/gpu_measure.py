"""How a way to run a detector is timed, and how its detections are compared with the CPU's."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol
from zipfile import BadZipFile

import numpy as np
import numpy.typing as npt

from cn2.runtime.backends.base import RawDetections
from cn2.runtime.canvas import CanvasRule
from cn2.runtime.detections import Detections
from cn2.runtime.manifest import Manifest
from cn2.runtime.pictures import Pixels, open_picture
from cn2.runtime.postprocess import to_detections
from cn2.runtime.preprocess import PlacedPicture, place_picture, resize_into, stack_pictures
from gpu_job import Job, Row
from models import find_pictures

WARM_UPS = 20
LONGEST_S = 1.0  # of the timed calls of a row; at least FEWEST are made
FEWEST = 5
PICTURES, CHECKED = 16, 4  # held; compared with the CPU's
SEEN = 64  # of those that there are
MATCHED_IOU = 0.9


class Runner(Protocol):
    """A way to run a detector: pictures in, detections out."""

    implementation: str
    precision: str
    starts_at: str
    """What a call is given, and where: PICTURE, CANVAS, HOST_PICTURE, HOST_CANVAS."""

    def load(self, pictures: Sequence[PlacedPicture], threshold: float) -> None:
        """Bring a batch to where calls begin."""

    def run(self) -> Any:
        """Find the objects, and wait until they are in host memory."""

    def found(self, answer: Any) -> list[Detections]:
        """What `run` gave, in pixels of the pictures."""


@dataclass(frozen=True)
class Pictures:
    """Real pictures that share a canvas, placed on it."""

    placed: list[PlacedPicture]
    pixels: list[Pixels]

    def batch(self, size: int) -> list[PlacedPicture]:
        """So many, from the first on, again and again."""
        return [self.placed[index % len(self.placed)] for index in range(size)]

    def pixels_of(self, placed: Sequence[PlacedPicture]) -> list[Pixels]:
        """The pictures (H, W, 3) that those of a batch were placed from."""
        known = {id(one): pixels for one, pixels in zip(self.placed, self.pixels, strict=True)}
        return [known[id(one)] for one in placed]


@dataclass(frozen=True)
class Reference:
    """What the CPU finds in fp32 on the first pictures, and above which score it is compared."""

    found: list[Detections]
    threshold: float


def read_pictures(images: Path | None, rule: CanvasRule) -> Pictures:
    """Pictures of the commonest canvas of a rule, at most PICTURES.

    Of the default ones too few may share a canvas, as each bundled one has a size of its own: then
    all are stretched to the first one's size.
    """
    pixels = [open_picture(path) for path in find_pictures(images, SEEN)]
    found = commonest(pixels, rule)
    if images is None and len(found.placed) < CHECKED:
        found = commonest([stretched(one, pixels[0].shape) for one in pixels], rule)
    return found


def commonest(pictures: Sequence[Pixels], rule: CanvasRule) -> Pictures:
    """Those whose canvas most have."""
    groups: dict[tuple[int, ...], Pictures] = {}
    for pixels in pictures:
        placed = place_picture(pixels, rule)
        group = groups.setdefault(placed.canvas.shape, Pictures([], []))
        group.placed.append(placed)
        group.pixels.append(pixels)
        if len(group.placed) == PICTURES:
            return group
    return max(groups.values(), key=lambda group: len(group.placed))


def stretched(picture: Pixels, shape: tuple[int, ...]) -> Pixels:
    """As large as another one."""
    target = np.empty(shape, np.uint8)
    resize_into(target, picture, "linear")
    return target


def stacked(
    pictures: Sequence[PlacedPicture],
) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.int32]]:
    """Canvases (B, H, W, 3) and sizes (B, 2)."""
    return stack_pictures(pictures, None)


def in_pictures(
    raw: RawDetections, pictures: Sequence[PlacedPicture], manifest: Manifest
) -> list[Detections]:
    """What a graph returned for a batch, in pixels of the pictures."""
    return [to_detections(raw, row, placed, manifest) for row, placed in enumerate(pictures)]


def measure(
    runner: Runner, job: Job, pictures: Pictures, manifest: Manifest, **facts: Any
) -> Iterator[Row]:
    """A row for each batch size: what it takes, and how far it agrees with the CPU."""
    for batch in job.batches:
        check = check_batch(runner, job, pictures, manifest, batch)
        runner.load(pictures.batch(batch), manifest.score_threshold)
        times_ms = time_calls(runner.run, job.runs)
        yield {**row_of(runner, job, batch, times_ms), **facts, **check}


def check_batch(
    runner: Runner, job: Job, pictures: Pictures, manifest: Manifest, batch: int
) -> Row:
    """A row's `check`; null, and why in `unchecked`, where the CPU's detections are not there."""
    try:
        reference = read_reference(job)
    except (OSError, ValueError, KeyError, EOFError, BadZipFile) as error:
        return {"check": None, "unchecked": f"the CPU's detections cannot be read: {error}"[:500]}
    return {"check": check_detections(runner, reference, pictures, manifest, batch)}


def row_of(runner: Runner, job: Job, batch: int, times_ms: Sequence[float]) -> Row:
    """What was measured; no times: nothing was."""
    row: Row = {
        "kind": "row",
        "preset": job.preset,
        "implementation": runner.implementation,
        "precision": runner.precision,
        "starts_at": runner.starts_at,
        "batch": batch,
        "runs": len(times_ms),
        "ms": None,
        "images_per_s": None,
        "check": None,
    }
    if times_ms:
        median, p90, p99 = np.percentile(times_ms, [50, 90, 99])
        row["ms"] = {"median": round(median, 4), "p90": round(p90, 4), "p99": round(p99, 4)}
        row["images_per_s"] = round(1e3 * batch * len(times_ms) / sum(times_ms), 1)
    return row


def time_calls(call: Callable[[], Any], runs: int) -> list[float]:
    """Milliseconds of calls, each of which waits for its result."""
    begin = time.perf_counter()
    for _ in range(WARM_UPS):
        call()
        if time.perf_counter() - begin > LONGEST_S / 2:
            break
    times: list[float] = []
    begin = time.perf_counter()
    while len(times) < runs and (len(times) < FEWEST or time.perf_counter() - begin < LONGEST_S):
        start = time.perf_counter()
        call()
        times.append(1e3 * (time.perf_counter() - start))
    return times


def check_detections(
    runner: Runner, reference: Reference, pictures: Pictures, manifest: Manifest, batch: int
) -> Row:
    """Share of detections, the CPU's and a runner's, that the other has: same class, IoU >= 0.9.

    Those above the reference's threshold count. Both were asked for all above the lowest, so that
    none lacks a counterpart for the last bit of its score. Every place of a batch is looked at.
    """
    count = min(len(reference.found), len(pictures.placed))
    checked = Pictures(pictures.placed[:count], pictures.pixels[:count])
    rounds = -(-count // batch)
    order = checked.batch(rounds * batch)
    expected = [reference.found[index % count] for index in range(len(order))]
    agreements = []
    for start in range(0, len(order), batch):
        runner.load(order[start : start + batch], manifest.lowest_score_threshold)
        found = runner.found(runner.run())
        for one, other in zip(expected[start : start + batch], found, strict=True):
            agreements.append(agreement(one, other, reference.threshold))
    sums = [sum(column) for column in zip(*(one[:3] for one in agreements), strict=True)]
    counted = sums[0] + sums[1]
    return {
        "pictures": len(order),
        "expected": sums[0],
        "found": sums[1],
        "matched": round(sums[2] / counted, 5) if counted else None,
        "score": round(max(one[3] for one in agreements), 5),
    }


def agreement(
    expected: Detections, found: Detections, threshold: float
) -> tuple[int, int, int, float]:
    """Of one picture: detections above the threshold, of either side; how many of both together
    have a counterpart, which may lie below it; and the largest difference of a pair's scores.
    """
    pairs = match_detections(expected, found)
    ours, theirs = expected.scores > threshold, found.scores > threshold
    counted = [(i, j) for i, j in pairs if ours[i] or theirs[j]]
    apart = [abs(float(expected.scores[i] - found.scores[j])) for i, j in counted]
    common = sum(int(ours[i]) + int(theirs[j]) for i, j in counted)
    return int(ours.sum()), int(theirs.sum()), common, max(apart, default=0.0)


def match_detections(expected: Detections, found: Detections) -> list[tuple[int, int]]:
    """Pairs of indices, each detection in one at most, the best first."""
    overlap = pair_iou(expected.boxes, found.boxes)
    overlap[expected.class_ids[:, None] != found.class_ids[None, :]] = 0
    pairs = []
    for index, row in enumerate(overlap):
        best = int(row.argmax()) if row.size else -1
        if best >= 0 and row[best] >= MATCHED_IOU:
            pairs.append((index, best))
            overlap[:, best] = 0
    return pairs


def pair_iou(
    first: npt.NDArray[np.float32], second: npt.NDArray[np.float32]
) -> npt.NDArray[np.float32]:
    """(N, M) of boxes (N, 4) and (M, 4)."""
    low = np.maximum(first[:, None, :2], second[None, :, :2])
    high = np.minimum(first[:, None, 2:], second[None, :, 2:])
    common = np.prod(np.clip(high - low, 0, None), axis=2)
    areas = [np.prod(boxes[:, 2:] - boxes[:, :2], axis=1) for boxes in (first, second)]
    union = areas[0][:, None] + areas[1][None, :] - common
    return np.asarray(common / np.maximum(union, 1e-9))


def write_reference(job: Job, found: Sequence[Detections], threshold: float) -> None:
    """Keep the CPU's detections above the lowest threshold for other steps.

    Args:
        threshold: above which they are compared.
    """
    arrays = {}
    for index, one in enumerate(found):
        arrays |= {f"boxes{index}": one.boxes, f"scores{index}": one.scores}
        arrays |= {f"classes{index}": one.class_ids, f"size{index}": np.array(one.image_size)}
    np.savez(job.file("reference.npz"), count=len(found), threshold=threshold, **arrays)


def read_reference(job: Job) -> Reference:
    """What `write_reference` kept."""
    kept = np.load(job.file("reference.npz"))
    found = [
        Detections(
            boxes=kept[f"boxes{index}"],
            scores=kept[f"scores{index}"],
            class_ids=kept[f"classes{index}"],
            image_size=tuple(kept[f"size{index}"].tolist()),
            class_names=tuple(map(str, range(10_000))),
            dataset_ids=tuple(range(10_000)),
        )
        for index in range(int(kept["count"]))
    ]
    return Reference(found, float(kept["threshold"]))
