"""The LVIS metrics: equal to the lvis package, on federated ground truth of every kind."""

from __future__ import annotations

import copy
import importlib.util
import json
import logging
import os
import sys
import types
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cn2.runtime import matching
from cn2.runtime.errors import AnnotationError
from cn2.runtime.evaluation import coco_metrics, is_federated
from cn2.runtime.federated import best_of_each_picture

TOLERANCE = 1e-6
NAMES = ("AP", "AP50", "AP75", "APs", "APm", "APl", "APr", "APc", "APf")
RECALLS = {"AR300": "AR@300", "ARs": "ARs@300", "ARm": "ARm@300", "ARl": "ARl@300"}
Oracle = Callable[[dict[str, Any], list[dict[str, Any]]], dict[str, float | None]]


@pytest.fixture
def oracle(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Oracle:
    """The lvis package's numbers; -1, "nothing to count", as None.

    It was written for numpy 1 and OpenCV with windows: `np.float` is given back to it, and its
    drawing module, which nobody needs here, is left out.
    """
    if importlib.util.find_spec("lvis") is None and not os.environ.get("CI"):
        pytest.skip("the lvis package: pip install --no-deps lvis, as make test does")
    monkeypatch.setattr(np, "float", float, raising=False)
    drawing = types.ModuleType("lvis.vis")
    drawing.LVISVis = object  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "lvis.vis", drawing)
    monkeypatch.setattr(logging, "basicConfig", lambda **_: None)
    lvis = importlib.import_module("lvis")

    def score(
        annotations: dict[str, Any], results: list[dict[str, Any]]
    ) -> dict[str, float | None]:
        path = tmp_path / "lvis.json"
        path.write_text(json.dumps(annotations))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # Logger.warn
            evaluator = lvis.LVISEval(lvis.LVIS(str(path)), copy.deepcopy(results), "bbox")
        evaluator.run()
        found = {key: float(value) for key, value in evaluator.get_results().items()}
        return {key: None if value < 0 else value for key, value in found.items()}

    return score


def federated(
    seed: int, images: int = 25, classes: int = 12, groups: str = "rcf"
) -> dict[str, Any]:
    """Ground truth of all areas; each picture verified for some classes, a fifth of them empty."""
    rng = np.random.default_rng(seed)
    categories = [
        {"id": 2 * i + 3, "name": f"class {i}", "frequency": groups[i % len(groups)]}
        for i in range(classes)
    ]
    ids = [category["id"] for category in categories]
    pictures, annotations = [], []
    for number in range(images):
        present = [] if rng.random() < 0.2 else [int(i) for i in rng.choice(ids, 4, replace=False)]
        absent = [int(i) for i in rng.choice(ids, 3, replace=False) if i not in present]
        pictures.append(
            {
                "id": 5 * number + 1,
                "width": 640,
                "height": 480,
                "neg_category_ids": absent,
                "not_exhaustive_category_ids": [i for i in present if rng.random() < 0.3],
            }
        )
        for category in present:
            for _ in range(int(rng.integers(1, 6))):
                width, height = np.exp(rng.uniform(1, 6, 2))
                corner = [float(rng.uniform(0, 600)), float(rng.uniform(0, 440))]
                annotations.append(
                    {
                        "id": len(annotations) + 1,
                        "image_id": pictures[-1]["id"],
                        "category_id": category,
                        "bbox": [*corner, float(width), float(height)],
                        "area": float(width * height * rng.uniform(0.3, 1)),
                        "iscrowd": 0,
                    }
                )
    return {"images": pictures, "annotations": annotations, "categories": categories}


