"""Scenes as a COCO data set on disk: JPEG pictures and annotations.json in one folder.

Seeds: training scenes are 0 .. 10^9 - 1, held-out ones start at 10^9; no scene is ever in both.
"""

import json
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from multiprocessing import get_context
from os import cpu_count
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from cn2.runtime.errors import OutputError

from .compose import SceneObject, compose_scene
from .shapes import CLASS_NAMES

HELD_OUT_SEED = 1_000_000_000
JPEG_QUALITY = (70, 95)
ANNOTATIONS_FILE = "annotations.json"
SCENES_PER_JOB = 16

Record = tuple[int, int, int, list[SceneObject]]  # seed, height, width, objects


def write_scenes(
    folder: Path,
    count: int,
    seed: int,
    *,
    held_out: bool = False,
    processes: int | None = None,
    report: Callable[[int], None] | None = None,
) -> Path:
    """Write `count` scenes of consecutive seeds as JPEG files with COCO annotations.

    Args:
        folder: made where it does not exist; files of the same names are replaced.
        count: pictures, at least 1.
        seed: of the first scene; scene i has the seed `seed + i`.
        held_out: take the seeds from HELD_OUT_SEED on, which no training set contains.
        processes: default one per core; 1 stays in this process.
        report: called with the number of scenes written so far.
    Returns:
        The annotations file.
    Raises:
        ValueError: count or seed out of range.
        OutputError: the folder cannot be written.
    """
    seeds = scene_seeds(count, seed, held_out=held_out)
    return write_seeds(folder, seeds, processes=processes, report=report)


def write_seeds(
    folder: Path,
    seeds: Sequence[int],
    *,
    processes: int | None = None,
    report: Callable[[int], None] | None = None,
) -> Path:
    """As `write_scenes`, for seeds in any order; image ids follow that order."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        records = []
        for record in _write_pictures(folder, seeds, processes or cpu_count() or 1):
            records.append(record)
            if report is not None:
                report(len(records))
        path = folder / ANNOTATIONS_FILE
        path.write_text(json.dumps(coco_annotations(records)), encoding="utf-8")
    except OSError as error:
        reason = error.strerror or error
        raise OutputError(f"{folder}: cannot write scenes ({reason}); choose another") from error
    return path


def scene_seeds(count: int, seed: int, *, held_out: bool) -> range:
    """The seeds of a set; all in the training range or all in the held-out range."""
    if count < 1:
        raise ValueError(f"count: expected at least 1 scene, got {count}")
    if seed < 0 or seed + count > HELD_OUT_SEED:
        raise ValueError(
            f"seed: expected 0 to {HELD_OUT_SEED - count} for {count} scenes, got {seed}; "
            "held-out scenes have a flag, not a seed of their own"
        )
    start = seed + (HELD_OUT_SEED if held_out else 0)
    return range(start, start + count)


def file_name(seed: int) -> str:
    """The picture's name in its folder."""
    return f"scene_{seed:010d}.jpg"


def write_picture(folder: Path, seed: int) -> Record:
    """Render one scene and write its JPEG, whose quality belongs to the seed too."""
    scene = compose_scene(seed)
    quality = int(np.random.default_rng((seed, 1)).integers(*JPEG_QUALITY, endpoint=True))
    bgr = cv2.cvtColor(scene.picture, cv2.COLOR_RGB2BGR)
    done, data = cv2.imencode(".jpg", bgr, [cv2.IMWRITE_JPEG_QUALITY, quality])
    if not done:
        raise OutputError(f"{file_name(seed)}: OpenCV could not encode a JPEG; report the seed")
    (folder / file_name(seed)).write_bytes(data.tobytes())
    height, width = scene.picture.shape[:2]
    return seed, height, width, scene.objects


def _write_pictures(folder: Path, seeds: Sequence[int], processes: int) -> Iterable[Record]:
    write = partial(write_picture, folder)
    if processes == 1:
        yield from map(write, seeds)
        return
    # spawn: a fork of a process that holds threads (torch, OpenCV) may hang
    with ProcessPoolExecutor(
        processes, mp_context=get_context("spawn"), initializer=cv2.setNumThreads, initargs=(1,)
    ) as pool:
        yield from pool.map(write, seeds, chunksize=SCENES_PER_JOB)


def coco_annotations(records: Iterable[Record]) -> dict[str, Any]:
    """COCO ground truth of written scenes; category ids start at 1, image ids are 1, 2, ..."""
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    for image_id, (seed, height, width, objects) in enumerate(records, start=1):
        name = file_name(seed)
        images.append({"id": image_id, "file_name": name, "height": height, "width": width})
        for item in objects:
            annotations.append(_annotation(len(annotations) + 1, image_id, item))
    categories = [{"id": i, "name": name} for i, name in enumerate(CLASS_NAMES, start=1)]
    info = {"description": "cn2 synthetic scenes"}
    return {"info": info, "images": images, "annotations": annotations, "categories": categories}


def _annotation(annotation_id: int, image_id: int, item: SceneObject) -> dict[str, Any]:
    x1, y1, x2, y2 = item.box
    return {
        "id": annotation_id,
        "image_id": image_id,
        "category_id": item.class_id + 1,
        "bbox": [x1, y1, x2 - x1, y2 - y1],
        "area": item.visible_pixels,
        "iscrowd": 0,
        "segmentation": [],
    }
