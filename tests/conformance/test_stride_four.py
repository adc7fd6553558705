"""DLA-34 at stride 4 up to what its heads get: the features equal the official implementation's."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

from cn2.trainer.build import build_backbone, build_neck
from cn2.trainer.convert.names import UNUSED, our_name
from cn2.trainer.detector import Normalizer
from cn2.trainer.model_config import DLAConfig, DLAUpConfig
from conformance.official import Fixture, assert_summary, fixture_weights, load_fixture

NAME = "CenterNet-S4_DLA_8x"
LEVELS = 1
CLASSIFIER = 512 * 1000 + 1000  # parameters of `backbone.base.fc`, which nothing uses


@pytest.fixture(scope="module")
def fixture(shared: Path) -> Fixture:
    return load_fixture(shared, NAME)


@pytest.fixture(scope="module")
def parts(shared: Path, fixture: Fixture) -> nn.ModuleDict:
    """Backbone and neck with the fixture's weights; every one of theirs has a place."""
    backbone = build_backbone(DLAConfig())
    parts = nn.ModuleDict(
        {"backbone": backbone, "neck": build_neck(DLAUpConfig(), backbone.channels)}
    )
    weights = {
        our_name(name, LEVELS): torch.from_numpy(value)
        for name, value in fixture_weights(shared, fixture).items()
        if name.startswith("backbone.") and not UNUSED.fullmatch(name)
    }
    parts.load_state_dict(weights, strict=True)
    return parts.eval()


def network_input(shared: Path, fixture: Fixture) -> Tensor:
    facts = fixture.facts["input"]
    height, width = facts["resized_hw"]
    with Image.open(shared / "conformance" / "image_shared.png") as image:
        resized = image.convert("RGB").resize((width, height), Image.Resampling.BILINEAR)
    canvas = torch.full((1, *facts["padded_hw"], 3), 77, dtype=torch.uint8)
    canvas[0, :height, :width] = torch.from_numpy(np.asarray(resized).copy())
    normalizer = Normalizer(facts["format"], tuple(facts["pixel_mean"]), tuple(facts["pixel_std"]))
    found: Tensor = normalizer(canvas, torch.tensor([[height, width]]))
    return found


@torch.no_grad()
def test_features(shared: Path, fixture: Fixture, parts: nn.ModuleDict) -> None:
    x = network_input(shared, fixture)
    assert_summary(fixture, "input/normalized_padded", x, atol=1e-4)
    (level,) = parts["neck"](parts["backbone"](x))
    assert_summary(fixture, "fpn/dla2", level, atol=1e-3)


def test_every_parameter_counts_but_the_classifiers(fixture: Fixture, parts: nn.ModuleDict) -> None:
    heads = sum(
        int(np.prod(shape))
        for name, shape, _ in fixture.facts["state_dict"]
        if name.startswith("proposal_generator.")
    )
    ours = sum(parameter.numel() for parameter in parts.parameters())
    assert ours + heads + CLASSIFIER == fixture.facts["num_params"]