def detections(
    annotations: dict[str, Any], seed: int, copies: int = 3, decimals: int = 17, false: int = 8
) -> list[dict[str, Any]]:
    """Shifted copies of the ground truth, and `false` boxes a picture of any class."""
    rng = np.random.default_rng(seed)
    ids = [category["id"] for category in annotations["categories"]]
    origins = [(a["image_id"], a["category_id"], a["bbox"]) for a in annotations["annotations"]]
    chosen = [o for o in origins for _ in range(int(rng.integers(0, copies)))]
    for picture in annotations["images"]:
        for _ in range(false):
            box = [*rng.uniform(0, 400, 2), *np.exp(rng.uniform(1, 6, 2))]
            chosen.append((picture["id"], int(rng.choice(ids)), box))
    order = rng.permutation(len(chosen))
    results = []
    for image, category, box in (chosen[i] for i in order):
        moved = np.array(box) * (1 + rng.normal(0, 0.03, 4)) + rng.normal(0, 0.5, 4)
        moved[2:] = np.maximum(moved[2:], 0.5)
        results.append(
            {
                "image_id": image,
                "category_id": category,
                "bbox": [float(value) for value in moved],
                "score": round(float(rng.random()), decimals),
            }
        )
    return results


def assert_equal(
    oracle: Oracle, annotations: dict[str, Any], results: list[dict[str, Any]]
) -> dict[str, Any]:
    ours, theirs = coco_metrics(annotations, results), oracle(annotations, results)
    for key in (*NAMES, *RECALLS):
        expected = theirs[RECALLS.get(key, key)]
        assert ours[key] == (None if expected is None else pytest.approx(expected, abs=TOLERANCE))
    return ours


@pytest.mark.parametrize("decimals", [17, 1], ids=["distinct scores", "tied scores"])
@pytest.mark.parametrize("seed", range(4))
def test_random_detections_score_as_in_lvis(seed: int, decimals: int, oracle: Oracle) -> None:
    annotations = federated(seed)
    found = assert_equal(oracle, annotations, detections(annotations, seed + 50, decimals=decimals))
    assert all(0.03 < found[key] < 0.95 for key in NAMES)
    assert len({found[key] for key in ("APr", "APc", "APf")}) == 3


@pytest.mark.parametrize("groups", ["r", "c", "rf"])
def test_a_group_without_classes_has_no_number(groups: str, oracle: Oracle) -> None:
    annotations = federated(7, groups=groups)
    found = assert_equal(oracle, annotations, detections(annotations, 8))
    assert [found[f"AP{group}"] is None for group in "rcf"] == [g not in groups for g in "rcf"]


def test_a_group_without_objects_has_no_number(oracle: Oracle) -> None:
    annotations = federated(9)
    rare = {c["id"] for c in annotations["categories"] if c["frequency"] == "r"}
    annotations["annotations"] = [
        a for a in annotations["annotations"] if a["category_id"] not in rare
    ]
    assert assert_equal(oracle, annotations, detections(annotations, 10))["APr"] is None


def test_the_best_300_of_a_picture_count_over_all_classes(oracle: Oracle) -> None:
    annotations = federated(11, images=4)
    results = detections(annotations, 12, copies=30, false=500, decimals=2)
    most = max(
        sum(r["image_id"] == image["id"] for r in results) for image in annotations["images"]
    )
    assert most > 600
    found = assert_equal(oracle, annotations, results)
    assert found != coco_metrics(annotations, results, max_detections=10_000)
    assert found == coco_metrics(annotations, best_of_each_picture(results, 300))


def test_what_has_no_area_is_left_out(oracle: Oracle) -> None:
    annotations = federated(13)
    for annotation in annotations["annotations"][::5]:
        annotation["area"] = 0.0
    results = detections(annotations, 14)
    for result in results[::7]:
        result["bbox"][2] = 0.0
    assert_equal(oracle, annotations, results)


def test_pictures_without_ground_truth_and_no_picture_with_any(oracle: Oracle) -> None:
    annotations = federated(15)
    results = detections(annotations, 16)
    annotations["annotations"] = []
    found = assert_equal(oracle, annotations, results)
    assert [found[key] for key in NAMES] == [None] * 9


def one_picture(**lists: list[int]) -> dict[str, Any]:
    """One object of class 1; what is verified of classes 1, 2, 3 is given."""
    picture = {"id": 1, "neg_category_ids": [], "not_exhaustive_category_ids": [], **lists}
    return {
        "images": [picture],
        "categories": [{"id": i, "name": str(i), "frequency": "rcf"[i - 1]} for i in (1, 2, 3)],
        "annotations": [
            {
                "id": 1,
                "image_id": 1,
                "category_id": 1,
                "bbox": [0, 0, 40, 40],
                "area": 1600,
                "iscrowd": 0,
            }
        ],
    }


