"""The specification: plain torch on any device, in any dtype, twice differentiable.

Forward and backward visit one block of pairs at a time, so that memory grows as M + N, not as M N.
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from ..call import Gradients, PairCall
from . import backward, double_backward, forward
from .maths import inverse_norm

__all__ = [
    "inverse_norm",
    "missing",
    "pair_stats_backward",
    "pair_stats_double_backward",
    "pair_stats_forward",
    "slow",
    "why_not",
]


Values = Sequence[Tensor | None]


def pair_stats_forward(call: PairCall) -> list[Tensor]:
    """The values of every channel in order, (B, M) or (B, N) each."""
    return [call.lower(value) for value in forward.pair_stats_forward(call.batched())]


def pair_stats_backward(
    call: PairCall, outputs: Sequence[Tensor], grads: Values, needs: frozenset[str]
) -> Gradients:
    """The gradients named in ``needs`` (of :attr:`Gradients.NAMES`), and those of all shifts."""
    outputs, grads = [*map(call.lift, outputs)], [*map(call.lift, grads)]
    found = backward.pair_stats_backward(call.batched(), outputs, grads, needs)
    return found.each(call.lower)


def pair_stats_double_backward(
    call: PairCall,
    outputs: Sequence[Tensor],
    grads: Values,
    needs: frozenset[str],
    upstream: Gradients,
) -> tuple[Gradients, list[Tensor | None], list[Tensor | None]]:
    """The vector-Jacobian product of :func:`pair_stats_backward`: ``upstream`` holds gradients of
    its results; returned are those of the call's operands, of ``outputs`` and of ``grads``."""
    outputs, grads = [*map(call.lift, outputs)], [*map(call.lift, grads)]
    found, d_outputs, d_grads = double_backward.pair_stats_double_backward(
        call.batched(), outputs, grads, needs, upstream.each(call.lift)
    )
    return found.each(call.lower), [*map(call.lower, d_outputs)], [*map(call.lower, d_grads)]


def missing() -> str | None:
    return None


def why_not(call: PairCall) -> str | None:
    return None


def slow(call: PairCall) -> bool:
    return False
