"""Relaxed sorting networks: ``sorted = x P`` and ``P t = W_1 (W_2 ... (W_C t))``, not forming P.

A program instance takes a block of rows through one layer at a time, all wires at once. Wire i
meets its partner, which is itself if the layer has no comparator for it; ``sign`` is 1 at a
comparator's end a, -1 at its end b, 0 at a wire without comparator. With w = F(beta delta), both
ends compute the same

    ``delta = sign (v_partner - v),  v' = v_partner - sign w delta``

so each comparator is computed twice, and any network fits the same layout of wires. Between a
forward and a backward sweep the results of a block's comparators stay in the instance's own slice.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from ..constant import constant
from ..network import SortCall, layers
from .config import processors

__all__ = ["sort_network_backward", "sort_network_forward"]

#: numbers per block: its rows times wires; few, so that thousands of short rows make many blocks
TILE = 256
#: bytes of all instances' slices together, unless a single slice is larger. The slices of a forward
#: pass hold w of every layer; those of a backward pass hold w, delta, g_b - g_a and dw, in this
#: order.
SCRATCH = 64 << 20
#: eps of logistic_phi, for a difference of zero
EPS = tl.constexpr(1e-10)


@triton.jit
def atan(v):
    """The argument is reduced by pi / 2 if |v| is above tan(3 pi / 8), by pi / 4 if it is above
    tan(pi / 8). The rest is q - q^3 / 3 + q^5 / 5 - ... to the last digit of the dtype.
    """
    TERMS: tl.constexpr = 21 if v.dtype == tl.float64 else 9
    size = tl.abs(v)
    steep, middle = size > 2.414213562373095, size > 0.41421356237309503
    above = tl.where(steep, -1.0, tl.where(middle, size - 1.0, size))
    below = tl.where(steep, size, tl.where(middle, size + 1.0, 1.0))
    angle = (steep.to(v.dtype) + middle.to(v.dtype)) * 0.7853981633974483
    q = above / below
    z = q * q
    p = tl.full(v.shape, 1.0 / (2 * TERMS - 1), v.dtype)
    for k in tl.static_range(1, TERMS):
        p = 1.0 / (2 * (TERMS - k) - 1) - z * p
    found = angle + q * p
    return tl.where(v < 0, -found, found)


@triton.jit
def damping(delta, ART: tl.constexpr):
    """1 / |delta|^lambda"""
    return tl.exp(-ART * tl.log(tl.abs(delta) + EPS))


@triton.jit
def weight(delta, beta, F: tl.constexpr, ART: tl.constexpr):
    """The weight with which a comparator keeps its inputs in order: w = F(beta delta)."""
    v = beta * delta
    if F == "cauchy":
        return atan(v) * 0.3183098861837907 + 0.5
    elif F == "logistic":
        return 1.0 / (1.0 + tl.exp(-v))
    elif F == "logistic_phi":
        return 1.0 / (1.0 + tl.exp(-v * damping(delta, ART)))
    elif F == "gaussian":
        return 0.5 * (1.0 + tl.erf(v * 0.7071067811865476))
    elif F == "reciprocal":
        return 0.5 * (v / (2.0 + tl.abs(v)) + 1.0)
    else:
        size = tl.abs(v)
        rest = 1.0 / (16.0 * tl.where(size < 0.25, 0.25, size))
        return tl.where(size <= 0.25, v + 0.5, tl.where(v > 0, 1.0 - rest, rest))


@triton.jit
def slopes(delta, w, beta, F: tl.constexpr, ART: tl.constexpr):
    """The derivatives of w with respect to delta and beta."""
    v = beta * delta
    size = tl.abs(v)
    if F == "cauchy":
        density = 0.3183098861837907 / (1.0 + v * v)
    elif F == "logistic" or F == "logistic_phi":
        density = w * (1.0 - w)
    elif F == "gaussian":
        density = 0.3989422804014327 * tl.exp(-0.5 * v * v)
    elif F == "reciprocal":
        density = 1.0 / ((2.0 + size) * (2.0 + size))
    else:
        far = tl.where(size < 0.25, 0.25, size)
        density = 1.0 / (16.0 * far * far)
    by_delta, by_beta = density * beta, density * delta
    if F == "logistic_phi":
        damped, size = damping(delta, ART), tl.abs(delta)
        by_delta *= damped * (1.0 - ART * size / (size + EPS))
        by_beta *= damped
    return by_delta, by_beta


@triton.jit
def meet(v, partners, layer, BLOCK: tl.constexpr, WIRES: tl.constexpr):
    """The value of every wire's partner, the wire's sign, and the difference between b and a."""
    i = tl.arange(0, WIRES)
    partner = tl.load(partners + layer * WIRES + i)
    sign = ((partner > i).to(tl.int32) - (partner < i).to(tl.int32)).to(v.dtype)[None, :]
    other = tl.gather(v, tl.broadcast_to(partner[None, :], (BLOCK, WIRES)), 1)
    return other, sign, tl.where(sign == 0, 0.0, sign * (other - v))


@triton.jit
def sort(
    x, beta, partners, layers, kept, size, BACKWARD: tl.constexpr,
    F: tl.constexpr, ART: tl.constexpr, BLOCK: tl.constexpr, WIRES: tl.constexpr,
):  # fmt: skip
    """Sends x forwards through all layers, and stores what the other sweeps need."""
    for layer in range(layers):
        other, sign, delta = meet(x, partners, layer, BLOCK, WIRES)
        w = weight(delta, beta, F, ART)
        at = kept + layer * BLOCK * WIRES
        tl.store(at, w)
        if BACKWARD:
            tl.store(at + size, delta)
            tl.store(at + 3 * size, tl.zeros_like(delta))
        x = other - sign * w * delta
    tl.debug_barrier()
    return x


@triton.jit
def forward_kernel(
    x, t, beta, partners, values, mass, scratch, rows, n, layers, masses, stride,
    F: tl.constexpr, ART: tl.constexpr, BLOCK: tl.constexpr, WIRES: tl.constexpr,
):  # fmt: skip
    """``stride``: the distance between the masses of two rows; 0 if all rows share them."""
    r, i = tl.arange(0, BLOCK).to(tl.int64)[:, None], tl.arange(0, WIRES)[None, :]
    size = layers * BLOCK * WIRES
    kept = scratch + tl.program_id(0).to(tl.int64) * size + r * WIRES + i
    for block in range(tl.program_id(0), tl.cdiv(rows, BLOCK), tl.num_programs(0)):
        row = block * BLOCK + r
        valid = (row < rows) & (i < n)
        steepness = tl.load(beta + row, mask=row < rows, other=1.0)
        own = tl.load(x + row * n + i, mask=valid, other=0.0)
        own = sort(own, steepness, partners, layers, kept, size, False, F, ART, BLOCK, WIRES)
        tl.store(values + row * n + i, own, mask=valid)
        for k in range(masses):
            v = tl.load(t + row * stride + k * n + i, mask=valid, other=0.0)
            for up in range(layers):
                layer = layers - 1 - up
                other, sign, difference = meet(v, partners, layer, BLOCK, WIRES)
                v = other - sign * tl.load(kept + layer * BLOCK * WIRES) * difference
            tl.store(mass + (row * masses + k) * n + i, v, mask=valid)
        tl.debug_barrier()


@triton.jit
def of_one_mass(
    k, t, of_mass, dt, partners, kept, size, row, i, valid, n, layers, masses, stride,
    WANTED: tl.constexpr, BLOCK: tl.constexpr, WIRES: tl.constexpr,
):  # fmt: skip
    """g forwards, which results in dt, and t backwards: ``dw += (g_b - g_a) (v_b - v_a)``."""
    g = tl.load(of_mass + (row * masses + k) * n + i, mask=valid, other=0.0)
    for layer in range(layers):
        other, sign, difference = meet(g, partners, layer, BLOCK, WIRES)
        at = kept + layer * BLOCK * WIRES
        tl.store(at + 2 * size, difference)
        g = other - sign * tl.load(at) * difference
    if WANTED:
        tl.store(dt + (row * masses + k) * n + i, g, mask=valid)
    tl.debug_barrier()
    v = tl.load(t + row * stride + k * n + i, mask=valid, other=0.0)
    for up in range(layers):
        layer = layers - 1 - up
        other, sign, difference = meet(v, partners, layer, BLOCK, WIRES)
        at = kept + layer * BLOCK * WIRES
        tl.store(at + 3 * size, tl.load(at + 3 * size) + tl.load(at + 2 * size) * difference)
        v = other - sign * tl.load(at) * difference
    tl.debug_barrier()


@triton.jit
def backward_kernel(
    x, t, beta, partners, of_values, of_mass, dx, dt, dbeta, scratch,
    rows, n, layers, masses, stride,
    NEEDS: tl.constexpr, F: tl.constexpr, ART: tl.constexpr, BLOCK: tl.constexpr,
    WIRES: tl.constexpr,
):  # fmt: skip
    """x forwards, every mass, and the sorted row's gradient r backwards:
    ``dw += (r_b - r_a) delta``, then ``r <- W r, r_a -= F' dw, r_b += F' dw``. The result is dx.
    """
    r, i = tl.arange(0, BLOCK).to(tl.int64)[:, None], tl.arange(0, WIRES)[None, :]
    size = layers * BLOCK * WIRES
    kept = scratch + tl.program_id(0).to(tl.int64) * size * 4 + r * WIRES + i
    for block in range(tl.program_id(0), tl.cdiv(rows, BLOCK), tl.num_programs(0)):
        row = block * BLOCK + r
        valid = (row < rows) & (i < n)
        steepness = tl.load(beta + row, mask=row < rows, other=1.0)
        own = tl.load(x + row * n + i, mask=valid, other=0.0)
        sort(own, steepness, partners, layers, kept, size, True, F, ART, BLOCK, WIRES)
        for k in range(masses):
            of_one_mass(
                k, t, of_mass, dt, partners, kept, size, row, i, valid, n, layers, masses, stride,
                NEEDS[1], BLOCK, WIRES,
            )  # fmt: skip
        own = tl.load(of_values + row * n + i, mask=valid, other=0.0)
        of_beta = tl.zeros_like(own)
        for up in range(layers):
            layer = layers - 1 - up
            other, sign, difference = meet(own, partners, layer, BLOCK, WIRES)
            at = kept + layer * BLOCK * WIRES
            w, delta = tl.load(at), tl.load(at + size)
            dw = tl.load(at + 3 * size) + difference * delta
            by_delta, by_beta = slopes(delta, w, steepness, F, ART)
            own = other - sign * (w * difference + by_delta * dw)
            of_beta += tl.where(sign > 0, by_beta * dw, 0.0)
        if NEEDS[0]:
            tl.store(dx + row * n + i, own, mask=valid)
        if NEEDS[2]:
            found = tl.sum(of_beta, 1, keep_dims=True)
            tl.store(dbeta + row, found, mask=row < rows)
        tl.debug_barrier()


@lru_cache(maxsize=64)
def partners(network: str, n: int, device: torch.device) -> Tensor:
    """Every wire's partner in every layer, padded to the number of wires that a kernel takes."""
    found = layers(network, n)
    wires = max(2, triton.next_power_of_2(n))
    table = [list(range(wires)) for _ in found]
    for own, layer in zip(table, found, strict=True):
        for a, b in layer:
            own[a], own[b] = b, a
    return constant(table, torch.int32, device).view(-1, wires)


