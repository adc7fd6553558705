"""Which precision a step computes in."""

from dataclasses import replace

import pytest
import torch

from cn2.trainer.train_step import pick_precision
from factories import tiny_config

CPU, GPU = torch.device("cpu"), torch.device("cuda")


@pytest.mark.parametrize(("has_bf16", "expected"), [(True, "bf16"), (False, "fp32")])
def test_auto_takes_bf16_only_where_the_device_computes_in_it(
    monkeypatch: pytest.MonkeyPatch, has_bf16: bool, expected: str
) -> None:
    train = replace(tiny_config().train, precision="auto")
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"avx512_bf16": has_bf16})
    assert pick_precision(train, CPU) == expected
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda **_: has_bf16)
    assert pick_precision(train, GPU) == expected


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_a_named_precision_is_taken(precision: str) -> None:
    train = replace(tiny_config().train, precision=precision)
    assert pick_precision(train, CPU) == precision
