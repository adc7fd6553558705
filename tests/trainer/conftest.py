"""What the trainer's tests share."""

from __future__ import annotations

import os

import pytest
import torch


@pytest.fixture(params=["cpu", pytest.param("cuda", marks=pytest.mark.needs_cuda)])
def device(request: pytest.FixtureRequest) -> torch.device:
    """The CPU, and a GPU where there is one."""
    if request.param == "cuda" and not torch.cuda.is_available():
        if os.environ.get("REQUIRE_CUDA"):
            pytest.fail("REQUIRE_CUDA is set and torch sees no GPU")
        pytest.skip("torch sees no GPU")
    return torch.device(request.param)
