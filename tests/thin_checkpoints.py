"""Official checkpoints of full shapes that are small files: each tensor is one number, repeated.

For what needs no numbers: recognition and errors. Names are those of the shared fixtures.
"""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from torch import Tensor

from cn2.runtime.errors import ModelFormatError
from cn2.trainer.convert.run import Conversion, Request, plan

State = dict[str, Tensor]

DLA_P3 = "CenterNet2_DLA-BiFPN-P3_4x"
R50 = "CenterNet2_R50_1x"
LVIS_FED = "LVIS_CenterNet2_R50_Fed_1x"


def thin_state(shared: Path, fixture: str, *, classes: int | None = None) -> dict[str, Tensor]:
    """The state dict of an official model; all weights are 0.5.

    Args:
        shared: folder of the shared data.
        fixture: the model's name.
        classes: how many it should know; None: as many as it does.
    """
    facts = json.loads((shared / "conformance" / f"{fixture}.json").read_text())
    state = {}
    for name, shape, dtype in facts["state_dict"]:
        if name in ("pixel_mean", "pixel_std"):
            state[name] = torch.tensor(facts["input"][name]).reshape(shape)
            continue
        if classes is not None and ".cls_score." in name:
            shape = [classes + 1, *shape[1:]]
        state[name] = thin(shape, getattr(torch, dtype))
    return state


def thin(shape: list[int], dtype: torch.dtype = torch.float32) -> Tensor:
    """A tensor of any size in a few bytes."""
    return torch.full((), 0.5).to(dtype).expand(shape)


def planned(folder: Path, content: object, **options: object) -> Conversion:
    """What `cn2 convert` would write of this content of a .pth."""
    path = folder / "model.pth"
    torch.save(content, path)
    return plan(Request(source=path, out=folder / "out.safetensors", **options))  # type: ignore[arg-type]


def refused(folder: Path, content: object, **options: object) -> str:
    """The one line that it says instead."""
    with pytest.raises((ModelFormatError, ValueError)) as caught:
        planned(folder, content, **options)
    assert "\n" not in str(caught.value)
    return str(caught.value)
