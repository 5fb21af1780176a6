"""Statistics, one block of pairs at a time."""

from __future__ import annotations

import torch
from torch import Tensor

from ...channel import COL, EXPECT, LSE, MAX, ROW, SUM, Channel
from ..call import PairCall, widest
from .block import Block, blocks, dim_of, rounded, unit
from .maths import NEG_INF, finite, psi

__all__ = [
    "pair_stats_forward",
]


def _statistic(block: Block, channel: Channel) -> tuple[Tensor, ...]:
    """One channel of one block."""
    dim = dim_of(channel.axis)
    if isinstance(channel, SUM):
        return (block.weighted(channel, psi(channel.psi, block.argument(channel))).sum(dim),)
    if isinstance(channel, MAX):
        mask, value = block.allowed(channel), channel.sign * block.s
        if mask is not None:
            value = value.masked_fill(~mask, NEG_INF)
        return _first_max(value, block.positions(COL if channel.axis == ROW else ROW), dim)
    assert isinstance(channel, (LSE, EXPECT))
    z = block.logits(channel)
    lse = torch.logsumexp(z, dim)
    if isinstance(channel, LSE):
        return (lse,)
    p = torch.exp(z - finite(lse).unsqueeze(dim))
    return torch.where(p == 0, 0.0, p * block.s).sum(dim), lse


def _first_max(value: Tensor, positions: Tensor, dim: int) -> tuple[Tensor, Tensor]:
    """The largest value and its smallest position; (-inf, -1) if there is none."""
    best = value.amax(dim)
    nowhere = torch.iinfo(positions.dtype).max
    hit = (value == best.unsqueeze(dim)) & (value != NEG_INF)
    index = torch.where(hit, positions, nowhere).amin(dim)
    return best, torch.where(index == nowhere, -1, index)


def _fold(channel: Channel, a: tuple[Tensor, ...], b: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    """Merges two partial statistics of the same rows or columns, from an earlier and a later
    block."""
    if isinstance(channel, SUM):
        return (a[0] + b[0],)
    if isinstance(channel, LSE):
        return (torch.logaddexp(a[0], b[0]),)
    if isinstance(channel, MAX):
        later = (b[0] > a[0]) | b[0].isnan()
        return torch.where(later, b[0], a[0]), torch.where(later, b[1], a[1])
    lse = torch.logaddexp(a[1], b[1])
    pa, pb = torch.exp(a[1] - finite(lse)), torch.exp(b[1] - finite(lse))
    return pa * a[0] + pb * b[0], lse


def _empty(call: PairCall, channel: Channel) -> tuple[Tensor, ...]:
    """The statistics of an empty set, in a dtype wide enough to merge many blocks."""
    shape = (call.batch, call.length(channel.axis))
    zero = torch.zeros(shape, dtype=widest(call.x), device=call.x.device)
    if isinstance(channel, SUM):
        return (zero,)
    nothing = torch.full_like(zero, NEG_INF)
    if isinstance(channel, LSE):
        return (nothing,)
    if isinstance(channel, MAX):
        return nothing, torch.full_like(zero, -1, dtype=torch.int64)
    return zero, nothing


def pair_stats_forward(call: PairCall) -> list[Tensor]:
    """See :func:`contrastloss.backends.reference.pair_stats_forward`; the call has a batch
    dimension."""
    call = unit(rounded(call))
    results = [_empty(call, channel) for channel in call.program.channels]
    for rows, cols in blocks(call):
        block = Block(call, rows, cols)
        for channel, result in zip(call.program.channels, results, strict=True):
            seen = tuple(whole[:, block.span(channel.axis)] for whole in result)
            found = tuple(
                value.to(seen[k].dtype) for k, value in enumerate(_statistic(block, channel))
            )
            for target, value in zip(seen, _fold(channel, seen, found), strict=True):
                target.copy_(value)
    return [
        value.to(call.stat_dtype) if value.is_floating_point() else value
        for result in results
        for value in result
    ]
