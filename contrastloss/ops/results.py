"""The types of results that are more than one vector."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from torch import Tensor

from ..backends import PairCall
from ..channel import EXPECT, MAX, Channel

__all__ = ["Expectation", "Maximum", "TopK", "named", "results_of"]


class Expectation(NamedTuple):
    """Result of ``EXPECT``: the softmax mean of the scores, and the log-sum-exp of that softmax."""

    value: Tensor
    lse: Tensor


class Maximum(NamedTuple):
    """Result of ``MAX``: ``max sign * s`` and its position (int64, -1 for none)."""

    value: Tensor
    index: Tensor  # type: ignore[assignment]  # hides tuple.index


class TopK(NamedTuple):
    """Result of :func:`~contrastloss.ops.pair_topk`: scores and columns (..., M, k), best first,
    padded with -inf and -1."""

    values: Tensor
    indices: Tensor


def results_of(call: PairCall, flat: Sequence[Tensor]) -> list[Any]:
    """The values of all channels as results, one for each channel."""
    channels = call.program.channels
    if len(flat) == len(channels):
        return list(flat)
    results, first = [], 0
    for channel in channels:
        last = first + len(channel.returns)
        results.append(named(channel, flat[first:last]))
        first = last
    return results


def named(channel: Channel, values: Sequence[Tensor]) -> Any:
    """The values of a channel as its result."""
    if isinstance(channel, EXPECT):
        return Expectation(*values)
    if isinstance(channel, MAX):
        return Maximum(*values)
    return values[0]
