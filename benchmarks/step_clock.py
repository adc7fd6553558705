"""Where the time of a training step goes: hooks on the detector's parts, forward and backward."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from cn2.trainer.detector import TwoStageDetector
from cn2.trainer.train_step import Stepper

PHASES = ("forward", "backward", "step")
GROUPS = (
    "backbone",
    "neck",
    "first stage",
    "proposals",
    "RoI pooling",
    "box heads",
    "targets, losses",
)
REST = GROUPS[-1]


def time_of(place: torch.device) -> Callable[[], float]:
    """What tells the seconds of work on a device.

    A GPU is waited for. On a CPU it is this process's own time there: other programs that keep the
    machine busy do not stretch it. It is the sum over the threads.
    """
    if place.type != "cuda":
        return time.process_time

    def finished() -> float:
        torch.cuda.synchronize(place)
        return time.perf_counter()

    return finished


class StepClock:
    """Seconds by phase and group. All of a step is in one of them: entering one leaves another.

    "step" is what a step does outside forward and backward: clipping, the optimizer, copies; it has
    no groups.
    """

    def __init__(self, now: Callable[[], float]) -> None:
        """Take what tells the time, seconds."""
        self._now = now
        self.seconds: dict[tuple[str, str], float] = {}
        self._phase, self._group, self._since = "step", "", 0.0

    def start(self) -> None:
        """Count from now on."""
        self._phase, self._group, self._since = "step", "", self._now()

    def enter(self, phase: str, group: str = "") -> None:
        """What went by since the last change belongs to the phase and group before."""
        now, key = self._now(), (self._phase, self._group)
        self.seconds[key] = self.seconds.get(key, 0.0) + now - self._since
        self._phase, self._group, self._since = phase, group, now

    def phase_seconds(self, phase: str) -> float:
        """All groups of a phase."""
        return sum(value for (name, _), value in self.seconds.items() if name == phase)


@contextmanager
def watched(stepper: Stepper, clock: StepClock) -> Iterator[None]:
    """Let the clock follow the stepper's steps.

    Autograd runs the newest nodes first, so backward passes the groups in forward's order reversed:
    a group begins there when the gradient of what it returned is complete.
    """
    model = stepper.model
    with ExitStack() as stack:
        modules = {"backbone": [model.preprocess, model.backbone], "neck": [model.neck]}
        modules |= {"first stage": [model.first_stage]}
        if isinstance(model, TwoStageDetector):
            modules |= {"box heads": [*model.second_stage.stages]}
        for group, members in modules.items():
            for module in members:
                _watch_module(stack, module, clock, group)
        if isinstance(model, TwoStageDetector):
            _watch_method(stack, model.first_stage, "propose", clock, "proposals")
            _watch_method(stack, model.second_stage, "pool", clock, "RoI pooling")
        _watch_ends(stack, stepper, clock)
        yield


def _watch_module(stack: ExitStack, module: nn.Module, clock: StepClock, group: str) -> None:
    def begin(*_: Any) -> None:
        clock.enter("forward", group)

    def end(_: nn.Module, __: Any, output: Any) -> None:
        _watch_gradient(output, clock, group)
        clock.enter("forward", REST)

    stack.callback(module.register_forward_pre_hook(begin).remove)
    stack.callback(module.register_forward_hook(end).remove)


def _watch_method(
    stack: ExitStack, owner: nn.Module, name: str, clock: StepClock, group: str
) -> None:
    method: Callable[..., Any] = getattr(owner, name)

    def timed(*arguments: Any) -> Any:
        clock.enter("forward", group)
        output = method(*arguments)
        _watch_gradient(output, clock, group)
        clock.enter("forward", REST)
        return output

    setattr(owner, name, timed)
    stack.callback(delattr, owner, name)


def _watch_ends(stack: ExitStack, stepper: Stepper, clock: StepClock) -> None:
    """Forward is the call of the stepper's module; backward ends where gradients are unscaled."""

    def begin(*_: Any) -> None:
        clock.enter("forward", REST)

    def end(_: nn.Module, __: Any, losses: dict[str, Tensor]) -> None:
        _watch_gradient(list(losses.values()), clock, REST)
        clock.enter("backward", REST)

    unscale = stepper.scaler.unscale_

    def leave_backward(optimizer: torch.optim.Optimizer) -> None:
        clock.enter("step")
        unscale(optimizer)

    stack.callback(stepper.module.register_forward_pre_hook(begin).remove)
    stack.callback(stepper.module.register_forward_hook(end).remove)
    stepper.scaler.unscale_ = leave_backward  # type: ignore[method-assign]
    stack.callback(delattr, stepper.scaler, "unscale_")


def _watch_gradient(output: Any, clock: StepClock, group: str) -> None:
    """Enter a group in backward as soon as the gradient of a tensor in its output is complete."""
    if isinstance(output, Tensor):
        if output.requires_grad:
            output.register_hook(lambda _: clock.enter("backward", group))
    elif isinstance(output, (list, tuple)):
        for value in output:
            _watch_gradient(value, clock, group)
