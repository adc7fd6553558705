"""Detections: their tables, their slices, their other forms, how they are drawn."""

from __future__ import annotations

import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from cn2.runtime.detections import Detections
from cn2.runtime.drawing import class_color, draw_detections
from cn2.runtime.errors import DependencyError

BOXES = [[10.0, 20.0, 40.5, 60.0], [0.0, 0.0, 100.0, 80.0], [90.0, 70.0, 100.0, 80.0]]


def make_detections(
    boxes: list[list[float]], size: tuple[int, int] = (80, 100), **changes: Any
) -> Detections:
    count = len(boxes)
    values: dict[str, Any] = {
        "boxes": np.array(boxes, np.float32).reshape(count, 4),
        "scores": np.linspace(0.9, 0.5, count, dtype=np.float32),
        "class_ids": np.arange(count) % 3,
        "image_size": size,
        "class_names": ("cup", "dog", "größe"),
        "dataset_ids": (1, 18, 90),
    }
    return Detections(**{**values, **changes})


def test_tables() -> None:
    found = make_detections(BOXES)
    assert len(found) == 3
    assert found.labels == ["cup", "dog", "größe"]
    assert found.category_ids.tolist() == [1, 18, 90]
    assert repr(found) == "<Detections: 3 (cup 0.90, dog 0.70, größe 0.50)>"


def test_nothing_found() -> None:
    found = make_detections([])
    assert (len(found), found.labels, found.to_coco(1), list(found)) == (0, [], [], [])
    assert found.category_ids.shape == (0,)
    assert repr(found) == "<Detections: 0>"
    assert len(found.filter(score_threshold=0.5)) == 0


def test_slices_masks_and_indices() -> None:
    found = make_detections(BOXES)
    assert found[1:].labels == ["dog", "größe"]
    assert found[found.scores > 0.6].labels == ["cup", "dog"]
    assert found[[2, 0]].labels == ["größe", "cup"]
    assert found[:0].image_size == (80, 100)
    assert [row.labels for row in found] == [["cup"], ["dog"], ["größe"]]
    with pytest.raises(TypeError, match=r"got 1; one row is found\[i : i \+ 1\]"):
        found[1]  # type: ignore[index]


def test_filter() -> None:
    found = make_detections(BOXES)
    assert found.filter(score_threshold=0.7).labels == ["cup"]  # above, not at
    assert found.filter(labels=["dog", "größe"]).labels == ["dog", "größe"]
    assert found.filter(score_threshold=0.6, labels=["größe"]).labels == []
    with pytest.raises(ValueError, match="expected the model's class names, got 'cat'"):
        found.filter(labels=["cup", "cat"])


def test_coco_results() -> None:
    results = make_detections(BOXES).to_coco(image_id=7)
    assert results[0] == {
        "image_id": 7,
        "category_id": 1,
        "bbox": [10.0, 20.0, 30.5, 40.0],
        "score": pytest.approx(0.9),
    }
    assert [type(value) for value in results[1].values()] == [int, int, list, float]


def test_shapes_are_checked() -> None:
    with pytest.raises(ValueError, match=r"got \(1, 4\), \(3,\), \(3,\)"):
        make_detections(BOXES[:1], scores=np.ones(3), class_ids=np.zeros(3, int))


def test_supervision(monkeypatch: pytest.MonkeyPatch) -> None:
    fake = SimpleNamespace(Detections=lambda **values: values)
    monkeypatch.setitem(sys.modules, "supervision", fake)
    values = make_detections(BOXES).to_supervision()
    np.testing.assert_array_equal(values["xyxy"], np.array(BOXES, np.float32))
    np.testing.assert_array_equal(values["class_id"], [0, 1, 2])
    assert values["confidence"].shape == (3,)
    assert values["data"]["class_name"].tolist() == ["cup", "dog", "größe"]


def test_real_supervision() -> None:
    supervision = pytest.importorskip("supervision")
    for boxes in (BOXES, []):
        found = make_detections(boxes).to_supervision()
        assert isinstance(found, supervision.Detections)
        assert len(found) == len(boxes)


def test_missing_supervision(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "supervision", None)
    with pytest.raises(DependencyError, match="pip install supervision"):
        make_detections(BOXES).to_supervision()


GREY = np.full((80, 100, 3), 128, np.uint8)


def test_labels_without_scores_are_shorter() -> None:
    found = make_detections([[30.0, 40.0, 50.0, 70.0]])
    color = class_color(int(found.class_ids[0]))
    pictures = [draw_detections(GREY, found), draw_detections(GREY, found, scores=False)]
    filled = [(drawn[:38] == color).all(axis=2).sum() for drawn in pictures]
    assert filled[1] < 0.8 * filled[0]
    np.testing.assert_array_equal(pictures[0][40:], pictures[1][40:])


