"""Sample pictures: ground truth at the left, detections at the right, the same ones each time."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from cn2.runtime.drawing import class_color
from cn2.trainer.build import build_detector
from cn2.trainer.data.coco import CocoDataset, load_coco
from cn2.trainer.distributed import Ranks
from cn2.trainer.validate import detect_all
from cn2.trainer.watch.samples import (
    GAP_PX,
    HEADING_PX,
    LONGEST_PX,
    choose_pictures,
    draw_samples,
)
from factories import coco_annotations, tiny_config, write_dataset

BOX = [20.0, 30.0, 40.0, 24.0]  # xywh


def dataset(
    folder: Path, sizes: list[tuple[int, int]], boxes: list[list[tuple[int, list[float]]]]
) -> CocoDataset:
    return load_coco(*write_dataset(folder, coco_annotations(sizes, boxes)))


def result(image_id: int, category: int, box: list[float], score: float) -> dict[str, Any]:
    return {"image_id": image_id, "category_id": category, "bbox": box, "score": score}


def frame(pixels: np.ndarray, color: tuple[int, int, int]) -> np.ndarray:
    """(n, 2) row and column of the pixels of a colour."""
    return np.argwhere((pixels == color).all(axis=2))


def test_truth_at_the_left_and_detections_at_the_right(tmp_path: Path) -> None:
    data = dataset(tmp_path, [(64, 96)], [[(3, BOX)]])
    found = [
        result(10, 7, [50.0, 40.0, 30.0, 20.0], 0.9),
        result(10, 1, [5.0, 5.0, 20.0, 20.0], 0.3),  # not above the threshold
        result(99, 1, [5.0, 5.0, 20.0, 20.0], 0.9),  # of another picture
    ]
    (sheet,) = draw_samples(data, found)
    assert sheet.dtype == np.uint8
    assert sheet.shape == (64 + HEADING_PX, 2 * 96 + GAP_PX, 3)
    assert (sheet[:HEADING_PX] == 0).any()  # headings
    left, right = sheet[HEADING_PX:, :96], sheet[HEADING_PX:, 96 + GAP_PX :]
    disc, box, star = (class_color(index) for index in range(3))
    lower = frame(left, box)
    assert lower[:, 0].max() == 30 + 24 - 1  # the box's lower side
    assert (lower[:, 1].min(), lower[:, 1].max()) == (20, 20 + 40 - 1)
    assert not len(frame(left, star))
    lower = frame(right, star)
    assert lower[:, 0].max() == 40 + 20 - 1
    assert not len(frame(right, box))
    assert not len(frame(right, disc))


def test_it_takes_what_a_detector_finds(tmp_path: Path) -> None:
    data = dataset(tmp_path, [(64, 96), (96, 64)], [[(3, BOX)], [(7, BOX)]])
    torch.manual_seed(0)
    results = detect_all(
        build_detector(tiny_config()), data, tiny_config(), Ranks(device=torch.device("cpu"))
    )
    best = max(row["score"] for row in results)
    blank, found = (draw_samples(data, results, score_threshold=t) for t in (best, 0.0))
    assert [pixels.shape[0] for pixels in found] == [64 + HEADING_PX, 96 + HEADING_PX]
    for nothing, something, width in zip(blank, found, (96, 64), strict=True):
        changed = (nothing != something).any(axis=2)[HEADING_PX:]
        assert not changed[:, : width + GAP_PX].any()  # the ground truth
        assert changed[:, width + GAP_PX :].sum() > 100


def test_boxes_follow_a_picture_that_is_made_smaller(tmp_path: Path) -> None:
    data = dataset(tmp_path, [(640, 1280)], [[(3, [200.0, 300.0, 400.0, 240.0])]])
    (sheet,) = draw_samples(data, [result(10, 3, [200.0, 300.0, 400.0, 240.0], 0.9)])
    assert sheet.shape == (320 + HEADING_PX, 2 * LONGEST_PX + GAP_PX, 3)
    for start in (0, LONGEST_PX + GAP_PX):
        lower = frame(sheet[HEADING_PX:, start : start + LONGEST_PX], class_color(1))
        assert lower[:, 0].max() == 150 + 120 - 1
        assert (lower[:, 1].min(), lower[:, 1].max()) == (100, 300 - 1)


def test_a_small_picture_keeps_its_pixels(tmp_path: Path) -> None:
    data = dataset(tmp_path, [(50, 80)], [[]])
    (sheet,) = draw_samples(data, [])
    left, right = sheet[HEADING_PX:, :80], sheet[HEADING_PX:, 80 + GAP_PX :]
    np.testing.assert_array_equal(left, right)
    assert left.std() > 10


@pytest.mark.parametrize(
    ("objects", "count", "expected"),
    [
        ([1, 1, 1, 1, 1, 1, 1, 1], 4, [10, 12, 14, 16]),  # spread
        ([0, 1, 0, 1, 1], 4, [11, 13, 14]),  # those with objects
        ([0, 0, 0], 2, [10, 11]),  # none has any
        ([1], 4, [10]),
        ([1, 1], 0, []),
    ],
)
def test_which_pictures(
    tmp_path: Path, objects: list[int], count: int, expected: list[int]
) -> None:
    data = dataset(
        tmp_path, [(32, 48)] * len(objects), [[(1, [4.0, 4.0, 9.0, 9.0])] * n for n in objects]
    )
    assert [p.image_id for p in choose_pictures(data, count)] == expected
    assert len(draw_samples(data, [], count=count)) == len(expected)


def test_a_picture_that_cannot_be_read_is_left_out(tmp_path: Path) -> None:
    data = dataset(tmp_path, [(64, 96), (50, 80)], [[(1, BOX)], [(1, [4.0, 4.0, 9.0, 9.0])]])
    data.pictures[0].path.write_bytes(b"torn")
    (sheet,) = draw_samples(data, [])
    assert sheet.shape[0] == 50 + HEADING_PX
