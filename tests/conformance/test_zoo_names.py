"""Every official model is recognised by its tensors: all sixteen, of which nine have fixtures.

The other seven are put together from parts whose official names the fixtures have: each of our
tensors gets the official name that stands for it, and the sum must be recognised as that preset.
"""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path

import pytest
import torch
from torch import Tensor

from cn2.runtime.errors import ModelFormatError
from cn2.trainer.convert.fit import SCALES, detector_shapes
from cn2.trainer.convert.names import our_name
from cn2.trainer.convert.recognise import recognise
from cn2.trainer.convert.run import official_presets
from cn2.trainer.presets import PRESETS
from conformance.official import FIXTURES

# The nodes of the FCOS-style BiFPN over five levels, level and inputs, as conformance/README.md
# lists them; its fixture has three levels. P6's names are not given: any beside the backbone do.
FIVE_LEVELS = ("3_3_4", "2_2_5", "1_1_6", "0_0_7", "1_1_7_8", "2_2_6_9", "3_3_5_10", "4_4_11")
P6 = "backbone.bottom_up.beside"
TWINS = {"r2-101-dcn-bifpn-1280", "r2-101-dcn-bifpn-1560"}


@cache
def official_names(shared: Path) -> tuple[str, ...]:
    """The names in all fixtures, and those of the parts that no fixture has."""
    names: dict[str, None] = {}
    for fixture in FIXTURES:
        facts = json.loads((shared / "conformance" / f"{fixture}.json").read_text())
        names |= dict.fromkeys(name for name, *_ in facts["state_dict"])
    for cell in range(3):
        for node in FIVE_LEVELS:
            start = f"backbone.repeated_bifpn.{cell}"
            parts = (f"outputs_f{node}.{part}" for part in ("weight", "norm.weight", "norm.bias"))
            names |= dict.fromkeys(f"{start}.{part}" for part in (f"weights_f{node}", *parts))
    return (*names, *(f"{P6}.{part}" for part in ("weight", "norm.weight", "norm.bias")))


def official_state(preset: str, shared: Path) -> dict[str, Tensor]:
    """A state dict with the official names and the shapes of a preset; all weights are 0.5."""
    config = PRESETS[preset]()
    levels = len(config.model.neck.levels)
    theirs = {}
    for name in official_names(shared):
        try:
            theirs.setdefault(our_name(name, levels), name)
        except ValueError:
            continue  # of another pyramid
    shapes = detector_shapes(config)
    missing = shapes.keys() - theirs.keys() - {SCALES}
    assert not missing
    state = {
        theirs[name]: torch.full((), 0.5).to(shape.dtype).expand(shape.sides)
        for name, shape in shapes.items()
        if name != SCALES
    }
    scale = "proposal_generator.centernet_head.scales.{}.scale"
    return state | {scale.format(level): torch.ones(1) for level in range(levels)}


@pytest.mark.parametrize("preset", sorted(official_presets().keys() - TWINS))
def test_recognised_as_itself(preset: str, shared: Path) -> None:
    fit, _ = recognise(official_state(preset, shared), official_presets(), "model.pth")
    assert fit.config == PRESETS[preset]()
    assert not fit.left_over
    assert fit.tensors.keys() == detector_shapes(fit.config).keys()


@pytest.mark.parametrize("preset", sorted(TWINS))
def test_the_two_that_only_settings_tell_apart(preset: str, shared: Path) -> None:
    with pytest.raises(ModelFormatError, match="r2-101-dcn-bifpn-1280 and r2-101-dcn-bifpn-1560"):
        recognise(official_state(preset, shared), official_presets(), "model.pth")