def test_drawing_marks_the_box_and_leaves_the_rest() -> None:
    found = make_detections([[30.0, 40.0, 70.0, 70.0]])
    drawn = found.draw(GREY)
    assert (GREY == 128).all()  # the caller's picture stays
    color = np.array(class_color(0))
    for row, column in [(40, 30), (69, 69), (55, 30), (69, 50)]:  # corners and sides
        np.testing.assert_array_equal(drawn[row, column], color)
    assert (drawn[45:65, 35:65] == 128).all()  # inside
    assert (drawn[71:] == 128).all()  # below
    assert (drawn[20:40, 30:60] != 128).any()  # the label above


@pytest.mark.parametrize(
    ("box", "rows"),
    [
        ([20.0, 40.0, 60.0, 70.0], slice(20, 40)),  # room above: the label is there
        ([20.0, 0.0, 60.0, 70.0], slice(0, 20)),  # at the top border: inside
        ([20.0, 2.0, 60.0, 10.0], slice(10, 30)),  # flat, at the top: inside or below
    ],
)
def test_labels_flip_at_the_top_border(box: list[float], rows: slice) -> None:
    drawn = make_detections([box]).draw(GREY)
    color = np.array(class_color(0))
    assert (drawn[rows] == color).all(axis=2).sum() > 100


def test_label_at_the_right_border_stays_inside() -> None:
    """A label that would hang over the right border is moved left until all of it shows."""
    free = make_detections([[30.0, 40.0, 50.0, 70.0]]).draw(GREY)
    border = make_detections([[80.0, 40.0, 100.0, 70.0]]).draw(GREY)
    color = np.array(class_color(0))
    labels = [(drawn[:38] == color).all(axis=2).sum() for drawn in (free, border)]
    assert labels[0] == labels[1] > 100


def test_labels_of_crowded_boxes_do_not_hide_each_other() -> None:
    """Six boxes of one place, a class each: of every label as much is seen as of one alone."""
    size = (200, 200)
    found = make_detections(
        [[80.0, 90.0, 120.0, 110.0]] * 6,
        size,
        class_ids=np.arange(6),
        class_names=tuple("abcdef"),
        dataset_ids=tuple(range(6)),
    )
    picture = np.full((*size, 3), 128, np.uint8)
    drawn = found.draw(picture)
    for row in range(6):
        color, alone = class_color(row), found[[row]].draw(picture)
        label = (alone == color).all(axis=2)
        label[90:110, 80:120] = False  # without the box
        assert (drawn == color).all(axis=2).sum() >= label.sum() > 100


@pytest.mark.parametrize("size", [(1, 1), (1, 300), (300, 1), (40, 40), (600, 200)])
def test_any_picture_size_can_be_drawn_on(size: tuple[int, int]) -> None:
    height, width = size
    boxes = [[0.0, 0.0, width, height], [width / 2, height / 2, width, height]]
    drawn = make_detections(boxes, size).draw(np.zeros((*size, 3), np.uint8))
    assert drawn.shape == (*size, 3)
    assert drawn.any()


def test_hundred_boxes_and_none() -> None:
    rng = np.random.default_rng(0)
    corners = np.sort(rng.uniform(0, [[100, 80]], (100, 2, 2)), axis=1).reshape(100, 4)
    assert (make_detections(corners.tolist()).draw(GREY) != 128).mean() > 0.5
    np.testing.assert_array_equal(make_detections([]).draw(GREY), GREY)


def test_best_detection_lies_on_top() -> None:
    same = [[20.0, 30.0, 60.0, 60.0]] * 2
    drawn = make_detections(same).draw(GREY)
    np.testing.assert_array_equal(drawn[59, 40], class_color(0))


def test_colors_of_neighbouring_classes_are_far_apart() -> None:
    colors = np.array([class_color(index) for index in range(12)])
    gaps = np.abs(colors[:, None] - colors[None]).sum(axis=2) + 1000 * np.eye(12, dtype=int)
    assert gaps.min() > 60
    assert class_color(5) == class_color(5)


def test_draw_on_a_file_and_on_another_picture(tmp_path: Path) -> None:
    from PIL import Image

    Image.fromarray(GREY).save(tmp_path / "a.png")
    found = make_detections(BOXES)
    np.testing.assert_array_equal(found.draw(tmp_path / "a.png"), found.draw(GREY))
    with pytest.raises(ValueError, match=r"\(80, 100\) that was searched, got \(10, 100\)"):
        found.draw(GREY[:10])
