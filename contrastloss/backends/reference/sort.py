"""Relaxed sorting networks, one layer at a time."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from ..network import SortCall, layers

__all__ = [
    "EPS",
    "slopes",
    "sort_network_backward",
    "sort_network_forward",
    "swap_weight",
]

#: eps of logistic_phi, for a difference of zero
EPS = 1e-10


def swap_weight(distribution: str, delta: Tensor, beta: Tensor, art_lambda: float) -> Tensor:
    """The weight with which a comparator keeps its inputs in order: w = F(beta delta)."""
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


def slopes(call: SortCall, delta: Tensor, w: Tensor) -> tuple[Tensor, Tensor]:
    """The derivatives of w with respect to delta and beta."""
    beta = call.steepness.unsqueeze(1)
    v = beta * delta
    damping = bend = torch.ones_like(v)
    if call.distribution == "cauchy":
        density = 1.0 / (math.pi * (1.0 + v * v))
    elif call.distribution == "logistic":
        density = w * (1.0 - w)
    elif call.distribution == "logistic_phi":
        size = delta.abs()
        density, damping = w * (1.0 - w), (size + EPS) ** -call.art_lambda
        bend = 1.0 - call.art_lambda * size / (size + EPS)
    elif call.distribution == "gaussian":
        density = torch.exp(-0.5 * v * v) / math.sqrt(2.0 * math.pi)
    elif call.distribution == "reciprocal":
        density = 1.0 / (2.0 + v.abs()) ** 2
    else:
        density = torch.where(v.abs() <= 0.25, 1.0, 1.0 / (16.0 * v.abs().clamp_min(0.25) ** 2))
    density = density * damping
    return density * beta * bend, density * delta


class _Layer(NamedTuple):
    a: Tensor
    b: Tensor
    delta: Tensor
    w: Tensor

    def mix(self, values: Tensor) -> tuple[Tensor, Tensor]:
        """Applies W to values (R, T, n). Also returns the differences ``v_b - v_a`` from before."""
        low, high = values[..., self.a], values[..., self.b]
        difference = high - low
        moved = self.w.unsqueeze(1) * difference
        ends = torch.cat([self.a, self.b])
        mixed = values.index_copy(-1, ends, torch.cat([high - moved, low + moved], -1))
        return mixed, difference


def _sort(call: SortCall) -> tuple[Tensor, list[_Layer]]:
    x, beta, found = call.x.unsqueeze(1), call.steepness.unsqueeze(1), []
    for layer in layers(call.network, call.x.shape[1]):
        a, b = torch.tensor(layer, device=x.device, dtype=torch.int64).reshape(-1, 2).unbind(1)
        delta = x[:, 0, b] - x[:, 0, a]
        w = swap_weight(call.distribution, delta, beta, call.art_lambda)
        found.append(_Layer(a, b, delta, w))
        x, _ = found[-1].mix(x)
    return x.squeeze(1), found


def sort_network_forward(call: SortCall) -> tuple[Tensor, Tensor]:
    """Sorted rows (R, n) and masses P t (R, T, n)."""
    values, found = _sort(call)
    mass = call.t.repeat(len(values) // len(call.t), 1, 1) if len(call.t) else call.t.clone()
    for layer in reversed(found):
        mass, _ = layer.mix(mass)
    return values.clone(), mass


def sort_network_backward(
    call: SortCall, grad_sorted: Tensor, grad_mass: Tensor, needs: Sequence[bool]
) -> tuple[Tensor | None, ...]:
    """The gradients of x, t and steepness; None where ``needs`` is false. The gradients of the
    weights are

        ``dw = sum_t (g_b - g_a) (v_b - v_a) + (r_b - r_a) delta``

    with v the masses, which go backwards through the network, the gradients g of the masses, which
    go forwards, and the gradients r of the sorted row, which go backwards; each is taken before the
    comparator.
    """
    _, found = _sort(call)
    mass, kept, of_swaps = call.t.expand(len(call.x), -1, -1), [], []
    for layer in reversed(found):
        mass, difference = layer.mix(mass)
        kept.append(difference)
    g = grad_mass
    for layer, difference in zip(found, reversed(kept), strict=True):
        g, own = layer.mix(g)
        of_swaps.append((own * difference).sum(1))
    r, d_beta = grad_sorted.unsqueeze(1), torch.zeros_like(call.steepness)
    for layer, of_swap in zip(reversed(found), reversed(of_swaps), strict=True):
        r, own = layer.mix(r)
        total = of_swap + own[:, 0] * layer.delta
        by_delta, by_beta = slopes(call, layer.delta, layer.w)
        moved = (by_delta * total).unsqueeze(1)
        r = r.index_add(-1, layer.b, moved).index_add(-1, layer.a, -moved)
        d_beta = d_beta + (by_beta * total).sum(1)
    return tuple(
        grad if need else None for grad, need in zip((r.squeeze(1), g, d_beta), needs, strict=True)
    )
