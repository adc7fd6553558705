"""The COCO metrics: equal to pycocotools, on random ground truth and on real annotations."""

from __future__ import annotations

import contextlib
import copy
import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cn2.runtime.errors import AnnotationError, DependencyError
from cn2.runtime.evaluation import coco_metrics, load_annotations

TOLERANCE = 1e-9  # both sides compute in float64; only the order of a sum differs
TWELVE = ["AP", "AP50", "AP75", "APs", "APm", "APl", "AR1", "AR10", "AR100", "ARs", "ARm", "ARl"]


def perturbed(
    annotations: dict[str, Any], rng: np.random.Generator, decimals: int = 17
) -> list[dict[str, Any]]:
    """Detections made of the ground truth: shifted, doubled, dropped, some of a wrong class."""
    categories = [category["id"] for category in annotations["categories"]]
    results = []
    for annotation in annotations["annotations"]:
        for _ in range(rng.integers(0, 4)):
            box = np.array(annotation["bbox"]) * (1 + rng.normal(0, 0.1, 4)) + rng.normal(0, 2, 4)
            box[2:] = np.maximum(box[2:], 0.5)
            wrong = rng.random() < 0.1
            results.append(
                {
                    "image_id": annotation["image_id"],
                    "category_id": int(rng.choice(categories))
                    if wrong
                    else annotation["category_id"],
                    "bbox": [float(value) for value in box],
                    "score": round(float(rng.random()), decimals),
                }
            )
    return results


def random_annotations(seed: int, images: int = 30, first_id: int = 1) -> dict[str, Any]:
    """Ground truth of all areas, a tenth of it crowds, a fifth of the pictures empty."""
    rng = np.random.default_rng(seed)
    categories = [{"id": 3 * index + 2, "name": f"class {index}"} for index in range(5)]
    pictures = [
        {"id": 7 * i, "file_name": f"{i}.jpg", "width": 640, "height": 480} for i in range(images)
    ]
    annotations = []
    for picture in pictures:
        for _ in range(0 if rng.random() < 0.2 else int(rng.integers(0, 25))):
            width, height = np.exp(rng.uniform(1, 6, 2))
            annotations.append(
                {
                    "id": first_id + len(annotations),
                    "image_id": picture["id"],
                    "category_id": int(rng.choice(categories)["id"]),
                    "bbox": [float(rng.uniform(0, 600)), float(rng.uniform(0, 440)), width, height],
                    "area": float(width * height * rng.uniform(0.3, 1)),
                    "iscrowd": int(rng.random() < 0.1),
                }
            )
    return {"images": pictures, "annotations": annotations, "categories": categories}


def oracle(
    annotations: dict[str, Any], results: list[dict[str, Any]], max_detections: int = 100
) -> tuple[list[float | None], list[float | None]]:
    """The twelve numbers and the AP of each class, by pycocotools."""
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    with contextlib.redirect_stdout(io.StringIO()):
        truth = COCO()
        truth.dataset = copy.deepcopy(annotations)
        truth.createIndex()
        found = truth.loadRes(copy.deepcopy(results)) if results else COCO()
        evaluator = COCOeval(truth, found, "bbox")
        evaluator.params.maxDets = [1, min(10, max_detections), max_detections]
        evaluator.evaluate()
        evaluator.accumulate()
        precision, recall = evaluator.eval["precision"], evaluator.eval["recall"]
        if max_detections == 100:
            evaluator.summarize()
            twelve = [None if value < 0 else float(value) for value in evaluator.stats]
        else:  # pycocotools' own summary knows 100 only
            twelve = [mean(precision[..., 0, -1]), mean(recall[..., 0, -1])]
    return twelve, [mean(precision[:, :, k, 0, -1]) for k in range(precision.shape[2])]


def mean(values: np.ndarray) -> float | None:
    values = values[values > -1]
    return float(values.mean()) if values.size else None


def assert_close(ours: list[float | None], theirs: list[float | None]) -> None:
    assert [value is None for value in ours] == [value is None for value in theirs]
    gaps = [
        abs(a - b) for a, b in zip(ours, theirs, strict=True) if a is not None and b is not None
    ]
    assert max(gaps, default=0) < TOLERANCE


