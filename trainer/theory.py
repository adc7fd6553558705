"""The probabilities of a two-stage detector: the joint score, what training maximises, its bounds.

A candidate is an object with P(object), and then of class c with P(c | object), background too:
the second stage may overrule the first. All functions take tensors of probabilities in [0, 1] that
broadcast against each other, and work element by element; log 0 is -inf. Training computes the
same from logits (docs/framework.md).

Source: arXiv 2103.07461, Sec. 4 and App. A.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

LARGEST_GAP = math.log(2)  # between log P(background) and the larger of its two bounds


def class_probability(p_object: Tensor, p_class: Tensor) -> Tensor:
    """P(class) = P(class | object) P(object) of a class that is not background; Eq. 1."""
    return p_class * p_object


def background_probability(p_object: Tensor, p_background: Tensor) -> Tensor:
    """P(background) = P(background | object) P(object) + 1 - P(object); Eq. 1."""
    return p_background * p_object + (1 - p_object)


def positive_objective(p_object: Tensor, p_class: Tensor) -> Tensor:
    """log P(class) of an annotated object: a term for each stage, which learn apart; Eq. 2."""
    return torch.log(p_class) + torch.log(p_object)


def background_objective(p_object: Tensor, p_background: Tensor) -> Tensor:
    """log P(background) where no object is: not a sum of terms of one stage each."""
    return torch.logaddexp(torch.log1p(-p_object), torch.log(p_object) + torch.log(p_background))


def second_stage_bound(p_object: Tensor, p_background: Tensor) -> Tensor:
    """P(object) log P(background | object) <= log P(background); Eq. 3, Jensen's inequality.

    The second stage learns background from what the first takes for objects. Exact for P(object)
    = 0 or 1 and for P(background | object) = 1; else as loose as can be as the latter goes to 0.
    """
    return torch.xlogy(p_object, p_background)


def first_stage_bound(p_object: Tensor) -> Tensor:
    """log (1 - P(object)) <= log P(background); Eq. 4.

    The first stage learns background everywhere. Exact for P(background | object) = 0, and for
    P(object) = 0.
    """
    return torch.log1p(-p_object)


def larger_bound(p_object: Tensor, p_background: Tensor) -> Tensor:
    """The larger of the two, nowhere more than log 2 below log P(background); App. A.

    With a = 1 - P(object) and b = P(object) P(background | object), P(background) = a + b is at
    most twice the larger one. Where that is a, Eq. 4 has its logarithm; where it is b, Eq. 3 is
    above log b, as P(object) log P(background | object) >= log P(background | object).
    """
    return torch.maximum(second_stage_bound(p_object, p_background), first_stage_bound(p_object))
