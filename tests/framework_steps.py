"""Two pictures, and what a fresh detector makes of them: losses, a step of training, detections."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from cn2.trainer.build import build_detector
from cn2.trainer.config import Config
from cn2.trainer.detector import AnyDetector
from cn2.trainer.structures import Target
from cn2.trainer.training_losses import DetectorLosses
from factories import TINY_HEIGHT, TINY_WIDTH, picture


def two_pictures() -> tuple[Tensor, Tensor, list[Target]]:
    """Pictures, their sizes and objects: three, and none."""
    images = torch.from_numpy(np.stack([picture(seed=seed) for seed in range(2)]))
    sizes = torch.tensor([[TINY_HEIGHT, TINY_WIDTH], [TINY_HEIGHT - 9, TINY_WIDTH - 5]])
    boxes = torch.tensor([[10.0, 8, 50, 44], [60.5, 20, 90, 63], [2, 2, 12, 12]])
    targets = [
        Target(boxes=boxes, classes=torch.arange(3), seed=1),
        Target(boxes=boxes[:0], classes=torch.arange(0), seed=2),
    ]
    return images, sizes, targets


@torch.no_grad()
def losses_of(config: Config) -> dict[str, float]:
    """The losses of a fresh detector on two pictures, in which it finds something, too."""
    torch.manual_seed(0)
    detector = build_detector(config).train()
    losses = DetectorLosses(config.model)(detector, *two_pictures())
    assert all(loss.isfinite() for loss in losses.values())
    assert_infers(detector)
    return {name: loss.item() for name, loss in losses.items()}


def step(config: Config) -> dict[str, float]:
    """One step of gradient descent on two pictures, of which one is empty; the losses before."""
    torch.manual_seed(0)
    detector = build_detector(config).train()
    images, sizes, targets = two_pictures()
    optimiser = torch.optim.SGD(detector.parameters(), lr=1e-3)
    before = [parameter.clone() for parameter in detector.parameters()]
    losses = DetectorLosses(config.model)(detector, images, sizes, targets)
    total = torch.stack(list(losses.values())).sum()
    assert total.isfinite()
    total.backward()  # type: ignore[no-untyped-call]
    optimiser.step()
    after = list(detector.parameters())
    assert all(parameter.grad is not None for parameter in after)
    assert any(not torch.equal(a, b) for a, b in zip(before, after, strict=True))
    assert_infers(detector)
    return {name: loss.item() for name, loss in losses.items()}


@torch.no_grad()
def assert_infers(detector: AnyDetector) -> None:
    """It finds something finite in each of the two pictures."""
    images, sizes, _ = two_pictures()
    found = detector.eval()(images, sizes, torch.tensor(0.0))
    assert all(torch.isfinite(part).all() for part in found)
    assert (found.num_detections > 0).all()
