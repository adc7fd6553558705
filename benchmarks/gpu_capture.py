"""Can a detector be captured into a CUDA graph? Found out without a GPU, on fake CUDA tensors."""

from __future__ import annotations

from typing import Any

import torch
from torch._subclasses.fake_tensor import DynamicOutputShapeException, FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode

from cn2.trainer.detector import AnyDetector

CELLS = (4, 6)  # canvas, in divisors
# Operators whose results the host waits for.
WAITING = ("_local_scalar_dense", "nonzero", "unique", "masked_select", "is_nonzero", "equal")


class Watch(TorchDispatchMode):
    """Notes operators that wait for the GPU, and tensors that cross between host and device."""

    def __init__(self) -> None:
        super().__init__()
        self.hazards: dict[str, None] = {}

    def __torch_dispatch__(
        self, function: Any, types: Any, arguments: Any = (), options: Any = None
    ) -> Any:
        result = function(*arguments, **(options or {}))
        name = function._schema.name
        copies = name.endswith(("_to_copy", "::copy_"))  # others may read a number of the host's
        tensors = _tensors((arguments, options, result))
        devices = {one.device.type for one in tensors if one.ndim or copies}
        if len(devices) > 1 or any(word in name for word in WAITING):
            self.hazards[name] = None
        return result


def find_hazards(model: AnyDetector, divisor: int) -> list[str]:
    """The operators in an inference that a capture would refuse."""
    height, width = (cells * divisor for cells in CELLS)
    watch = Watch()
    with FakeTensorMode(allow_non_fake_inputs=True), torch.no_grad():
        inputs = (
            torch.empty(2, height, width, 3, dtype=torch.uint8, device="cuda"),
            torch.empty(2, 2, dtype=torch.int32, device="cuda"),
            torch.empty((), device="cuda"),
        )
        moved = _on_cuda(model)
        with watch:
            try:
                torch.func.functional_call(model, moved, inputs)
            except DynamicOutputShapeException as error:  # the host would have to wait for it
                watch.hazards[error.func._schema.name] = None
    return list(watch.hazards)


def _on_cuda(model: AnyDetector) -> dict[str, torch.Tensor]:
    """The weights as fake CUDA tensors."""
    named = [*model.named_parameters(), *model.named_buffers()]
    return {n: torch.empty(t.shape, dtype=t.dtype, device="cuda") for n, t in named}


def _tensors(value: Any) -> list[torch.Tensor]:
    leaves, _ = torch.utils._pytree.tree_flatten(value)
    return [leaf for leaf in leaves if isinstance(leaf, torch.Tensor)]
