"""Shared by losses of features, the columns of a batch (Barlow Twins, VICReg, JEPA)."""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["standardised", "variance_hinge"]


def standardised(x: Tensor, eps: float, fewer: int = 0) -> Tensor:
    """The columns of x, (N, D), with mean 0 and variance 1, of N - ``fewer`` rows."""
    x = x - x.mean(0)
    return x * torch.rsqrt(x.square().sum(0) / max(x.shape[0] - fewer, 1) + eps)


def variance_hinge(z: Tensor, gamma: float, eps: float, weights: Tensor | None = None) -> Tensor:
    r"""The mean over features of :math:`[\gamma - \sqrt{\text{var} + \epsilon}]_+`, (...) of
    (..., N, D). Variances are unbiased and over the rows that ``weights``, (..., N) of 0 and 1,
    marks; those of one row are 0, and the result of none is 0."""
    if weights is None:
        weights = torch.ones_like(z[..., 0])
    weights = weights.to(z.dtype).unsqueeze(-1)
    z = torch.where(weights > 0, z, 0.0)
    count = weights.sum(-2)
    mean = (weights * z).sum(-2) / count.clamp_min(1)
    squares = (weights * (z - mean.unsqueeze(-2))).square().sum(-2)
    deviation = torch.sqrt(squares / (count - 1).clamp_min(1) + eps)
    return torch.where(count > 0, torch.relu(gamma - deviation), 0.0).mean(-1)
