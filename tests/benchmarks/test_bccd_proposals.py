"""benchmarks/bccd_proposals.py, nano_size.py, framework_page.py: what is trained, scored, said."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from benchmark_scripts import imported
from cn2.runtime.evaluation import coco_metrics
from cn2.trainer.build import build_detector
from cn2.trainer.checkpoint import read_checkpoint
from cn2.trainer.config import Config
from cn2.trainer.data.coco import CocoDataset, load_coco
from cn2.trainer.detector import OneStageDetector, TwoStageDetector
from cn2.trainer.presets import PRESETS
from exported import lively_detector
from factories import coco_annotations, shrunk, write_dataset

NAMES = ("bccd_proposals", "framework_page", "nano_size", "overfit")
SIZES = [(64, 96), (60, 96)]
BOXES = [[(1, [10.0, 8.0, 30.0, 20.0]), (7, [50.0, 20.0, 24.0, 40.0])], [(3, [0, 0, 40.0, 30.0])]]


@pytest.fixture(scope="module")
def scripts() -> Iterator[Any]:
    with imported(*NAMES) as modules:
        yield SimpleNamespace(**modules)


@pytest.fixture
def data(tmp_path: Path) -> CocoDataset:
    return load_coco(*write_dataset(tmp_path, coco_annotations(SIZES, BOXES)))


def test_all_fourteen_are_of_nanos_size(scripts: Any) -> None:
    presets = scripts.nano_size.TABLE_1
    assert len(presets) == len(set(presets)) == 14
    for preset in presets:
        config, full = scripts.nano_size.at_nano_size(preset), PRESETS[preset]()
        assert config.model.neck.levels == full.model.neck.levels
        assert config.model.first_stage.convs == full.model.first_stage.convs
        assert config.model.first_stage.test_filter == full.model.first_stage.test_filter
        count = sum(p.numel() for p in build_detector(config).parameters())
        assert 1e6 < count < 4e6, preset  # nano has 2.4 M


def test_sizes_of_objects_are_halved(scripts: Any) -> None:
    def first(preset: str) -> Any:
        return scripts.nano_size.at_nano_size(preset).model.first_stage

    assert first("r50-fpn").sizes_of_interest[:2] == ((0, 40), (32, 80))
    assert first("retinanet-r50-fpn").anchors.size == 2
    assert first("gfl-r50-fpn").anchor_size == first("atss-r50-fpn").anchor_size == 4
    assert first("cascade-rcnn-r50-fpn").anchors.size == 4


def test_the_three_are_trained_alike_from_one_backbone(scripts: Any, tmp_path: Path) -> None:
    script = scripts.bccd_proposals
    recipes = [script.recipe(preset, 1) for preset in script.DETECTORS.values()]
    assert all((r.train, r.input) == (recipes[0].train, recipes[0].input) for r in recipes)
    _, _, bundled = read_checkpoint(script.BUNDLED)
    _, _, start = read_checkpoint(script.start_weights(recipes[2], tmp_path / "start.safetensors"))
    backbone = [name for name in start if name.startswith("backbone.")]
    assert len(backbone) > 50
    assert all(torch.equal(start[name], bundled[name]) for name in backbone)
    _, _, other = read_checkpoint(
        script.start_weights(script.recipe("r50-fpn", 2), tmp_path / "other.safetensors")
    )
    assert any(not torch.equal(start[name], other[name]) for name in start)


def tiny(preset: str) -> tuple[Config, Any]:
    config = shrunk(PRESETS[preset]())
    train = replace(config.train, workers=0)
    config = replace(config, train=train)
    return config, lively_detector(config)


def annotated(data: CocoDataset, boxes: list[dict[str, Any]]) -> CocoDataset:
    """The same pictures with these result dicts as their objects."""
    rows = [
        {**box, "id": n, "category_id": 1, "iscrowd": 0, "area": box["bbox"][2] * box["bbox"][3]}
        for n, box in enumerate(boxes, 1)
    ]
    return replace(data, annotations={**data.annotations, "annotations": rows})


def test_proposals_and_rules_of_two_stages(scripts: Any, data: CocoDataset) -> None:
    script = scripts.bccd_proposals
    config, model = tiny("r50-fpn")
    assert isinstance(model, TwoStageDetector)
    first = script.detect(script.ProposalDetector(model, 64), config, data)
    test = annotated(data, [first[2]])  # best first
    found = script.score_two_stages(model, config, test)
    assert list(found["AP"]) == ["joint", "class"]
    assert set(found["recall"].values()) == {1}
    # the last that was scored is the class score with the most proposals
    assert model.second_stage.selection.score_rule == "class"
    assert model.test_filter.post_nms == script.COUNTS[-1]
    metrics = coco_metrics(test.annotations, script.detect(model, config, test))
    assert found["AP"]["class"]["256"] == {key: metrics[key] for key in script.SCORES}


def test_recall_is_of_the_best_boxes(scripts: Any, data: CocoDataset) -> None:
    script = scripts.bccd_proposals
    boxes = [
        {"image_id": 10, "category_id": 1, "bbox": [3.0 * n, 0, 3, 3], "score": 1 - n / 100}
        for n in range(30)
    ]
    test = annotated(data, [boxes[15], boxes[16]])
    found = script.recall_at(test, boxes)
    assert found == {"16": 0.5, "32": 1.0, "64": 1.0, "128": 1.0, "256": 1.0}


def test_the_best_detections_of_one_stage(scripts: Any, data: CocoDataset) -> None:
    script = scripts.bccd_proposals
    config, model = tiny("centernet-r50-fpn")
    assert isinstance(model, OneStageDetector)
    found = script.score_one_stage(model, config, data)
    assert list(found["AP"]) == ["alone"]
    results = [{"image_id": i, "score": s} for i, s in ((1, 0.2), (2, 0.9), (1, 0.5), (1, 0.3))]
    kept = script.best_of_each(results, 2)
    assert [(r["image_id"], r["score"]) for r in kept] == [(2, 0.9), (1, 0.5), (1, 0.3)]


def planted(joint: list[float], alone: list[float]) -> dict[str, Any]:
    """CenterNet2 with these AP at 64 and 256 proposals, one seed for every two."""

    def scores(values: list[float], seed: int) -> dict[str, Any]:
        return {c: {"AP": values[2 * seed + k]} for k, c in enumerate(("64", "256"))}

    runs = [
        {
            "seed": seed, "pictures": 72, "minutes": 9.0 + seed,
            "recall": {"64": 0.5, "256": 0.6},
            "AP": {"joint": scores(joint, seed), "class": scores(alone, seed)},
        }
        for seed in range(len(joint) // 2)
    ]  # fmt: skip
    return {
        "counts": [64, 256], "steps": 480, "batch": 8, "short_edge": 256,
        "machine": {"cpu": "a CPU", "threads": 1},
        "detectors": {"CenterNet2": {"preset": "r50-fpn", "runs": runs}},
    }  # fmt: skip


def test_the_reading_says_when_seeds_disagree(scripts: Any) -> None:
    page = scripts.framework_page
    found = planted(joint=[0.50, 0.52, 0.51, 0.51], alone=[0.40, 0.50, 0.50, 0.50])
    five, six = page.reading(found).splitlines()
    assert "256 proposals: with the joint score AP changes by +0.015" in five
    assert "+0.010 to +0.020 over the seeds; one sign" in five
    assert "with 64 proposals in place of 256 AP changes by -0.010" in six
    assert "-0.020 to +0.000 over the seeds; both signs" in six
    assert "| CenterNet2 | joint score | 0.505 ± 0.005 | 0.515 ± 0.005 |" in page.ap_table(found)
    assert "2 seeds" in page.ap_table(found)
    assert "9 to 10 minutes each" in page.ap_table(found)


def test_the_page_is_what_the_results_say(scripts: Any, tmp_path: Path) -> None:
    assert scripts.framework_page.main(["--check"]) == 0
    stale = tmp_path / "framework.md"
    text = scripts.framework_page.PAGE.read_text("utf-8")
    stale.write_text(re.sub(r"(\| CenterNet2 \| joint score \| 0\.)\d", r"\g<1>0", text), "utf-8")
    assert scripts.framework_page.main(["--check", "--page", str(stale)]) == 1
    assert scripts.framework_page.main(["--page", str(stale)]) == 0
    assert stale.read_text("utf-8") == text
    for curves in ("overfit_curves.png", "proposal_curves.png"):
        assert (tmp_path / curves).stat().st_size > 5000


def test_every_detector_of_table_1_overfits(scripts: Any) -> None:
    rows = json.loads((scripts.framework_page.RESULTS / "overfit_table1.json").read_text())[
        "presets"
    ]
    assert list(rows) == list(scripts.nano_size.TABLE_1)
    assert all(row["short_edge"] <= 256 and row["AP50"] >= 0.9 for row in rows.values())
