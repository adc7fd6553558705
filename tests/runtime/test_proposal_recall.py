"""Average recall of proposals: by hand, and equal to pycocotools without categories."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from cn2.runtime.proposal_recall import proposal_recall


def annotations(boxes: list[tuple[int, list[float]]], pictures: int = 2) -> dict[str, Any]:
    """(picture, xywh) boxes of two classes by turns."""
    return {
        "images": [{"id": k + 1, "width": 200, "height": 200} for k in range(pictures)],
        "categories": [{"id": 3, "name": "a"}, {"id": 9, "name": "b"}],
        "annotations": [
            {
                "id": k + 1,
                "image_id": picture,
                "category_id": (3, 9)[k % 2],
                "bbox": box,
                "area": box[2] * box[3],
                "iscrowd": 0,
            }
            for k, (picture, box) in enumerate(boxes)
        ],
    }


def results(boxes: list[tuple[int, list[float], float]]) -> list[dict[str, Any]]:
    return [
        {"image_id": picture, "category_id": 3, "bbox": box, "score": score}
        for picture, box, score in boxes
    ]


def test_by_hand() -> None:
    """Of three objects the best proposal covers one; the next one, at IoU 0.6, counts to there."""
    truth = annotations([(1, [0, 0, 10, 10]), (1, [50, 50, 100, 100]), (2, [0, 0, 10, 10])])
    found = results([(1, [0, 0, 10, 10], 0.9), (1, [50, 50, 100, 60], 0.5)])
    recall = proposal_recall(truth, found, (1, 2))
    assert recall["AR1"] == pytest.approx(1 / 3)
    assert recall["AR2"] == pytest.approx((3 * 2 / 3 + 7 * 1 / 3) / 10)  # 0.5, 0.55, 0.6
    assert recall["ARs2"] == pytest.approx(1 / 2)
    assert recall["ARm2"] is None
    assert recall["ARl2"] == pytest.approx(3 / 10)
    assert recall["images"] == 2


def test_nothing_proposed_and_nothing_there() -> None:
    assert proposal_recall(annotations([(1, [0, 0, 10, 10])]), [], (5,))["AR5"] == 0
    assert proposal_recall(annotations([]), results([(1, [0, 0, 9, 9], 0.5)]), (5,))["AR5"] is None


def test_equal_to_pycocotools(capsys: pytest.CaptureFixture[str]) -> None:
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    rng = np.random.default_rng(0)

    def boxes(count: int) -> list[list[float]]:
        corners = rng.uniform(0, 100, (count, 2))
        return np.concatenate([corners, rng.uniform(4, 100, (count, 2))], axis=1).tolist()

    truth = annotations([(int(rng.integers(1, 6)), box) for box in boxes(30)], pictures=5)
    near = [record["bbox"] for record in truth["annotations"]]
    moved = [[v + rng.normal(0, 2) for v in box] for box in near] + boxes(60)
    found = results([(int(rng.integers(1, 6)), box, float(rng.random())) for box in moved])
    for record, result in zip(truth["annotations"], found, strict=False):
        result["image_id"] = record["image_id"]
    truth["annotations"][0]["iscrowd"] = 1
    counts = (2, 5, 20)
    oracle = COCO()
    oracle.dataset = truth
    oracle.createIndex()
    evaluator = COCOeval(oracle, oracle.loadRes(found), "bbox")
    evaluator.params.useCats, evaluator.params.maxDets = 0, list(counts)
    evaluator.evaluate()
    evaluator.accumulate()
    capsys.readouterr()
    ours = proposal_recall(truth, found, counts)
    for n, count in enumerate(counts):
        recall = evaluator.eval["recall"][:, 0, 0, n]
        assert ours[f"AR{count}"] == pytest.approx(recall[recall > -1].mean())
        assert 0.05 < ours[f"AR{count}"] < 0.95
