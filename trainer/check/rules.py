"""What is looked for: each rule reads a scanned set, or all, and adds its findings."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ..config import Config
from ..data.coco import MARGIN_PX
from .files import PictureFile, decode_some, same_bytes
from .findings import Findings, shares, shorten
from .scan import SetScan, annotated_size

TINY_PX = 4.0  # at the training size: half a cell of the finest level, stride 8
RARE = 10  # objects of a class in training, below which little can be learned of it


def check_pictures(scan: SetScan, found: Findings, seconds: float) -> int:
    """Files that are missing, broken, or of another size; how many were decoded."""
    missing = [file for file in scan.files if not file.bytes]
    broken = [file for file in scan.files if file.bytes and file.size is None]
    _add_files(found, "missing", scan, "picture is not there", missing)
    _add_files(found, "broken", scan, "file is no picture; training leaves it out", broken)
    readable = [file.path for file in scan.files if file.size is not None]
    decoded, torn = decode_some(readable, seconds)
    what = "picture cannot be decoded; training leaves it out"
    found.add("error", "undecodable", scan.name, f"{what} ({decoded} were tried)", torn)
    no_size = [scan.place(i) for i, image in enumerate(scan.images) if not annotated_size(image)]
    found.add(
        "error", "no-size", scan.name, "image without `height` and `width` in pixels", no_size
    )
    pairs = zip(scan.images, scan.files, strict=True)
    wrong = [
        f"{scan.place(index)}: {_size(annotated_size(image))} annotated, {_size(file.size)} in file"
        for index, (image, file) in enumerate(pairs)
        if file.size and annotated_size(image) and annotated_size(image) != file.size
    ]
    what = "annotated size is not the file's; was the picture rotated or replaced?"
    found.add("error", "size", scan.name, what, wrong)
    if not scan.images:
        found.add("error", "no-picture", scan.name, "set without any picture", [str(scan.source)])
    return decoded


def _add_files(
    found: Findings, kind: str, scan: SetScan, what: str, files: Sequence[PictureFile]
) -> None:
    found.add("error", kind, scan.name, what, [file.error for file in files])


def _size(size: tuple[int, int] | None) -> str:
    return "no size" if size is None else f"{size[1]}x{size[0]}"


def check_boxes(scan: SetScan, found: Findings) -> None:
    """Boxes that reach outside, have no area, or are there twice."""
    objects = scan.objects
    empty: NDArray[np.bool_] = np.any(objects.boxes[:, 2:] <= objects.boxes[:, :2], axis=1)
    moved: NDArray[np.bool_] = np.any(np.abs(objects.boxes - objects.annotated) > MARGIN_PX, axis=1)
    what = "box reaches out of its picture and is clipped"
    found.add("warning", "outside", scan.name, what, _boxes(scan, moved & ~empty))
    what = "box without area, or wholly outside, is dropped"
    found.add("warning", "degenerate", scan.name, what, _boxes(scan, empty))
    keys = np.column_stack([objects.owners, objects.categories, objects.annotated])
    _, first = np.unique(keys, axis=0, return_index=True)
    again = np.ones(len(keys), bool)
    again[first] = False
    what = "box repeats another one of the same picture and class"
    found.add("warning", "same-box", scan.name, what, _boxes(scan, again))


def _boxes(scan: SetScan, rows: NDArray[np.bool_]) -> list[str]:
    """A line for each chosen object."""
    objects = scan.objects
    return [
        f"annotation {objects.ids[row]}, {scan.place(objects.owners[row])}: "
        f"{scan.classes[objects.categories[row]]} "
        f"[{', '.join(f'{v:g}' for v in objects.annotated[row])}]"
        for row in np.flatnonzero(rows)
    ]


def check_sizes(scan: SetScan, config: Config, found: Findings) -> None:
    """Objects lost at the training size, and pictures of more objects than can be found."""
    objects = scan.objects
    sides = objects.scaled
    there = (sides > 0).all(axis=1)
    tiny = there & (sides.min(axis=1, initial=np.inf) < TINY_PX)
    what = (
        f"{shares(int(tiny.sum()), len(tiny))} objects are narrower than {TINY_PX:g} px at the "
        "training size and hardly learned"
    )
    found.add("warning", "tiny", scan.name, what, _boxes(scan, tiny))
    halves = np.sqrt((sides.astype(np.float64) ** 2).sum(axis=1)) / 2  # as the targets measure
    levels = np.array(getattr(config.model.first_stage, "sizes_of_interest", [[0, np.inf]]))
    on_level = (halves[:, None] >= levels[:, 0]) & (halves[:, None] <= levels[:, 1])
    lost = there & ~on_level.any(axis=1)
    what = "object has a size at the training size that no pyramid level answers for"
    found.add("warning", "no-level", scan.name, what, _boxes(scan, lost))
    limit = _object_limit(config)
    counts = np.bincount(objects.owners, minlength=len(scan.images))
    full = [
        f"{scan.place(i)}: {counts[i]} objects" for i in np.flatnonzero(counts > limit).tolist()
    ]
    what = f"picture has more objects than the detector can find, {limit}; raise " + " and ".join(
        _limiting_settings(config)
    )
    found.add("warning", "crowded", scan.name, what, full)
    empty = [scan.place(index) for index in np.flatnonzero(counts == 0).tolist()]
    found.add("note", "no-object", scan.name, "picture without objects", empty)
    crowds = "crowd region (or VOC's difficult): no target, ignored in the metrics"
    found.add("note", "crowd", scan.name, crowds, [], scan.crowds)


def _object_limit(config: Config) -> int:
    return min(config.model.first_stage.test_filter.post_nms, config.model.limits.detections)


def _limiting_settings(config: Config) -> list[str]:
    """The settings that `_object_limit` is the smallest of."""
    second = [] if config.model.second_stage is None else ["model.second_stage.detections"]
    return ["model.first_stage.test_filter.post_nms", *second]


def check_classes(trains: Sequence[SetScan], val: SetScan | None, found: Findings) -> None:
    """Classes that are rare, missing, or written in two ways; by name over all training sets."""
    learned = count_by_name(trains)
    unused = [name for name, count in learned.items() if not count]
    found.add("warning", "unused-class", "train", "class without any object", unused)
    rare = [f"{name}: {n} objects" for name, n in learned.items() if 0 < n < RARE]
    found.add("warning", "rare-class", "train", f"class of fewer than {RARE} objects", rare)
    scored = count_by_name([val] if val else [])
    unknown = [f"{name}: {n} objects" for name, n in scored.items() if n and name not in learned]
    if trains:
        what = "class that training does not know; training refuses this"
        found.add("error", "unknown-class", "val", what, unknown)
    never = [f"{name}: {n} objects" for name, n in scored.items() if n and learned.get(name) == 0]
    found.add("warning", "unlearned-class", "val", "class that training has no object of", never)
    unscored = [name for name, count in learned.items() if count and not scored.get(name)]
    if val is not None:
        found.add("note", "unscored-class", "val", "class without any object to score", unscored)
    spellings: dict[str, set[str]] = defaultdict(set)
    for name in [*learned, *scored]:
        spellings["".join(name.casefold().split())].add(name)
    alike = [" / ".join(sorted(names)) for names in spellings.values() if len(names) > 1]
    what = "class names that differ in capitals or spaces alone; one class, or two?"
    found.add("warning", "alike-classes", "train", what, alike)


def count_by_name(scans: Sequence[SetScan]) -> Counter[str]:
    """Objects of each class; classes without any are in it."""
    counts: Counter[str] = Counter()
    for scan in scans:
        own = Counter(scan.objects.categories.tolist())
        for identity, name in scan.classes.items():
            counts[name] += own[identity]
    return counts


def check_copies(trains: Sequence[SetScan], val: SetScan | None, found: Findings) -> None:
    """Pictures that are there twice, and those in training and validation both."""
    places: dict[Path, list[str]] = defaultdict(list)
    for scan in [*trains, *([val] if val else [])]:
        for file in scan.files:
            if file.bytes:
                places[file.path.resolve()].append(scan.name)
    groups = same_bytes(places)
    copied = {path for group in groups for path in group}
    groups += [[p] for p, names in places.items() if len(names) > 1 and p not in copied]
    for name in dict.fromkeys(name for names in places.values() for name in names):
        twice = [g for g in groups if sum(places[path].count(name) for path in g) > 1]
        found.add("warning", "duplicate", name, "the same picture twice", _groups(twice))
    leaks = [
        group
        for group in groups
        if "val" in (names := [n for path in group for n in places[path]])
        and any(name != "val" for name in names)
    ]
    what = "picture is in training too: its score says nothing about new pictures"
    found.add("warning", "leak", "val", what, _groups(leaks))


def _groups(groups: Sequence[Sequence[Path]]) -> list[str]:
    return [shorten([str(path) for path in group], 3) for group in groups]
