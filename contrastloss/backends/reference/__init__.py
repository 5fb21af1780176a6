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
    found = forward.pair_stats_forward(call.batched())
    return found if call.x.ndim == 3 else [value.squeeze(0) for value in found]


def pair_stats_backward(
    call: PairCall, outputs: Sequence[Tensor], grads: Values, needs: frozenset[str]
) -> Gradients:
    """The gradients named in ``needs`` (of :attr:`Gradients.NAMES`), and those of all shifts."""
    if call.x.ndim == 3:
        return backward.pair_stats_backward(call, outputs, grads, needs)
    found = backward.pair_stats_backward(
        call.batched(), [value.unsqueeze(0) for value in outputs], _lift(grads), needs
    )
    return found.each(lambda value: value.squeeze(0))


def pair_stats_double_backward(
    call: PairCall,
    outputs: Sequence[Tensor],
    grads: Values,
    needs: frozenset[str],
    upstream: Gradients,
) -> tuple[Gradients, list[Tensor | None], list[Tensor | None]]:
    """The vector-Jacobian product of :func:`pair_stats_backward`: ``upstream`` holds gradients of
    its results; returned are those of the call's operands, of ``outputs`` and of ``grads``."""
    run = double_backward.pair_stats_double_backward
    if call.x.ndim == 3:
        return run(call, outputs, grads, needs, upstream)
    found, d_outputs, d_grads = run(
        call.batched(),
        [value.unsqueeze(0) for value in outputs],
        _lift(grads),
        needs,
        upstream.each(lambda value: value.unsqueeze(0)),
    )
    lowered = found.each(lambda value: value.squeeze(0))
    return lowered, _lower(d_outputs), _lower(d_grads)


def _lift(values: Values) -> list[Tensor | None]:
    return [None if value is None else value.unsqueeze(0) for value in values]


def _lower(values: Values) -> list[Tensor | None]:
    return [None if value is None else value.squeeze(0) for value in values]


def missing() -> str | None:
    return None


def why_not(call: PairCall) -> str | None:
    return None


def slow(call: PairCall) -> bool:
    return False