def assert_equal_to_oracle(annotations: dict[str, Any], results: list[dict[str, Any]]) -> None:
    metrics = coco_metrics(annotations, results)
    twelve, classes = oracle(annotations, results)
    assert_close([metrics[key] for key in TWELVE], twelve)
    assert_close([row["AP"] for row in metrics["per_class"].values()], classes)


@pytest.mark.parametrize("decimals", [17, 1], ids=["distinct scores", "tied scores"])
@pytest.mark.parametrize("seed", range(4))
def test_random_detections_score_as_in_pycocotools(seed: int, decimals: int) -> None:
    annotations = random_annotations(seed)
    results = perturbed(annotations, np.random.default_rng(seed + 100), decimals)
    assert_equal_to_oracle(annotations, results)


@pytest.mark.parametrize("split", ["train", "val"])
def test_real_annotations_score_as_in_pycocotools(shared: Path, split: str) -> None:
    annotations = load_annotations(shared / f"data/coco128/annotations/instances_{split}.json")
    assert any(annotation["iscrowd"] for annotation in annotations["annotations"])
    results = perturbed(annotations, np.random.default_rng(5))
    assert_equal_to_oracle(annotations, results)
    assert 0.1 < coco_metrics(annotations, results)["AP"] < 0.9


def test_no_detection_scores_zero() -> None:
    assert_equal_to_oracle(random_annotations(1), [])
    assert coco_metrics(random_annotations(1), [])["AP"] == 0


def test_ground_truth_itself_scores_one() -> None:
    annotations = random_annotations(3)
    whole = [record for record in annotations["annotations"] if not record["iscrowd"]]
    metrics = coco_metrics(annotations, [dict(record, score=0.9) for record in whole])
    assert metrics["AP"] == 1
    assert metrics["AR100"] == 1


@pytest.mark.parametrize("limit", [3, 20, 300])
def test_detection_limit(limit: int) -> None:
    annotations = random_annotations(2, images=4)
    results = perturbed(annotations, np.random.default_rng(9)) * 3
    metrics = coco_metrics(annotations, results, max_detections=limit)
    (precision, recall), _ = oracle(annotations, results, limit)
    assert metrics["AP"] == pytest.approx(precision, abs=TOLERANCE)
    assert metrics[f"AR{limit}"] == pytest.approx(recall, abs=TOLERANCE)


def test_chosen_pictures_only() -> None:
    annotations = random_annotations(4)
    results = perturbed(annotations, np.random.default_rng(4))
    chosen = [picture["id"] for picture in annotations["images"][:7]]
    part = {
        **annotations,
        "images": annotations["images"][:7],
        "annotations": [
            record for record in annotations["annotations"] if record["image_id"] in chosen
        ],
    }
    kept = [result for result in results if result["image_id"] in chosen]
    metrics = coco_metrics(annotations, results, image_ids=reversed(chosen))
    assert_close([metrics[key] for key in TWELVE], oracle(part, kept)[0])
    assert metrics["images"] == 7
    whole = sum(not record["iscrowd"] for record in part["annotations"])
    assert sum(row["objects"] for row in metrics["per_class"].values()) == whole


def test_annotation_id_zero_counts() -> None:
    """pycocotools takes id 0 for "unmatched"; ours must not lose that object."""
    from_zero, from_one = random_annotations(6, first_id=0), random_annotations(6)
    results = perturbed(from_one, np.random.default_rng(6))
    assert coco_metrics(from_zero, results) == coco_metrics(from_one, results)


def test_no_picture_and_no_object_give_none() -> None:
    metrics = coco_metrics({"images": [], "annotations": [], "categories": []}, [])
    assert metrics["AP"] is None
    assert metrics["images"] == 0
    empty = dict(random_annotations(1), annotations=[])
    assert [coco_metrics(empty, [])[key] for key in TWELVE] == [None] * 12


