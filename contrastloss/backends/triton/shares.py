"""Statistics and their gradients as the factors of powers, before a backward pass.

The share of a pair in its row is e^(z - lse), and another one in its column. Both are multiples of
one power 2^(rate z - top), if the top is near the statistics of all rows and columns. So a backward
pass over pairs needs one exponential, and two vectors that are computed here."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import triton
import triton.language as tl
from torch import Tensor

from ...channel import ROW
from ..call import mask
from . import words
from .config import ceil_div
from .maths import LOG2E, NOTHING, finite, less
from .operands import KernelOperands
from .states import FARTHEST

__all__ = ["prepared"]

#: positions per program instance
BLOCK = 1024
#: exponents of 2 between a shared top and the least statistic, so that shares above 2^-46 are
#: normal numbers
BELOW = tl.constexpr(80.0)
#: and between the greatest statistic and the top
ABOVE = tl.constexpr(60.0)


@triton.jit
def load_lse(vectors, C: tl.constexpr, i, count):
    return tl.load(vectors[C][1] + i, mask=i < count, other=NOTHING)


@triton.jit(do_not_specialize=["rows", "cols", "blocks"])
def range_kernel(
    vectors, ranges, rows, cols, blocks, P: tl.constexpr, LIVE: tl.constexpr, BLOCK: tl.constexpr
):
    """The greatest and least statistic of each block of positions; -inf stands for none."""
    i = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    for c in tl.static_range(words.channels(P)):
        if words.partner(P, c, LIVE) >= 0:
            lse = load_lse(vectors, c, i, rows if words.channel(P, c, "axis") == 0 else cols)
            place = ranges + c * 2 * blocks + tl.program_id(0)
            tl.store(place, tl.max(lse, 0))
            tl.store(place + blocks, tl.min(tl.where(lse == NOTHING, float("inf"), lse), 0))


@triton.jit
def range_of(ranges, c, blocks, WIDTH: tl.constexpr):
    """The greatest and least statistic of channel c."""
    top = tl.full((WIDTH,), NOTHING, tl.float32)
    low = tl.full((WIDTH,), float("inf"), tl.float32)
    for start in range(0, blocks, WIDTH):
        k = start + tl.arange(0, WIDTH)
        place = ranges + c * 2 * blocks + k
        top = tl.maximum(top, tl.load(place, mask=k < blocks, other=NOTHING))
        low = tl.minimum(low, tl.load(place + blocks, mask=k < blocks, other=float("inf")))
    return tl.max(top, 0), tl.min(low, 0)


@triton.jit
def shared_top(P: tl.constexpr, C: tl.constexpr, LIVE: tl.constexpr, ranges, blocks):
    """The top of channel C and its partner, and whether it is near all of their statistics."""
    OTHER: tl.constexpr = words.partner(P, C, LIVE)
    if OTHER < 0:
        return 0.0, 1
    else:
        top, low = range_of(ranges, C, blocks, 256)
        if OTHER != C:
            more, less_ = range_of(ranges, OTHER, blocks, 256)
            top, low = tl.maximum(top, more), tl.minimum(low, less_)
        top, low = tl.ceil(top * LOG2E), tl.floor(low * LOG2E)
        shared = finite(tl.minimum(top, low + BELOW))
        near = (top - shared <= ABOVE) & (tl.abs(shared) <= FARTHEST)
        return shared, (near | (top == NOTHING)).to(tl.int32)


@triton.jit
def write_shares(P: tl.constexpr, C: tl.constexpr, vectors, out, top, i, count):
    """The factor of channel C: see slopes.py."""
    lse = load_lse(vectors, C, i, count)
    by = tl.exp2(less(top + tl.zeros(lse.shape, tl.float32), lse))
    if words.channel(P, C, "kind") == "LSE":
        by *= tl.load(vectors[C][3] + i, mask=i < count, other=0) * words.theta(P, C)
    tl.store(out[C] + i, tl.where(lse == NOTHING, 0.0, by), mask=i < count)


@triton.jit(do_not_specialize=["rows", "cols", "blocks"])
def shares_kernel(
    vectors, ranges, out, tops, rows, cols, blocks, P: tl.constexpr, LIVE: tl.constexpr,
    BLOCK: tl.constexpr,
):  # fmt: skip
    """The factors of all channels that share exponentials. ``tops`` holds the shared top of each
    channel and, after them, whether one exponential is enough in all of them."""
    i = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    near = tl.full((), 1, tl.int32)
    for c in tl.static_range(words.channels(P)):
        top, one = shared_top(P, c, LIVE, ranges, blocks)
        near *= one
        if words.partner(P, c, LIVE) >= 0:
            write_shares(
                P, c, vectors, out, top, i, rows if words.channel(P, c, "axis") == 0 else cols
            )  # fmt: skip
        if tl.program_id(0) == 0:
            tl.store(tops + c, top)
    if tl.program_id(0) == 0:
        tl.store(tops + words.channels(P), near.to(tl.float32))


def prepared(
    o: KernelOperands, outputs: Sequence[Tensor], grads: Sequence[Tensor | None]
) -> tuple[tuple[tuple[Tensor, ...], ...], Tensor, int]:
    """The vectors of every channel, the shared tops, and which outputs have gradients."""
    stats: list[tuple[Tensor, ...]] = []
    live = 0
    values, given = iter(outputs), iter(grads)
    for k, channel in enumerate(o.channels):
        mean = lse = place = grad_lse = None
        first, grad = next(values), next(given)
        if channel.kind == "LSE":
            lse = first
        elif channel.kind == "EXPECT":
            mean, lse, grad_lse = first, next(values), next(given)
        elif channel.kind == "MAX":
            place, _ = next(values).to(torch.int32), next(given)
        live |= mask([grad is not None, grad_lse is not None]) << 2 * k
        own = (mean, lse, place, grad, grad_lse)
        stats.append(tuple([o.x if v is None else v.contiguous() for v in own]))
    device, (batch, m, _), n = o.x.device, o.x.shape, o.y.shape[1]
    sharing = [o.words.partner(c, live) >= 0 for c in range(len(o.channels))]
    made = [
        torch.empty(batch, m if c.axis == ROW else n, dtype=torch.float32, device=device)
        if some
        else o.x
        for c, some in zip(o.channels, sharing, strict=True)
    ]
    tops = torch.empty(len(o.channels) + 1, dtype=torch.float32, device=device)
    blocks = ceil_div(batch * max(m, n), BLOCK)
    ranges = torch.empty(len(o.channels), 2, blocks, dtype=torch.float32, device=device)
    sizes = batch * m, batch * n, blocks
    if blocks:
        if any(sharing):
            range_kernel[(blocks,)](tuple(stats), ranges, *sizes, P=o.words, LIVE=live, BLOCK=BLOCK)
        shares_kernel[(blocks,)](
            tuple(stats), ranges, tuple(made), tops, *sizes, P=o.words, LIVE=live, BLOCK=BLOCK
        )
    found = [(*own, factor) for own, factor in zip(stats, made, strict=True)]
    return tuple(found), tops, live
