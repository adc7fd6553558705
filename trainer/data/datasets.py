"""Data sets by path, in any format, one or several joined: sources in, one `CocoDataset` out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from cn2.runtime.evaluation import (
    AnnotatedPictures,
    is_federated,
    match_classes,
    names_its_pictures,
    read_annotations,
)

from .coco import CocoDataset, Picture, Record, build_dataset


@dataclass(frozen=True, kw_only=True)
class DataSource:
    """Where one annotated set lies."""

    annotations: Path  # COCO JSON, YOLO data.yaml or folder, Pascal VOC folder or list
    images: Path | None = None  # folder of its pictures; None: where the format says
    split: str = "train"  # of a format that names several

    def __str__(self) -> str:
        return str(self.annotations)


def pair_sources(
    annotations: Sequence[Path], images: Sequence[Path], *, split: str, option: str
) -> tuple[DataSource, ...]:
    """Each annotation path with its folder of pictures.

    Args:
        images: none; or one for all, or one each, of those sets whose format leaves it open.
        option: of the command line, for messages: "--train".
    Raises:
        ValueError: another number of folders.
    """
    open_ones = [path for path in annotations if not names_its_pictures(path)]
    if len(images) not in {0, min(1, len(open_ones)), len(open_ones)}:
        raise ValueError(
            f"{option}-images: expected one folder, or one for each of the {len(open_ones)} "
            f"{option} that name no pictures themselves, in their order, got {len(images)}"
        )
    folders = iter(images if len(images) != 1 else [images[0]] * len(open_ones))
    return tuple(
        DataSource(
            annotations=path,
            images=None if names_its_pictures(path) else next(folders, None),
            split=split,
        )
        for path in annotations
    )


def load_dataset(
    sources: Sequence[DataSource], classes: Mapping[int, str] | None = None
) -> CocoDataset:
    """Read, check and join annotated sets.

    Classes are matched by their names. The first set's category ids stay; a class that only a later
    set has gets a fresh id. Ids of pictures and annotations stay in the first set and count on from
    there in the others; complaints are made before, and name each file's own.

    Args:
        sources: at least one.
        classes: category id -> name of the detector, in its order, as `CocoDataset.classes`; None:
            those of the sets.
    Raises:
        AnnotationError: what `read_annotations` and `load_coco` refuse; an annotation of a class
            that is none of `classes`.
        DependencyError: a data.yaml without PyYAML.
    """
    sets = [read_annotations(s.annotations, s.images, split=s.split) for s in sources]
    known = dict(classes) if classes is not None else classes_of(sets[0])
    joined = join_classes(sets, known)
    if classes is not None:
        joined = known  # annotations of any other class are refused below
    parts = [
        build_dataset(part.content, part.folder, source.annotations, joined)
        for part, source in zip(sets, sources, strict=True)
    ]
    return parts[0] if len(parts) == 1 else _join(parts, joined)


def classes_of(part: AnnotatedPictures) -> dict[int, str]:
    """Category id -> name, ids ascending."""
    names = {category["id"]: str(category["name"]) for category in part.content["categories"]}
    return dict(sorted(names.items()))


def join_classes(sets: Sequence[AnnotatedPictures], known: Mapping[int, str]) -> dict[int, str]:
    """Bring all sets' category ids under one numbering; `known` with what they add."""
    joined = dict(known)
    for part in sets:
        joined = match_classes(part.content, joined)
    return joined


def _join(parts: Sequence[CocoDataset], classes: Mapping[int, str]) -> CocoDataset:
    images: list[Record] = []
    annotations: list[Record] = []
    pictures: list[Picture] = []
    for part in parts:
        content = part.annotations
        new_ids = _free_ids(content["images"], images)
        images += [{**image, "id": new_ids[image["id"]]} for image in content["images"]]
        pictures += [replace(p, image_id=new_ids[p.image_id]) for p in part.pictures]
        own_ids = _free_ids(content["annotations"], annotations)
        for row in content["annotations"]:
            row.update(id=own_ids[row["id"]], image_id=new_ids[row["image_id"]])
        annotations += content["annotations"]
    return CocoDataset(
        annotations={
            "images": images,
            "annotations": annotations,
            "categories": _join_categories(parts, classes),
        },
        pictures=pictures,
        class_names=tuple(classes.values()),
        category_ids=tuple(classes),
    )


def _join_categories(parts: Sequence[CocoDataset], classes: Mapping[int, str]) -> list[Record]:
    """With LVIS's frequencies where all sets are LVIS's; else all of them are scored as COCO's."""
    frequencies: dict[int, Record] = {}
    if all(is_federated(part.annotations) for part in parts):
        known = [category for part in parts for category in part.annotations["categories"]]
        frequencies = {c["id"]: {"frequency": c["frequency"]} for c in reversed(known)}
    return [
        {"id": identity, "name": name, **frequencies.get(identity, {})}
        for identity, name in classes.items()
        if identity in frequencies or not frequencies
    ]


def _free_ids(records: list[Record], taken: list[Record]) -> dict[int, int]:
    """Own id -> id in the joined set: the own one in the first, above all in later ones."""
    if not taken:
        return {record["id"]: record["id"] for record in records}
    first = max(record["id"] for record in taken) + 1
    return {record["id"]: first + position for position, record in enumerate(records)}