def test_same_name_twice_keeps_both_classes() -> None:
    annotations = random_annotations(1)
    annotations["categories"][1]["name"] = annotations["categories"][0]["name"]
    names = list(coco_metrics(annotations, [])["per_class"])
    assert names == ["class 0 (2)", "class 0 (5)", "class 2", "class 3", "class 4"]


def test_inputs_stay_as_they_are_and_nothing_is_printed(capsys: pytest.CaptureFixture[str]) -> None:
    annotations = random_annotations(1)
    results = perturbed(annotations, np.random.default_rng(1))
    before = copy.deepcopy((annotations, results))
    coco_metrics(annotations, results)
    assert (annotations, results) == before
    assert capsys.readouterr() == ("", "")


RESULT = {"image_id": 0, "category_id": 2, "bbox": [0, 0, 1, 1], "score": 0.5}


@pytest.mark.parametrize(
    ("result", "message"),
    [
        ({**RESULT, "image_id": 1}, "result 0: image_id 1 is not in the annotations"),
        ({"image_id": 0, "category_id": 2, "bbox": [0, 0, 1, 1]}, "expected the key 'score'"),
        ({**RESULT, "category_id": 77}, "got none of them .first: 77.; was the model trained"),
    ],
)
def test_wrong_results_are_refused(result: dict[str, Any], message: str) -> None:
    with pytest.raises(AnnotationError, match=message):
        coco_metrics(random_annotations(1), [result])


@pytest.mark.parametrize(
    "bbox", [[1, 2, 3], [1, 2, 3, 4, 5], None, "1234", ["1", "2", "3", "4"], [1, 2, np.nan, 4], 4.0]
)
def test_a_result_needs_a_box_of_four_numbers(bbox: Any) -> None:
    wrong = {**RESULT, "bbox": bbox}
    with pytest.raises(ValueError, match=r"result 1: expected bbox as the 4 numbers .x, y,.*, got"):
        coco_metrics(random_annotations(1), [RESULT, wrong])


@pytest.mark.parametrize("score", ["0.5", None, np.nan, np.inf, [0.5]])
def test_a_result_needs_a_score(score: Any) -> None:
    with pytest.raises(ValueError, match="result 0: expected score as a number, got"):
        coco_metrics(random_annotations(1), [{**RESULT, "score": score}])


def test_numbers_of_numpy_are_numbers() -> None:
    annotations, box = random_annotations(1), np.array([0, 0, 1, 1], np.float32)
    plain = coco_metrics(annotations, [RESULT])
    for bbox in (list(box), tuple(box.astype(int)), box.tolist()):
        result = {**RESULT, "bbox": bbox, "score": np.float32(0.5)}
        assert coco_metrics(annotations, [result]) == plain


def test_wrong_arguments_are_refused() -> None:
    with pytest.raises(ValueError, match="max_detections: expected at least 1, got 0"):
        coco_metrics(random_annotations(1), [], max_detections=0)
    with pytest.raises(AnnotationError, match="picture 1 is not in the annotations"):
        coco_metrics(random_annotations(1), [], image_ids=[0, 1])


def test_missing_library_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "faster_coco_eval", None)
    with pytest.raises(DependencyError, match=r"pip install 'cn2\[eval\]'"):
        coco_metrics(random_annotations(1), [])


def annotation_file(path: Path, **changes: Any) -> Path:
    """A sound file of one picture, class and box, with parts changed."""
    values = {
        "images": [{"id": 1, "file_name": "a.jpg"}],
        "categories": [{"id": 4, "name": "cup"}],
        "annotations": [{"id": 9, "image_id": 1, "category_id": 4, "bbox": [1, 2, 3, 4.5]}],
    }
    path.write_text(json.dumps({**values, **changes}))
    return path


def test_missing_area_and_crowd_flag_are_filled_in(tmp_path: Path) -> None:
    (annotation,) = load_annotations(annotation_file(tmp_path / "a.json"))["annotations"]
    assert annotation["area"] == 13.5
    assert annotation["iscrowd"] == 0


