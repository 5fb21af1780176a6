"""The types of results that are more than one vector."""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor

__all__ = ["Expectation", "Maximum", "TopK"]


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