def found_at(x: float, score: float, category: int = 1) -> dict[str, Any]:
    return {
        "image_id": 1,
        "category_id": category,
        "bbox": [x, 0.0, 40.0, 40.0],
        "score": score,
    }


def test_a_false_alarm_of_a_not_exhaustive_class_costs_nothing() -> None:
    results = [found_at(200, 0.9), found_at(0, 0.5)]
    assert coco_metrics(one_picture(), results)["AP"] == pytest.approx(0.5)
    assert coco_metrics(one_picture(not_exhaustive_category_ids=[1]), results)["AP"] == 1


def test_a_class_that_is_not_verified_does_not_count(oracle: Oracle) -> None:
    """Class 2 in a second picture is an object there; what it does in the first one is unknown."""
    for negative, expected in (([], 1.0), ([2], 0.5)):
        annotations = one_picture(neg_category_ids=negative)
        annotations["images"].append(
            {"id": 2, "neg_category_ids": [], "not_exhaustive_category_ids": []}
        )
        annotations["annotations"].append(
            {**annotations["annotations"][0], "id": 2, "image_id": 2, "category_id": 2}
        )
        results = [found_at(0, 0.9, 2), {**found_at(0, 0.5, 2), "image_id": 2}]
        metrics = assert_equal(oracle, annotations, results)
        assert metrics["APc"] == pytest.approx(expected)


def test_recall_of_few_detections() -> None:
    """AR10 lets the ten best of each class and picture count; the 300 best do so before."""
    annotations = federated(17)
    results = detections(annotations, 18, copies=12, false=100)
    found = coco_metrics(annotations, results)
    kept = best_of_each_picture(results, 300)
    kept.sort(key=lambda result: -result["score"])
    ranks: dict[tuple[int, int], int] = {}
    few = []
    for result in kept:
        key = (result["image_id"], result["category_id"])
        ranks[key] = ranks.get(key, 0) + 1
        few += [result] if ranks[key] <= 10 else []
    assert found["AR10"] == coco_metrics(annotations, few)["AR300"]
    assert found["AR1"] < found["AR10"] < found["AR100"] <= found["AR300"]


def test_classes_in_pieces_score_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    annotations = federated(19)
    results = detections(annotations, 20)
    whole = coco_metrics(annotations, results)
    monkeypatch.setattr(matching, "MOST_CELLS", 130)  # 5 of the 12 classes in 25 pictures
    assert coco_metrics(annotations, results) == whole


def test_each_class_says_its_frequency_and_its_objects() -> None:
    annotations = federated(21)
    rows = coco_metrics(annotations, detections(annotations, 22))["per_class"]
    assert [row["frequency"] for row in rows.values()] == list("rcf") * 4
    assert sum(row["objects"] for row in rows.values()) == len(annotations["annotations"])


def test_inputs_stay_as_they_are() -> None:
    annotations = federated(23)
    results = detections(annotations, 24)
    before = copy.deepcopy((annotations, results))
    coco_metrics(annotations, results)
    assert (annotations, results) == before


def test_other_annotations_are_not_lvis() -> None:
    annotations = federated(25)
    assert is_federated(annotations)
    plain = [{**c, "frequency": None} for c in annotations["categories"]]
    assert not is_federated({**annotations, "categories": plain})
    bare = [{"id": image["id"]} for image in annotations["images"]]
    assert not is_federated({**annotations, "images": bare})
    assert "APr" not in coco_metrics({**annotations, "images": bare}, [])


@pytest.mark.parametrize("broken", [None, 3, ["1"], {}])
def test_lvis_in_part_is_an_error(broken: Any) -> None:
    annotations = federated(27)
    del annotations["categories"][2]["frequency"]
    with pytest.raises(AnnotationError, match="category 7: expected the 'frequency' r, c or f"):
        coco_metrics(annotations, [])
    annotations = federated(27)
    annotations["images"][1]["not_exhaustive_category_ids"] = broken
    with pytest.raises(AnnotationError, match="image 6: expected 'not_exhaustive_category_ids' as"):
        coco_metrics(annotations, [])
