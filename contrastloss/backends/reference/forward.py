"""Statistics, one block of rows at a time."""

from __future__ import annotations

import torch
from torch import Tensor

from ...channel import COL, LSE, MAX, ROW, SUM, Channel
from ..call import PairCall
from .block import Block, blocks, dim_of, rounded, unit
from .maths import NEG_INF, finite, psi


def _log_sum_exp(z: Tensor, dim: int) -> Tensor:
    """torch.logsumexp, also where there is nothing to sum."""
    if z.shape[dim] == 0:
        return z.new_full([n for d, n in enumerate(z.shape) if d != dim], NEG_INF)
    return torch.logsumexp(z, dim)


def _statistic(block: Block, channel: Channel) -> tuple[Tensor, ...]:
    """One channel over one block of rows: final for its rows, partial for the columns."""
    dim = dim_of(channel.axis)
    if isinstance(channel, SUM):
        return (block.weighted(channel, psi(channel.psi, block.argument(channel))).sum(dim),)
    if isinstance(channel, MAX):
        mask, value = block.allowed(channel), channel.sign * block.s
        if mask is not None:
            value = value.masked_fill(~mask, NEG_INF)
        return _first_max(value, block.positions(COL if channel.axis == ROW else ROW), dim)
    z = block.logits(channel)
    lse = _log_sum_exp(z, dim)
    if isinstance(channel, LSE):
        return (lse,)
    p = torch.exp(z - finite(lse).unsqueeze(dim))
    return torch.where(p == 0, 0.0, p * block.s).sum(dim), lse


def _first_max(value: Tensor, positions: Tensor, dim: int) -> tuple[Tensor, Tensor]:
    """The largest value and its smallest position; (-inf, -1) where there is none."""
    if value.shape[dim] == 0:
        shape = [n for d, n in enumerate(value.shape) if d != dim]
        return value.new_full(shape, NEG_INF), positions.new_full(shape, -1)
    best = value.amax(dim)
    nowhere = torch.iinfo(positions.dtype).max
    hit = (value == best.unsqueeze(dim)) & (value != NEG_INF)
    index = torch.where(hit, positions, nowhere).amin(dim)
    return best, torch.where(index == nowhere, -1, index)


def _fold(channel: Channel, a: tuple[Tensor, ...], b: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    """Two partial statistics of the same columns, from an earlier and a later block of rows."""
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
    """The statistics of no pair at all."""
    shape = (call.batch, call.length(channel.axis))
    zero = call.x.new_zeros(shape, dtype=call.stat_dtype)
    if isinstance(channel, SUM):
        return (zero,)
    nothing = torch.full_like(zero, NEG_INF)
    if isinstance(channel, LSE):
        return (nothing,)
    if isinstance(channel, MAX):
        return nothing, torch.full_like(zero, -1, dtype=torch.int64)
    return zero, nothing


def pair_stats_forward(call: PairCall) -> list[Tensor]:
    """The values of every channel in order, (B, M) or (B, N) each."""
    call = unit(rounded(call))
    parts: list[list[tuple[Tensor, ...]]] = [[] for _ in call.program.channels]
    for start, stop in blocks(call):
        block = Block(call, start, stop)
        for channel, seen in zip(call.program.channels, parts, strict=True):
            value = _statistic(block, channel)
            if channel.axis == COL and seen:
                seen[0] = _fold(channel, seen[0], value)
            else:
                seen.append(value)
    outputs: list[Tensor] = []
    for channel, seen in zip(call.program.channels, parts, strict=True):
        if not seen:
            outputs.extend(_empty(call, channel))
        elif channel.axis == COL:
            outputs.extend(seen[0])
        else:
            outputs.extend(torch.cat(values, 1) for values in zip(*seen, strict=True))
    return outputs
