"""Shared by losses of features, the columns of a batch (Barlow Twins, VICReg, JEPA)."""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["variance_hinge"]


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