def launch(kernel: Any, call: SortCall, arrays: int, *tensors: Tensor, **options: Any) -> None:
    """Launches a kernel; ``tensors`` are its arguments between the network and the scratch."""
    table = partners(call.network, call.x.shape[1], call.x.device)
    (rows, n), (depth, wires), masses = call.x.shape, table.shape, call.t.shape[1]
    block = max(1, TILE // wires)
    size = arrays * max(1, depth) * block * wires
    affordable = max(1, SCRATCH // (size * call.x.element_size()))
    instances = min(triton.cdiv(rows, block), 8 * processors(call.x.device), affordable)
    if instances:
        kernel[(instances,)](
            call.x.contiguous(), call.t.contiguous(), call.steepness.contiguous(), table,
            *tensors, call.x.new_empty(instances * size), rows, n, depth, masses,
            masses * n if len(call.t) == rows else 0,
            F=call.distribution, ART=call.art_lambda, BLOCK=block, WIRES=wires, **options,
        )  # fmt: skip


def sort_network_forward(call: SortCall) -> tuple[Tensor, Tensor]:
    """Sorted rows (R, n) and masses P t (R, T, n)."""
    values = torch.empty_like(call.x, memory_format=torch.contiguous_format)
    mass = call.x.new_empty(len(call.x), *call.t.shape[1:])
    launch(forward_kernel, call, 1, values, mass)
    return values, mass


def sort_network_backward(
    call: SortCall, grad_sorted: Tensor, grad_mass: Tensor, needs: Sequence[bool]
) -> tuple[Tensor | None, ...]:
    """The gradients of x, t and steepness; None where ``needs`` is false."""
    grads = grad_sorted.contiguous(), grad_mass.contiguous()
    shapes = grads[0].shape, grads[1].shape, call.steepness.shape
    found = [
        call.x.new_empty(shape if need else 0) for shape, need in zip(shapes, needs, strict=True)
    ]
    launch(backward_kernel, call, 4, *grads, *found, NEEDS=tuple(needs))
    return tuple(grad if need else None for grad, need in zip(found, needs, strict=True))
