"""The specification: plain torch on any device, in any dtype, twice differentiable.

Forward and backward visit one block of pairs at a time, so that memory grows as M + N, not as M N.
"""

from __future__ import annotations

from ..call import PairCall
from .backward import pair_stats_backward
from .double_backward import pair_stats_double_backward
from .forward import pair_stats_forward
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


def missing() -> str | None:
    return None


def why_not(call: PairCall) -> str | None:
    return None


def slow(call: PairCall) -> bool:
    return False
