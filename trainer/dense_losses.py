"""The loss functions of dense first stages but CenterNet: tensors in, one number out, summed."""

from __future__ import annotations

import torch
import torchvision.ops  # type: ignore[import-untyped]
from torch import Tensor
from torch.nn import functional


def focal_loss(logits: Tensor, targets: Tensor, *, alpha: float, gamma: float) -> Tensor:
    """Cross-entropy of sigmoids in which the easy ones fade, summed.

    Args:
        logits: (M, C).
        targets: (M, C) of 0 and 1.
        alpha: weight of the ones; zeros have 1 - alpha.
        gamma: how fast easy ones fade.
    Source: RetinaNet, arXiv 1708.02002, Eq. 5.
    """
    found: Tensor = torchvision.ops.sigmoid_focal_loss(
        logits, targets, alpha=alpha, gamma=gamma, reduction="sum"
    )
    return found


def quality_focal_loss(logits: Tensor, qualities: Tensor, *, beta: float) -> Tensor:
    """Cross-entropy of sigmoids with targets between 0 and 1, those near their target fade; summed.

    Args:
        logits: (M, C).
        qualities: (M, C) in [0, 1].
        beta: how fast they fade: each has the weight |quality - probability|^beta.
    Source: GFL, arXiv 2006.04388, Eq. 5.
    """
    entropy = functional.binary_cross_entropy_with_logits(logits, qualities, reduction="none")
    return (entropy * (qualities - logits.sigmoid()).abs() ** beta).sum()


def distribution_focal_loss(logits: Tensor, distances: Tensor) -> Tensor:
    """Cross-entropy of distributions whose wanted mean lies between two bins, each of them.

    Args:
        logits: (P, 4 * bins), of distances 0, 1, ... bins - 1.
        distances: (P, 4), those above the last bin count as just below it.
    Returns:
        (P,), the mean over the four sides.
    Source: GFL, arXiv 2006.04388, Eq. 6.
    """
    by_side = logits.reshape(len(logits), 4, logits.shape[1] // 4)  # (P, 4, bins)
    wanted = distances.clamp(0, by_side.shape[-1] - 1 - 0.01)  # so that there is a bin above
    below = wanted.floor().long()
    chances = by_side.log_softmax(dim=-1)
    share = wanted - below  # of the bin above
    low = chances.gather(2, below[..., None])[..., 0]
    high = chances.gather(2, below[..., None] + 1)[..., 0]
    return -(low * (1 - share) + high * share).mean(dim=1)


def box_giou_losses(boxes: Tensor, targets: Tensor) -> Tensor:
    """1 - generalised IoU of pairs of boxes (P, 4): (P,) in [0, 2]; arXiv 1902.09630.

    Boxes keep an order of their corners, as decoded ones do; without area they overlap nothing.
    """
    found: Tensor = torchvision.ops.generalized_box_iou_loss(boxes, targets)
    return found


def smooth_l1_loss(deltas: Tensor, targets: Tensor, *, beta: float) -> Tensor:
    """Absolute errors less beta / 2, below beta half their squares / beta; summed.

    Args:
        deltas: (P, 4).
        targets: (P, 4).
        beta: 0: plain absolute errors.
    Source: Fast R-CNN, arXiv 1504.08083, Eq. 3.
    """
    if beta == 0:
        return (deltas - targets).abs().sum()
    return functional.smooth_l1_loss(deltas, targets, reduction="sum", beta=beta)


def centerness_of(ltrb: Tensor) -> Tensor:
    """How central a location is in its box: (P, 4) distances > 0 -> (P,) in (0, 1].

    Source: FCOS, arXiv 1904.01355, Eq. 3.
    """
    horizontal, vertical = ltrb[:, 0::2], ltrb[:, 1::2]
    ratios = horizontal.amin(1) * vertical.amin(1) / (horizontal.amax(1) * vertical.amax(1))
    return torch.sqrt(ratios)
