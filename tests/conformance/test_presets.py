"""The presets have every setting that the official loader resolves (zoo.json)."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from cn2.trainer.build import build_detector
from cn2.trainer.config import Config
from cn2.trainer.detector import AnyDetector
from cn2.trainer.model_config import CascadeRCNNConfig, ProposalFilter
from cn2.trainer.presets import PRESETS
from conformance.official import feature_names

ZOO = {  # official model -> preset
    "CenterNet-FPN_R50_1x": "centernet-r50-fpn",
    "CenterNet-S4_DLA_8x": "centernet-dla34-s4",
    "CenterNet2-F_R50_1x": "r50-fpn-faster",
    "CenterNet2_DLA-BiFPN-P3_24x": "dla34-bifpn-p3",
    "CenterNet2_DLA-BiFPN-P3_4x": "dla34-bifpn-p3",
    "CenterNet2_DLA-BiFPN-P5_640_16x_ST": "dla34-bifpn-p5",
    "CenterNet2_DLA-fcosBiFPN-P5_640_16x_ST": "dla34-fcosbifpn-p5",
    "CenterNet2_R2-101-DCN-BiFPN_1280_4x": "r2-101-dcn-bifpn-1280",
    "CenterNet2_R2-101-DCN-BiFPN_4x+4x_1560_ST": "r2-101-dcn-bifpn-1560",
    "CenterNet2_R2-101-DCN_896_4x": "r2-101-dcn-fpn",
    "CenterNet2_R50_1x": "r50-fpn",
    "CenterNet2_X101-DCN_2x": "x101-dcn-fpn",
    "LVIS_CenterNet2_R50_1x": "r50-fpn-lvis",
    "LVIS_CenterNet2_R50_Fed_1x": "r50-fpn-lvis-fed",
    "O365_CenterNet2_R50_1x": "r50-fpn-o365",
    "nuImages_CenterNet2_DLA_640_8x": "dla34-s4-nuimages",
}
HERE = [name for name, preset in ZOO.items() if preset in PRESETS]
# Settings that no detector here has otherwise; the code knows no choice.
FIXED = {
    "CENTER_NMS": False,
    "NORM": "GN",
    "NUM_SHARE_CONVS": 0,
    "LOC_LOSS_TYPE": "giou",
    "SIGMOID_CLAMP": 1e-4,
    "AS_PROPOSAL": False,
    "NOT_NORM_REG": True,
    "NOT_NMS": False,
    "NO_REDUCE": False,
}
IMAGENET_CLASSIFIER = 1000 * (512 + 1)
MASK_HEAD = 64 * 256 * 9 + 256 + 3 * (256 * 256 * 9 + 256) + 256 * 256 * 4 + 256 + 256 * 10 + 10
UNUSED_PARAMETERS = {  # in the official models; here they have no place
    "centernet-dla34-s4": IMAGENET_CLASSIFIER,
    "dla34-s4-nuimages": IMAGENET_CLASSIFIER + MASK_HEAD,
}
Facts = dict[str, Any]


@pytest.fixture
def zoo(shared: Path) -> dict[str, Facts]:
    """Settings by official model."""
    zoo: dict[str, Facts] = json.loads((shared / "conformance/zoo.json").read_text())
    del zoo["_"]
    return zoo


def test_every_official_model_has_its_preset(zoo: dict[str, Facts]) -> None:
    assert {name: facts["preset"] for name, facts in zoo.items()} == ZOO


@pytest.mark.parametrize("name", HERE)
def test_every_setting(name: str, zoo: dict[str, Facts]) -> None:
    config, facts = PRESETS[ZOO[name]](), dict(zoo[name])
    assert facts.pop("preset") == config.preset
    counted = sum(p.numel() for p in built_on_meta(config).parameters())
    assert facts.pop("num_params") == counted + UNUSED_PARAMETERS.get(config.preset, 0)
    assert input_facts(config) == known(facts.pop("input"), input_facts(config))
    roi_heads, limits = facts.pop("roi_heads"), facts.pop("nms")
    expected = first_stage_facts(config)
    found = dict(facts.pop("first_stage"))
    if roi_heads is not None:
        del found["NUM_CLASSES"], found["NUM_CLS_CONVS"]  # the heat map has neither
    if not found["MORE_POS"]:  # nothing reads them
        del found["MORE_POS_THRESH"], found["MORE_POS_TOPK"]
    assert found == expected
    assert second_stage_facts(config) == roi_heads
    own = config.model.limits
    if roi_heads is None:
        assert limits == {"score_thresh": own[0], "nms": own[1], "topk": own[2]}
    else:
        assert limits is None
    assert facts == {}


def built_on_meta(config: Config) -> AnyDetector:
    """The detector without memory for its weights."""
    with torch.device("meta"):
        return build_detector(config)


def known(facts: Facts, ours: Facts) -> Facts:
    """The facts without the sizes that the other resize rule has."""
    unused = {"default": {"test_size"}, "square": {"min_size_test", "max_size_test"}}
    return {key: facts[key] for key in facts.keys() - unused[facts["test_input_type"]]}


def input_facts(config: Config) -> Facts:
    """Our input settings under the official names."""
    ours = config.input
    assert ours.interpolation == "antialias"
    sizes: Facts = {
        "test_input_type": "default",
        "min_size_test": ours.short_edge,
        "max_size_test": ours.long_edge,
    }
    if ours.rounding == "down":  # a picture fits into a square, which it has all of
        assert ours.short_edge == ours.long_edge
        sizes = {"test_input_type": "square", "test_size": ours.long_edge}
    return sizes | {
        "format": ours.color_order,
        "pixel_mean": list(ours.pixel_mean),
        "pixel_std": list(ours.pixel_std),
        "interpolation": "PIL BILINEAR",  # antialias
        "size_divisibility": ours.divisor,
    }


def first_stage_facts(config: Config) -> Facts:
    """Our first stage under the official names."""
    model, ours = config.model, config.model.first_stage
    agnostic = model.second_stage is not None
    facts: Facts = FIXED | {
        "IN_FEATURES": feature_names(model.neck.levels),
        "FPN_STRIDES": [2**level for level in model.neck.levels],
        "SOI": [list(sizes) for sizes in ours.sizes_of_interest],
        "NUM_BOX_CONVS": ours.convs,
        "USE_DEFORMABLE": ours.deformable,
        "PRIOR_PROB": ours.prior,
        "INFERENCE_TH": ours.objectness_floor,
        **filter_facts(ours.test_filter, "TEST"),
        **filter_facts(ours.train_filter, "TRAIN"),
        "HM_MIN_OVERLAP": ours.min_overlap,
        "MIN_RADIUS": ours.min_radius,
        "HM_FOCAL_ALPHA": ours.focal_alpha,
        "HM_FOCAL_BETA": ours.focal_beta,
        "LOSS_GAMMA": ours.focal_gamma,
        "POS_WEIGHT": ours.heatmap_weight,
        "NEG_WEIGHT": ours.heatmap_weight,
        "REG_WEIGHT": ours.regression_weight,
        "WITH_AGN_HM": agnostic,
        "ONLY_PROPOSAL": agnostic,
        # Ours is the probability from which negatives are ignored: 1 is none, theirs -1.
        "IGNORE_HIGH_FP": -1.0 if ours.ignore_high_negatives == 1 else ours.ignore_high_negatives,
        "MORE_POS": ours.extra_positives is not None,
    }
    if not agnostic:
        facts |= {"NUM_CLASSES": len(config.class_names), "NUM_CLS_CONVS": ours.class_convs}
    if ours.extra_positives is not None:
        facts["MORE_POS_THRESH"] = ours.extra_positives.largest_loss
        facts["MORE_POS_TOPK"] = ours.extra_positives.rank
    return facts


def filter_facts(filter: ProposalFilter, when: str) -> Facts:
    """How many boxes go on."""
    return {
        f"PRE_NMS_TOPK_{when}": filter.pre_nms,
        f"POST_NMS_TOPK_{when}": filter.post_nms,
        f"NMS_TH_{when}": filter.nms_iou,
    }


def second_stage_facts(config: Config) -> Facts | None:
    """Our second stage under the official names."""
    ours = config.model.second_stage
    if ours is None:
        return None
    assert ours.score_rule == "sqrt"
    assert ours.ious == (0.6, 0.7, 0.8)[: len(ours.ious)]
    return cascade_facts(ours) | {"num_classes": len(config.class_names)}


def cascade_facts(ours: CascadeRCNNConfig) -> Facts:
    """All but the classes."""
    return {
        "in_features": feature_names(ours.levels),
        "score_thresh": ours.score_threshold,
        "nms": ours.nms_iou,
        "topk": ours.detections,
        "sigmoid": ours.classifier == "sigmoid",
        "stages": len(ours.ious),
        "box_weights": [list(weights) for weights in ours.delta_weights],
    }
