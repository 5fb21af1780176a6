"""Statistics of scores that are stored: each row has its own columns."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from ..backends.reference.block import passes
from ..backends.reference.maths import psi
from ..channel import EXPECT, LSE, ROW, SUM, Channel, Test
from .check import check_channels, check_embeddings, named_operands
from .merge import log_sum_exp
from .results import Expectation, Maximum

__all__ = ["check_plain", "exponent", "passing", "row_stats"]


def row_stats(
    scores: Tensor, channels: Sequence[Channel], rows: Mapping[str, Tensor] | None = None
) -> list[Any]:
    """The results of :func:`~contrastloss.ops.pair_stats` for row channels without tests and
    weights, from scores (..., M, K) that :func:`~contrastloss.ops.gather_scores` returned.

    Args:
        scores: -inf marks a missing column.
        channels: row channels whose ``pairs`` and ``weight`` are empty.
        rows: the shifts of ``SUM`` channels, (..., M) each.
    """
    check_embeddings("scores", scores)
    if not scores.ndim:
        raise ValueError("scores: got shape (), expected (..., M, K)")
    rows, _ = named_operands(rows, None, True)
    channels = check_channels(channels)
    check_plain(channels)
    if not scores.shape[-1]:
        scores = torch.nn.functional.pad(scores, (0, 1), value=-torch.inf)
    missing = scores == -torch.inf
    return [_statistic(channel, scores, missing, rows) for channel in channels]


def passing(
    tests: Sequence[Test], rows: Mapping[str, Tensor], cols: Mapping[str, Tensor], like: Tensor
) -> Tensor:
    """Which pairs pass all of the tests, (M, N) as ``like``: of ids of rows, (M,) or (1,), and of
    columns, (N,)."""
    mask = None
    for test in tests:
        row, col = (ids[test.name].to(torch.int64) for ids in (rows, cols))
        passed = passes(test, row[:, None], col)
        mask = passed if mask is None else mask.logical_and(passed)
    if mask is None:
        return torch.ones_like(like, dtype=torch.bool)
    return mask.expand(like.shape)


def check_plain(channels: Sequence[Channel]) -> None:
    for channel in channels:
        if channel.axis != ROW or channel.pairs or channel.weight:
            expected = "row channels without pairs and weight"
            raise ValueError(f"channels: got {channel}, expected {expected}")


def exponent(channel: LSE | EXPECT, s: Tensor) -> Tensor:
    """``theta s``, or that of circle loss, whose pace is constant."""
    if isinstance(channel, EXPECT) or channel.relax is None:
        return channel.theta * s
    positive, m = channel.theta > 0, channel.relax
    pace = torch.relu((s if positive else 1.0 - s) + m).detach()
    return channel.theta * pace * (s - (m if positive else 1.0 - m))


def _statistic(
    channel: Channel, scores: Tensor, missing: Tensor, rows: Mapping[str, Tensor]
) -> Any:
    if isinstance(channel, (LSE, EXPECT)):
        z = torch.where(missing, -torch.inf, exponent(channel, torch.where(missing, 0.0, scores)))
        lse = log_sum_exp(z.movedim(-1, 0))
        if isinstance(channel, LSE):
            return lse
        empty = (lse == -torch.inf).unsqueeze(-1)
        mass = torch.exp(z - torch.where(empty, 0.0, lse.unsqueeze(-1)))
        return Expectation((mass * torch.where(missing, 0.0, scores)).sum(-1), lse)
    if isinstance(channel, SUM):
        u = torch.where(missing, 0.0, scores)
        if channel.shift is not None:
            u = u - rows[channel.shift].unsqueeze(-1)
        return torch.where(missing, 0.0, psi(channel.psi, channel.sign * u)).sum(-1)
    signed = torch.where(missing, -torch.inf, channel.sign * scores)  # type: ignore[attr-defined]
    place = torch.arange(scores.shape[-1], device=scores.device)
    best = signed.detach().amax(-1, keepdim=True)
    hit = (signed == best) | signed.isnan()
    index = torch.where(hit, place, scores.shape[-1]).amin(-1)
    value = signed.gather(-1, index.unsqueeze(-1)).squeeze(-1)
    return Maximum(value, torch.where((value == -torch.inf) | value.isnan(), -1, index))
