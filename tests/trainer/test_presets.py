"""The table of presets and each one's size."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from cn2.trainer.build import build_detector
from cn2.trainer.coco_classes import COCO_CATEGORY_IDS, COCO_NAMES
from cn2.trainer.presets import PRESETS

PARAMETERS = {
    "dla34-bifpn-p3": 47_618_043,
    "dla34-bifpn-p5": 49_586_706,
    "dla34-fcosbifpn-p5": 49_463_666,
    "r50-fpn": 71_645_897,
    "r50-fpn-faster": 43_680_287,
    "r50-fpn-lvis": 75_099_122,
    "r50-fpn-lvis-fed": 75_099_122,
    "r50-fpn-o365": 72_522_272,
    "centernet-r50-fpn": 32_241_945,
    "retinanet-r50-fpn": 33_786_804,
    "retinanet-r50-fpn-faster": 43_770_434,
    "retinanet-r50-fpn-cascade": 71_736_044,
    "atss-r50-fpn": 32_244_250,
    "atss-r50-fpn-faster": 43_682_592,
    "atss-r50-fpn-cascade": 71_648_202,
    "gfl-r50-fpn": 32_389_465,
    "gfl-r50-fpn-faster": 43_680_287,
    "gfl-r50-fpn-cascade": 71_645_897,
    "faster-rcnn-r50-fpn": 41_699_936,
    "cascade-rcnn-r50-fpn": 69_341_646,
    "x101-dcn-fpn": 142_009_506,
    "r2-101-dcn-fpn": 93_509_616,
    "r2-101-dcn-bifpn-1280": 139_440_501,
    "r2-101-dcn-bifpn-1560": 139_440_501,
    "centernet-dla34-s4": 19_333_749,
    "dla34-s4-nuimages": 32_082_899,
    "nano": 2_414_463,
    "lite0-fpn": 4_073_911,
}

OTHER_CLASSES = {"r50-fpn-lvis", "r50-fpn-lvis-fed", "r50-fpn-o365", "dla34-s4-nuimages"}


def test_names() -> None:
    assert list(PRESETS) == list(PARAMETERS)
    assert [preset().preset for preset in PRESETS.values()] == list(PARAMETERS)


@pytest.mark.parametrize("name", PARAMETERS)
def test_parameter_counts(name: str) -> None:
    with torch.device("meta"):
        detector = build_detector(PRESETS[name]())
    assert sum(p.numel() for p in detector.parameters()) == PARAMETERS[name]


def test_nano_fits_its_budget() -> None:
    assert PARAMETERS["nano"] <= 4_000_000
    assert PARAMETERS["nano"] * 4 < 10e6  # bytes of the committed checkpoint


def test_the_default_classes_are_those_of_coco(shared: Path) -> None:
    rows = json.loads((shared / "data/coco_categories.json").read_text())
    rows.sort(key=lambda row: row["contiguous_id"])
    assert tuple(row["name"] for row in rows) == COCO_NAMES
    assert tuple(row["id"] for row in rows) == COCO_CATEGORY_IDS
    for name in PRESETS.keys() - OTHER_CLASSES:
        assert PRESETS[name]().class_names == COCO_NAMES
        assert PRESETS[name]().category_ids == COCO_CATEGORY_IDS


def test_canvas_suits_the_pyramid() -> None:
    """A BiFPN needs every level to be exactly half of the one below; an FPN up to P5 only."""
    for preset in PRESETS.values():
        config = preset()
        coarsest = max(config.model.neck.levels) if config.model.neck.kind == "bifpn" else 5
        assert config.input.divisor % 2**coarsest == 0
