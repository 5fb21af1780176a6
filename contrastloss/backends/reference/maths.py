"""The scalar functions of the channels for torch."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

__all__ = [
    "NEG_INF",
    "dpsi",
    "finite",
    "psi",
]

NEG_INF = float("-inf")


def psi(name: str, u: Tensor) -> Tensor:
    if name == "one":
        return torch.ones_like(u)
    if name == "id":
        return u
    if name == "square":
        return u.square()
    if name == "relu":
        return F.relu(u)
    if name == "relu2":
        return F.relu(u).square()
    if name == "softplus":
        return torch.logaddexp(u, torch.zeros_like(u))
    if name == "focal":
        return -torch.expm1(u) * u
    return torch.where(u.isnan(), u, (u > 0).to(u.dtype))


def dpsi(name: str, u: Tensor) -> Tensor:
    if name in ("one", "step"):
        return torch.zeros_like(u)
    if name == "id":
        return torch.ones_like(u)
    if name == "square":
        return 2.0 * u
    if name == "relu":
        return (u > 0).to(u.dtype)
    if name == "relu2":
        return 2.0 * F.relu(u)
    if name == "softplus":
        return torch.sigmoid(u)
    return -torch.expm1(u) - u * u.exp()


def finite(lse: Tensor) -> Tensor:
    """Replaces -inf by +inf, so that exp(z - lse) of an empty set is 0 and not NaN."""
    return torch.where(lse == NEG_INF, torch.inf, lse)
