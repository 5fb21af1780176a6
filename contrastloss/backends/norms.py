"""Norms of embeddings, unit vectors and their gradients."""

from __future__ import annotations

import torch
from torch import Tensor

from .call import stat_dtype

__all__ = ["inverse_norm", "rounding", "tangential", "unit", "unit_gradient"]

#: the eps of torch.nn.functional.normalize
EPS = 1e-12


def rounding(x: Tensor) -> float:
    """The rounding error of a score of unit vectors (..., D) with scale 1, if its products are
    added in another order: max(8, sqrt(D)) eps. Scores that differ from a bound by less than this
    are ties."""
    return max(8.0, x.shape[-1] ** 0.5) * torch.finfo(stat_dtype(x)).eps


def inverse_norm(x: Tensor) -> Tensor:
    """``1 / max(|x|, eps)`` over the last dimension, in the statistics' dtype. It is 0 for a zero
    vector, whose cosines are then 0 with zero gradient (``F.normalize`` gives 0 with a gradient of
    order 1e12). The vector is first divided by the power of two of its largest entry, because
    squares have half the range of their dtype."""
    x = x.to(stat_dtype(x))
    top = torch.maximum(x.detach().amax(-1), -x.detach().amin(-1))
    size = _power_of_two(top.clamp_min(EPS))
    norm = torch.linalg.vector_norm(x / size.unsqueeze(-1), dim=-1)
    inverse = torch.maximum(norm, EPS / size).reciprocal() / size
    return torch.where(top == 0, 0.0, inverse)


def _power_of_two(x: Tensor) -> Tensor:
    """The largest power of two below each positive normal number, from its bits; infinite for
    NaN."""
    if x.dtype == torch.float64:
        return (x.view(torch.int64) & 0x7FF0000000000000).view(x.dtype)
    return (x.view(torch.int32) & 0x7F800000).view(x.dtype)


def unit(x: Tensor) -> Tensor:
    """``x / max(|x|, eps)``, in the statistics' dtype."""
    return x * inverse_norm(x).unsqueeze(-1)


def unit_gradient(x: Tensor, grad: Tensor) -> Tensor:
    """The gradient of x, given the gradient of its unit vector."""
    r = inverse_norm(x).unsqueeze(-1)
    return tangential(x, r * grad, r)


def tangential(x: Tensor, grad: Tensor, r: Tensor) -> Tensor:
    """``g - u <u, g>`` with ``u = x r``: the gradient of x, given the gradient g that reaches x
    through u for a fixed r. Where the norm is below eps, r is a constant and the result is g."""
    u = x * r
    radial = torch.where(r < 1.0 / EPS, (u * grad).sum(-1, keepdim=True), 0.0)
    return torch.addcmul(grad, u, radial, value=-1)
