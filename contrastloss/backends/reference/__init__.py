"""The specification: plain torch on any device, in any dtype, twice differentiable.

Forward and backward visit one block of pairs at a time, so memory grows as M + N, not as M N.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from torch import Tensor

from ..call import Gradients, PairCall
from ..gather import (
    gather_scores_backward,
    gather_scores_double_backward,
    gather_scores_forward,
)
from ..topk import Selection
from . import backward, double_backward, forward, topk
from .sort import sort_network_backward, sort_network_forward

__all__ = [
    "OPEN",
    "gather_scores_backward",
    "gather_scores_double_backward",
    "gather_scores_forward",
    "missing",
    "pair_stats_backward",
    "pair_stats_double_backward",
    "pair_stats_forward",
    "pair_topk",
    "sort_network_backward",
    "sort_network_forward",
    "why_not",
]

#: whether it serves without times of ``python -m contrastloss tune``
OPEN = True

Values = Sequence[Tensor | None]


def pair_stats_forward(call: PairCall) -> list[Tensor]:
    """The values of every channel in order, (B, M) or (B, N) each."""
    return [call.drop_batch(value) for value in forward.pair_stats_forward(call.batched())]


def pair_stats_backward(
    call: PairCall, outputs: Sequence[Tensor], grads: Values, needs: frozenset[str]
) -> Gradients:
    """The gradients named in ``needs`` (see :data:`~..call.NAMES`), and those of all shifts."""
    outputs, grads = [*map(call.add_batch, outputs)], [*map(call.add_batch, grads)]
    found = backward.pair_stats_backward(call.batched(), outputs, grads, needs)
    return found.map(call.drop_batch)


def pair_stats_double_backward(
    call: PairCall,
    outputs: Sequence[Tensor],
    grads: Values,
    needs: frozenset[str],
    upstream: Gradients,
) -> tuple[Gradients, list[Tensor | None], list[Tensor | None]]:
    """The vector-Jacobian product of :func:`pair_stats_backward`. ``upstream`` holds gradients of
    its results; returned are the gradients of the call's operands, of ``outputs`` and of
    ``grads``."""
    outputs, grads = [*map(call.add_batch, outputs)], [*map(call.add_batch, grads)]
    found, d_outputs, d_grads = double_backward.pair_stats_double_backward(
        call.batched(), outputs, grads, needs, upstream.map(call.add_batch)
    )
    return (
        found.map(call.drop_batch),
        [*map(call.drop_batch, d_outputs)],
        [*map(call.drop_batch, d_grads)],
    )


def pair_topk(call: PairCall, selection: Selection) -> tuple[Tensor, Tensor]:
    """The k best of every row, (B, M, k): their scores, or keys if sampled, and their columns."""
    batched = {name: call.add_batch(getattr(selection, name)) for name in Selection.VECTORS}
    keys, index = topk.pair_topk(call.batched(), replace(selection, **batched))
    return call.drop_batch(keys), call.drop_batch(index)


def missing() -> str | None:
    return None


def why_not(call: PairCall) -> str | None:
    return None
