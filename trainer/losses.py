"""The loss functions: plain tensors in, one number out; nothing here changes its arguments."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

PROBABILITY_MARGIN = 1e-4  # probabilities are kept this far from 0 and 1


class HeatmapLoss(NamedTuple):
    """The two sums of the heat map's focal loss."""

    positive: Tensor  # []
    negative: Tensor  # []


def heatmap_focal_loss(
    logits: Tensor,
    targets: Tensor,
    positives: Tensor,
    *,
    alpha: float = 0.25,
    gamma: float = 2.0,
    beta: float = 4.0,
    ignore_high_negatives: float = 1.0,
) -> HeatmapLoss:
    """Focal loss of a centre heat map whose negatives count less near a centre.

    With p = sigmoid(logit), kept within [1e-4, 1 - 1e-4]:
        positive = -alpha * sum over positives of (1 - p)^gamma * log(p)
        negative = -(1 - alpha) * sum over all cells of (1 - target)^beta * p^gamma * log(1 - p)

    Args:
        logits: (M,) of all cells.
        targets: (M,) in [0, 1]; a cell with target 1 is no negative.
        positives: (P,) int64 indices into the cells; a repeated one counts as often.
        alpha: weight of the positives, in [0, 1].
        gamma: how fast easy cells fade.
        beta: how fast negatives fade near a centre.
        ignore_high_negatives: negatives with p at or above it are dropped, because there may be
            an object that nobody annotated.
    Returns:
        Both sums, not divided by anything; 0 with a gradient where there are no positives.
    Raises:
        ValueError: logits and targets differ in shape.
    Source: CornerNet, arXiv 1808.01244, Eq. 1; the balance alpha and the dropped negatives are
    the official CenterNet2 code's.
    """
    if logits.shape != targets.shape:
        raise ValueError(
            f"heatmap_focal_loss: expected targets {tuple(logits.shape)} as the logits, got "
            f"{tuple(targets.shape)}; flatten both to (M,)"
        )
    probability = logits.sigmoid().clamp(PROBABILITY_MARGIN, 1 - PROBABILITY_MARGIN)
    hit = probability[positives]
    positive = (-hit.log() * (1 - hit) ** gamma).sum()
    weight = (1 - targets) ** beta * (probability < ignore_high_negatives)
    negative = (-(1 - probability).log() * probability**gamma * weight).sum()
    return HeatmapLoss(alpha * positive, (1 - alpha) * negative)


def giou_loss(ltrb: Tensor, targets: Tensor) -> Tensor:
    """Generalised IoU loss of boxes that share their location, summed; see `giou_losses`."""
    return giou_losses(ltrb, targets).sum()


def giou_losses(ltrb: Tensor, targets: Tensor) -> Tensor:
    """Generalised IoU loss of each of some boxes that share their location with their target.

    Args:
        ltrb: (P, 4) predicted distances to the sides, >= 0.
        targets: (P, 4) true distances, > 0, in the same unit.
    Returns:
        (P,) 1 - (inter + 1) / (union + 1) + (hull - union) / hull. The + 1, in squared units
        of the distances, is the official code's; it favours no box but keeps tiny ones quiet.
    Raises:
        ValueError: the shapes differ or are not (P, 4).
    Source: arXiv 1902.09630, Algorithm 1.
    """
    if ltrb.shape != targets.shape or ltrb.ndim != 2 or ltrb.shape[1] != 4:
        raise ValueError(
            f"giou_loss: expected two tensors (P, 4), got {tuple(ltrb.shape)} and "
            f"{tuple(targets.shape)}"
        )
    smaller, larger = torch.minimum(ltrb, targets), torch.maximum(ltrb, targets)
    intersection = _area(smaller)
    union = _area(ltrb) + _area(targets) - intersection
    hull = _area(larger)
    overlap = (intersection + 1) / (union + 1)
    return 1 - overlap + (hull - union) / hull


def _area(ltrb: Tensor) -> Tensor:
    """(P,) width times height."""
    return (ltrb[:, :2] + ltrb[:, 2:]).prod(dim=1)


def classification_loss(logits: Tensor, classes: Tensor) -> Tensor:
    """Softmax cross-entropy, summed over RoIs.

    Args:
        logits: (R, C + 1), background last.
        classes: (R,) int64 in 0..C.
    Returns:
        []; 0 with a gradient where there are no RoIs.
    """
    return functional.cross_entropy(logits, classes, reduction="sum")


def sigmoid_classification_loss(
    logits: Tensor, classes: Tensor, counted: Tensor | None = None
) -> Tensor:
    """Binary cross-entropy of each class on its own, summed over RoIs and classes.

    Args:
        logits: (R, C + 1); the last column, of the background, has no loss.
        classes: (R,) int64 in 0..C; a background RoI, C, is a negative of every class.
        counted: (C,) bool, the classes that count; None: all.
    Returns:
        []; 0 with a gradient where there are no RoIs.
    """
    wanted = functional.one_hot(classes, logits.shape[1])[:, :-1].to(logits.dtype)
    found = functional.binary_cross_entropy_with_logits(logits[:, :-1], wanted, reduction="none")
    return found.sum() if counted is None else (found * counted).sum()


def box_delta_loss(deltas: Tensor, targets: Tensor) -> Tensor:
    """Absolute error of the positives' box deltas, summed.

    Divide it by the number of all RoIs rather than by P, and every positive weighs the same
    whatever their share.

    Args:
        deltas: (P, 4) predicted for the positive RoIs.
        targets: (P, 4) true deltas.
    Returns:
        []; 0 with a gradient where there are no positives.
    """
    return (deltas - targets).abs().sum()


def scale_gradient(values: Tensor, factor: float) -> Tensor:
    """The values unchanged; their gradient comes back multiplied by `factor`."""
    scaled: Tensor = _ScaleGradient.apply(values, factor)
    return scaled


class _ScaleGradient(torch.autograd.Function):
    """Identity forward, scaled backward."""

    @staticmethod
    def forward(ctx: Any, values: Tensor, factor: float) -> Tensor:
        ctx.factor = factor
        return values.view_as(values)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        return gradient * ctx.factor, None
