"""The presets have the settings that the official loader resolves (zoo.json)."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from cn2.trainer.build import build_detector
from cn2.trainer.presets import PRESETS
from conformance.official import FIXTURES

ZOO = (
    *FIXTURES,
    "CenterNet2_DLA-BiFPN-P3_24x",
    "CenterNet2_DLA-fcosBiFPN-P5_640_16x_ST",
    "CenterNet2_R2-101-DCN_896_4x",
    "CenterNet2_R2-101-DCN-BiFPN_4x+4x_1560_ST",
)


@pytest.mark.parametrize("name", ZOO)
def test_parameter_count(name: str, shared: Path) -> None:
    facts = json.loads((shared / "conformance/zoo.json").read_text())[name]
    with torch.device("meta"):
        detector = build_detector(PRESETS[facts["preset"]]())
    assert sum(p.numel() for p in detector.parameters()) == facts["num_params"]


@pytest.mark.parametrize("name", ZOO)
def test_input(name: str, shared: Path) -> None:
    facts = json.loads((shared / "conformance/zoo.json").read_text())[name]
    ours, theirs = PRESETS[facts["preset"]]().input, facts["input"]
    assert ours.color_order == theirs["format"]
    assert list(ours.pixel_mean) == theirs["pixel_mean"]
    assert list(ours.pixel_std) == theirs["pixel_std"]
    if theirs["test_input_type"] == "square":
        assert ours.short_edge == ours.long_edge == theirs["test_size"]
        assert ours.rounding == "down"
    else:
        assert ours.short_edge == theirs["min_size_test"]
        assert ours.long_edge == theirs["max_size_test"]
        assert ours.rounding == "nearest"
    assert ours.divisor == theirs["size_divisibility"]
    assert ours.interpolation == "antialias"


@pytest.mark.parametrize("name", ZOO)
def test_first_stage(name: str, shared: Path) -> None:
    facts = json.loads((shared / "conformance/zoo.json").read_text())[name]
    model, theirs = PRESETS[facts["preset"]]().model, facts["first_stage"]
    ours = model.first_stage
    assert [f"p{level}" for level in model.neck.levels] == theirs["IN_FEATURES"]
    assert [list(sizes) for sizes in ours.sizes_of_interest] == theirs["SOI"]
    assert ours.convs == theirs["NUM_BOX_CONVS"]
    assert ours.deformable == theirs["USE_DEFORMABLE"]
    assert ours.prior == theirs["PRIOR_PROB"]
    assert ours.objectness_floor == theirs["INFERENCE_TH"]
    for filter, stage in ((ours.test_filter, "TEST"), (ours.train_filter, "TRAIN")):
        assert filter.pre_nms == theirs[f"PRE_NMS_TOPK_{stage}"]
        assert filter.post_nms == theirs[f"POST_NMS_TOPK_{stage}"]
        assert filter.nms_iou == theirs[f"NMS_TH_{stage}"]
    assert ours.min_overlap == theirs["HM_MIN_OVERLAP"]
    assert ours.min_radius == theirs["MIN_RADIUS"]
    assert ours.focal_alpha == theirs["HM_FOCAL_ALPHA"]
    assert ours.focal_beta == theirs["HM_FOCAL_BETA"]
    assert ours.focal_gamma == theirs["LOSS_GAMMA"]
    assert ours.ignore_high_negatives == theirs["IGNORE_HIGH_FP"]
    assert ours.heatmap_weight == theirs["POS_WEIGHT"] == theirs["NEG_WEIGHT"]
    assert ours.regression_weight == theirs["REG_WEIGHT"]


@pytest.mark.parametrize("name", ZOO)
def test_second_stage(name: str, shared: Path) -> None:
    facts = json.loads((shared / "conformance/zoo.json").read_text())[name]
    config, theirs = PRESETS[facts["preset"]](), facts["roi_heads"]
    ours = config.model.second_stage
    assert [f"p{level}" for level in ours.levels] == theirs["in_features"]
    assert ours.score_threshold == theirs["score_thresh"]
    assert ours.nms_iou == theirs["nms"]
    assert ours.detections == theirs["topk"]
    assert len(config.class_names) == theirs["num_classes"]
    assert len(ours.ious) == theirs["stages"]
    assert [list(weights) for weights in ours.delta_weights] == theirs["box_weights"]
    assert ours.score_rule == "sqrt"
