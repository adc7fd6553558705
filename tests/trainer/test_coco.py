"""COCO files: what becomes a target, what is clipped or dropped, and what is refused."""

import json
import logging
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cn2.runtime.errors import AnnotationError
from cn2.trainer.data.coco import load_coco
from factories import coco_annotations, write_dataset


def load(folder: Path, annotations: dict[str, Any], ids: tuple[int, ...] | None = None) -> Any:
    return load_coco(*write_dataset(folder, annotations), ids)


def one_picture(*boxes: tuple[int, list[float]]) -> dict[str, Any]:
    return coco_annotations([(64, 96)], [list(boxes)])


def test_boxes_become_corners_and_categories_become_indices(tmp_path: Path) -> None:
    annotations = coco_annotations(
        [(64, 96), (40, 30)], [[(7, [1.5, 2.0, 10.0, 20.0]), (1, [0.0, 0.0, 96.0, 64.0])], []]
    )
    data = load(tmp_path, annotations)
    assert data.class_names == ("disc", "box", "star")
    assert data.category_ids == (1, 3, 7)
    first, empty = data.pictures
    np.testing.assert_array_equal(first.boxes, [[1.5, 2.0, 11.5, 22.0], [0, 0, 96, 64]])
    np.testing.assert_array_equal(first.classes, [2, 0])
    assert (first.height, first.width, first.image_id) == (64, 96, 10)
    assert first.boxes.dtype == np.float32
    assert empty.boxes.shape == (0, 4)
    assert empty.classes.shape == (0,)


def test_crowds_are_no_target_but_stay_for_the_evaluation(tmp_path: Path) -> None:
    annotations = one_picture((1, [0.0, 0.0, 50.0, 50.0]), (3, [5.0, 5.0, 9.0, 9.0]))
    annotations["annotations"][0]["iscrowd"] = 1
    data = load(tmp_path, annotations)
    np.testing.assert_array_equal(data.pictures[0].boxes, [[5, 5, 14, 14]])
    assert [row["iscrowd"] for row in data.annotations["annotations"]] == [1, 0]


@pytest.mark.parametrize(
    ("box", "kept"),
    [
        ([-5.0, -5.0, 20.0, 20.0], [0, 0, 15, 15]),  # over the top left corner
        ([90.0, 60.0, 20.0, 20.0], [90, 60, 96, 64]),  # over the bottom right corner
        ([-5.0, -5.0, 200.0, 200.0], [0, 0, 96, 64]),  # larger than the picture
        ([96.0, 10.0, 5.0, 5.0], None),  # beside the picture, touching it
        ([-20.0, 10.0, 5.0, 5.0], None),  # far outside
        ([10.0, 10.0, 0.0, 5.0], None),  # no width
    ],
)
def test_boxes_outside_are_clipped_or_dropped_with_one_warning(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, box: list[float], kept: list[float] | None
) -> None:
    fine = (3, [1.0, 1.0, 4.0, 4.0])
    data = load(tmp_path, one_picture((1, box), fine, (1, box)))
    expected = [[1, 1, 5, 5]] if kept is None else [kept, [1, 1, 5, 5], kept]
    np.testing.assert_array_equal(data.pictures[0].boxes, expected)
    assert len(caplog.records) == 1
    assert caplog.records[0].levelno == logging.WARNING
    assert f"{2 if kept is None else 0} had no area left" in caplog.text


def test_rounding_at_the_border_is_no_mistake(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    load(tmp_path, one_picture((1, [86.0, 54.0, 10.005, 10.005])))
    assert not caplog.records


def spoil(annotations: dict[str, Any], kind: str, **values: Any) -> dict[str, Any]:
    annotations[kind][-1].update(values)
    return annotations


@pytest.mark.parametrize(
    ("kind", "values", "words"),
    [
        ("annotations", {"category_id": 99}, ["annotation 101", "99", "category_id"]),
        ("annotations", {"image_id": 5}, ["annotation 101", "image_id 5"]),
        ("annotations", {"id": 100}, ["annotation id 100", "twice"]),
        ("annotations", {"bbox": [1, 2, 3]}, ["annotation 101", "[1, 2, 3]"]),
        ("annotations", {"bbox": [1, 2, float("nan"), 4]}, ["annotation 101", "nan"]),
        ("images", {"file_name": "gone.png"}, ["image 10", "gone.png"]),
        ("images", {"height": None}, ["image 10", "height"]),
        ("images", {"width": 0}, ["image 10", "width"]),
        ("categories", {"id": 1}, ["category id 1", "twice"]),
    ],
)
def test_mistakes_are_named_with_file_and_id(
    tmp_path: Path, kind: str, values: dict[str, Any], words: list[str]
) -> None:
    annotations = one_picture((1, [1.0, 1.0, 4.0, 4.0]), (3, [1.0, 1.0, 4.0, 4.0]))
    path, pictures = write_dataset(tmp_path, annotations)
    path.write_text(json.dumps(spoil(annotations, kind, **values)))
    with pytest.raises(AnnotationError) as caught:
        load_coco(path, pictures)
    message = str(caught.value)
    assert "\n" not in message
    for word in [str(path), *words]:
        assert word in message


def test_duplicate_images_are_named(tmp_path: Path) -> None:
    annotations = coco_annotations([(64, 96), (64, 96)], [[], []])
    path, pictures = write_dataset(tmp_path, annotations)
    path.write_text(json.dumps(spoil(annotations, "images", id=10)))
    with pytest.raises(AnnotationError, match="image id 10 occurs twice"):
        load_coco(path, pictures)


def test_no_pictures_no_file_no_json(tmp_path: Path) -> None:
    empty = {"images": [], "annotations": [], "categories": [{"id": 1, "name": "disc"}]}
    with pytest.raises(AnnotationError, match="expected images"):
        load(tmp_path, empty)
    with pytest.raises(AnnotationError, match=r"missing\.json"):
        load_coco(tmp_path / "missing.json", tmp_path)
    torn = tmp_path / "torn.json"
    torn.write_text('{"images": [')
    with pytest.raises(AnnotationError, match=r"torn\.json"):
        load_coco(torn, tmp_path)


def test_validation_uses_the_classes_of_the_training(tmp_path: Path) -> None:
    annotations = one_picture((7, [1.0, 1.0, 4.0, 4.0]))
    data = load(tmp_path, annotations, (7, 1, 20))  # in the detector's order, one unknown here
    np.testing.assert_array_equal(data.pictures[0].classes, [0])
    assert data.category_ids == (7, 1, 20)
    with pytest.raises(AnnotationError, match=r"annotation 100: class 'star'"):
        load(tmp_path, annotations, (1, 3))
