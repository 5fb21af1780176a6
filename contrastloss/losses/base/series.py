"""Shared by losses of time series (B, T, D)."""

from __future__ import annotations

import torch
from torch import Tensor

from ...channel import LSE, SUM, differs, same
from .loss import softplus
from .positive_loss import INSTANCE
from .scores import Scores

__all__ = ["between", "dense_between", "in_turn"]


CHANNELS = (LSE(pairs=(differs(INSTANCE),)), SUM("id", pairs=(same(INSTANCE),)))


def in_turn(x: Tensor, y: Tensor) -> Tensor:
    """The rows of x, (..., N, D), and then those of y."""
    return torch.cat([x, y], -2)


def between(scores: Scores) -> Tensor:
    """NT-Xent between two views, each item of the leading dimensions by itself: the mean over both
    views, (..., N). The scores are of the views' rows :func:`in_turn` with themselves."""
    n = scores.x.shape[-2] // 2
    instance = torch.arange(2 * n, device=scores.x.device) % max(n, 1)
    negative, positive = scores.stats(CHANNELS, {INSTANCE: scores.distinct(instance)})
    return softplus(negative - positive).unflatten(-1, (2, n)).mean(-2)


def dense_between(
    x: Tensor, y: Tensor, scale: Tensor | float, bias: Tensor | float = 0.0
) -> Tensor:
    n, both = x.shape[-2], torch.cat([x, y], -2)
    own = torch.eye(2 * n, dtype=torch.bool, device=x.device)
    s = (scale * (both @ both.mT) + bias).masked_fill(own, -torch.inf)
    positive = (scale * (x * y).sum(-1) + bias).repeat(*[1] * (x.ndim - 2), 2)
    return (s.logsumexp(-1) - positive).unflatten(-1, (2, n)).mean(-2)
