"""Shared by losses of time series (B, T, D)."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from ...channel import LSE, SUM, differs, same
from ...ops.check import check_device, check_embeddings, shape
from .checks import check_finite
from .loss import ScoreLoss, softplus
from .pair_loss import INSTANCE
from .scores import Scores

__all__ = ["between", "check_series", "dense_between"]


CHANNELS = (LSE(pairs=(differs(INSTANCE),)), SUM("id", pairs=(same(INSTANCE),)))


def between(score: Callable[..., Scores], x: Tensor, y: Tensor) -> Tensor:
    """NT-Xent of the rows of x and y, (..., N, D), within each leading place: the mean of both
    views, (..., N). ``score`` makes the scores of rows against themselves."""
    n = x.shape[-2]
    instance = torch.arange(2 * n, device=x.device) % max(n, 1)
    negative, positive = score(torch.cat([x, y], -2), None).stats(CHANNELS, {INSTANCE: instance})
    return softplus(negative - positive).unflatten(-1, (2, n)).mean(-2)


def dense_between(x: Tensor, y: Tensor, scale: Tensor | float) -> Tensor:
    n, both = x.shape[-2], torch.cat([x, y], -2)
    own = torch.eye(2 * n, dtype=torch.bool, device=x.device)
    s = (scale * (both @ both.mT)).masked_fill(own, -torch.inf)
    positive = (scale * (x * y).sum(-1)).repeat(*[1] * (x.ndim - 2), 2)
    return (s.logsumexp(-1) - positive).unflatten(-1, (2, n)).mean(-2)


def check_series(loss: ScoreLoss, names: tuple[str, str], x: Tensor, y: Tensor) -> None:
    """Two tensors (B, T, D) of equal shape, with at least one time."""
    row, col = names
    check_embeddings(row, x)
    if x.ndim != 3 or not x.shape[1] or not x.shape[2]:
        raise ValueError(f"{row}: got shape {shape(x)}, expected (B, T, D) with T, D >= 1")
    check_embeddings(col, y, (row, x))
    check_device(col, y, row, x)
    if y.shape != x.shape:
        raise ValueError(f"{col}: got shape {shape(y)}, expected {row}'s {shape(x)}")
    if loss.validate:
        check_finite(**{row: x, col: y})
