"""Importance weights of hard negatives and the debiasing by a class prior."""

from __future__ import annotations

import math
from typing import Any, Protocol

import torch
from torch import Tensor

from .loss import softplus
from .scores import Scores, log_count

__all__ = ["reweighted", "with_constant_weights"]


def with_constant_weights(found: Any, theta: float = 1.0) -> Tensor:
    """The mean of an ``EXPECT`` whose weights are constants: its gradient is that of the
    log-sum-exp, divided by theta. It is 0 where there are no pairs."""
    finite = torch.where(found.lse != -torch.inf, found.lse, 0.0)
    mean: Tensor = found.value.detach() + (finite - finite.detach()) / theta
    return mean


class Reweighting(Protocol):
    """The options of a loss with :func:`reweighted` rows."""

    beta: float
    tau_plus: float
    detach_weights: bool


def reweighted(
    loss: Reweighting,
    count: int | Tensor,
    hard: Tensor,
    weights: Tensor,
    positive: Tensor,
    scores: Scores,
) -> Tensor:
    """Losses of rows with ``count`` negatives each, of the log-sum-exps of (1 + beta) s and of
    beta s."""
    none = hard == -torch.inf
    hard, weights = (torch.where(none, 0.0, value) for value in (hard, weights))
    if loss.detach_weights:
        # of constant weights, the gradient by s is the softmax of (1 + beta) s
        held = hard.detach()
        hard = held + (hard - held) / (1.0 + loss.beta)
        weights = weights.detach()
    # all relative to e^P, which keeps the exponents small: log G = log M + P + excess
    excess = hard - weights - positive
    negative = excess
    if loss.tau_plus > 0:
        # G - tau+ M e^P = G (1 - t); t >= 1 leaves nothing, and the floor holds
        some = ~(excess <= math.log(loss.tau_plus))  # before the exponential, which may overflow
        t = loss.tau_plus * torch.exp(-torch.where(some, excess, 0.0))
        rest = torch.log1p(-t) - math.log1p(-loss.tau_plus)
        negative = torch.where(some, excess + rest, -torch.inf)
    least = -scores.inverse_temperature
    floor = (least if scores.bias is None else least + scores.bias) + -positive
    rest = torch.where(negative > floor, negative, floor)
    return torch.where(none, 0.0 * positive, softplus(log_count(count, rest) + rest))
