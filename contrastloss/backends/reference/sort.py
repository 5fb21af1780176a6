"""Relaxed sorting networks, a layer at a time; gradients are autograd's."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from ..network import SortCall, layers

#: of logistic_phi, where the difference is zero
EPS = 1e-10


def swap_weight(distribution: str, delta: Tensor, beta: Tensor, art_lambda: float) -> Tensor:
    """How much of a comparator's order stays: w = F(beta delta)."""
    v = beta * delta
    if distribution == "cauchy":
        return torch.atan(v) / math.pi + 0.5
    if distribution == "logistic":
        return torch.sigmoid(v)
    if distribution == "logistic_phi":
        return torch.sigmoid(v / (delta.abs() + EPS) ** art_lambda)
    if distribution == "gaussian":
        return 0.5 * (1.0 + torch.erf(v / math.sqrt(2.0)))
    if distribution == "reciprocal":
        return 0.5 * (v / (2.0 + v.abs()) + 1.0)
    far = v.abs().clamp_min(0.25)
    outside = torch.where(v > 0, 1.0 - 1.0 / (16.0 * far), 1.0 / (16.0 * far))
    return torch.where(v.abs() <= 0.25, v + 0.5, outside)


def _swapped(values: Tensor, a: Tensor, b: Tensor, w: Tensor) -> Tensor:
    """W of one layer times values (..., n)."""
    low, high = values[..., a], values[..., b]
    moved = w * (high - low)
    return values.index_copy(-1, torch.cat([a, b]), torch.cat([high - moved, low + moved], -1))


def sort_network_forward(call: SortCall) -> tuple[Tensor, Tensor]:
    """Sorted rows (R, n) and masses P t (R, T, n)."""
    x, beta, passed = call.x, call.steepness.unsqueeze(1), []
    for layer in layers(call.network, x.shape[1]):
        a, b = (torch.tensor([pair[k] for pair in layer], device=x.device).long() for k in (0, 1))
        w = swap_weight(call.distribution, x[:, b] - x[:, a], beta, call.art_lambda)
        x = _swapped(x, a, b, w)
        passed.append((a, b, w))
    mass = call.t.expand(len(x), -1, -1)
    for a, b, w in reversed(passed):
        mass = _swapped(mass, a, b, w.unsqueeze(1))
    return x, mass.clone() if mass is call.t or not passed else mass


def sort_network_backward(
    call: SortCall, grad_sorted: Tensor, grad_mass: Tensor, needs: Sequence[bool]
) -> tuple[Tensor | None, ...]:
    """Gradients of x, t and steepness; None where ``needs`` has no flag."""
    operands = call.x, call.t, call.steepness
    with torch.enable_grad():
        leaves = [v.detach().requires_grad_(need) for v, need in zip(operands, needs, strict=True)]
        again = SortCall(*leaves, call.art_lambda, call.network, call.distribution)
        outputs = sort_network_forward(again)
        found = iter(
            torch.autograd.grad(
                outputs,
                [leaf for leaf in leaves if leaf.requires_grad],
                [grad_sorted, grad_mass],
                materialize_grads=True,
            )
        )
    return tuple(next(found) if need else None for need in needs)