@pytest.mark.parametrize(("crowd", "number"), [(False, 0), (True, 1), (0, 0), (1, 1)])
def test_crowd_flags_become_numbers(crowd: int, number: int, tmp_path: Path) -> None:
    path = annotation_file(tmp_path / "a.json", annotations=annotation(iscrowd=crowd, area=0))
    (found,) = load_annotations(path)["annotations"]
    assert type(found["iscrowd"]) is int
    assert (found["iscrowd"], found["area"]) == (number, 0)


def annotation(**changes: Any) -> list[dict[str, Any]]:
    return [{"id": 9, "image_id": 1, "category_id": 4, "bbox": [1, 2, 3, 4], **changes}]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"images": {}}, "expected a list under 'images', got dict"),
        ({"images": [{"file_name": "a"}]}, "image number 0: expected an integer 'id'"),
        ({"images": [{"id": 1}]}, "image 1: expected 'file_name' as str, got nothing"),
        ({"images": [{"id": 1, "file_name": "a"}] * 2}, "image id 1 occurs twice"),
        ({"categories": [{"id": 4, "name": "cup"}] * 2}, "category id 4 occurs twice"),
        ({"categories": [{"id": 4, "name": 5}]}, "category 4: expected 'name' as str, got 5"),
        ({"annotations": annotation() * 2}, "annotation id 9 occurs twice"),
        ({"annotations": annotation(id="9")}, "annotation number 0: expected an integer 'id'"),
        ({"annotations": annotation(image_id=3)}, "annotation 9: image_id 3 is not among"),
        ({"annotations": annotation(category_id=5)}, r"annotation 9: .* out of \(4\), got 5"),
        ({"annotations": annotation(bbox=[1, 2, 3])}, r"annotation 9: .*got \[1, 2, 3\]"),
        ({"annotations": annotation(bbox=[1, 2, -3, 4])}, "annotation 9: .*width >= 0"),
        ({"annotations": annotation(bbox=[1, 2, float("nan"), 4])}, "annotation 9: .*nan"),
        ({"annotations": annotation(bbox=[1, 2, True, 4])}, "annotation 9: .*True"),
        ({"annotations": annotation(bbox=[1e300, 2, 3, 4])}, r"annotation 9: .*got \[1e\+300"),
        ({"annotations": annotation(bbox=[-1.1e7, 2, 3, 4])}, "annotation 9: .*none beyond 1e.07"),
        ({"annotations": annotation(bbox=[1, 2, 10**400, 4])}, "annotation 9: .*none beyond"),
        ({"annotations": annotation(iscrowd=None)}, "9: expected 'iscrowd' as 0 or 1, got None"),
        ({"annotations": annotation(iscrowd="0")}, "9: expected 'iscrowd' as 0 or 1, got '0'"),
        ({"annotations": annotation(iscrowd=2)}, "9: expected 'iscrowd' as 0 or 1, got 2"),
        ({"annotations": annotation(iscrowd=0.0)}, "9: expected 'iscrowd' as 0 or 1, got 0.0"),
        ({"annotations": annotation(area=-1)}, "9: expected 'area' as a number >= 0, got -1"),
        ({"annotations": annotation(area="12")}, "9: expected 'area' as a number >= 0, got '12'"),
        ({"annotations": annotation(area=None)}, "9: expected 'area' as a number >= 0, got None"),
        ({"annotations": annotation(area=float("inf"))}, "9: expected 'area' .*got inf"),
        ({"annotations": annotation(area=10**400)}, "9: expected 'area' .*got 1000"),
    ],
)
def test_broken_annotations_name_file_and_id(
    tmp_path: Path, changes: dict[str, Any], message: str
) -> None:
    path = annotation_file(tmp_path / "broken.json", **changes)
    with pytest.raises(AnnotationError, match=message) as caught:
        load_annotations(path)
    assert str(caught.value).startswith(str(path))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("content", [b"", b"no json", b"\xff\xfe\x00", b"[1]", b"[" * 100_000])
def test_files_that_are_not_coco(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "broken.json"
    path.write_bytes(content)
    with pytest.raises(AnnotationError, match=r"broken.json: expected a"):
        load_annotations(path)
    with pytest.raises(AnnotationError, match="No such file"):
        coco_metrics(tmp_path / "none.json", [])
