"""Named results of channels that return more than one vector."""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor

from ..channel import EXPECT, MAX, Channel

__all__ = ["Expectation", "Maximum", "TopK", "named"]


class Expectation(NamedTuple):
    """What ``EXPECT`` returns: the mean score and the log-sum-exp of the softmax behind it."""

    value: Tensor
    lse: Tensor


class Maximum(NamedTuple):
    """What ``MAX`` returns: ``max sign * s`` and where it stands (int64, -1 for none)."""

    value: Tensor
    index: Tensor  # type: ignore[assignment]  # hides tuple.index, as torch.return_types.max's do


class TopK(NamedTuple):
    """What :func:`~contrastloss.ops.pair_topk` returns: scores and columns (..., M, k), best first,
    padded with -inf and -1."""

    values: Tensor
    indices: Tensor


def named(channel: Channel, values: list[Tensor]) -> Tensor | Expectation | Maximum:
    if isinstance(channel, EXPECT):
        return Expectation(*values)
    if isinstance(channel, MAX):
        return Maximum(*values)
    return values[0]
