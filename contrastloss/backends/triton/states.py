"""The states of rows and columns for Triton, of a tile and merged.

A state is a tuple: LSE (top, sum), SUM (total,), EXPECT (top, sum, moment), MAX (value, position).
Sums are those of e^(exponent - top).
"""

from __future__ import annotations

import triton
import triton.language as tl

from . import words
from .maths import (
    BACK,
    BACK_REST,
    NOTHING,
    along,
    exponential,
    exponents,
    finite,
    natural,
    powers,
    psi,
    weighed,
)

__all__ = ["FARTHEST", "LEAST_SUM", "empty", "fresh", "joined", "merged", "settled", "states"]

#: exponents of a shared top lie up to this far above it, so that others may lie further below
HEADROOM = tl.constexpr(60.0)
#: the largest shared top, up to which exponents keep their fractions
FARTHEST = tl.constexpr(2.0**16)
#: terms below the range of fp32, 2^-126 each, do not change a sum of this size
LEAST_SUM = tl.constexpr(2.0**-60)


@triton.jit
def empty(KIND: tl.constexpr, SIZE: tl.constexpr):
    if KIND == "SUM":
        return (tl.zeros((SIZE,), tl.float32),)
    elif KIND == "MAX":
        return (tl.full((SIZE,), NOTHING, tl.float32), tl.full((SIZE,), -1, tl.int32))
    elif KIND == "LSE":
        return (tl.full((SIZE,), NOTHING, tl.float32), tl.zeros((SIZE,), tl.float32))
    else:
        zero = tl.zeros((SIZE,), tl.float32)
        return (tl.full((SIZE,), NOTHING, tl.float32), zero, zero)


@triton.jit
def merged(KIND: tl.constexpr, a, b):
    """The state of a union of two sets, from their states."""
    if KIND == "SUM":
        return (a[0] + b[0],)
    elif KIND == "MAX":
        first = (a[0] > b[0]) | ((a[0] == b[0]) & (b[1] < 0))
        tie = (a[0] == b[0]) & (a[1] >= 0) & (a[1] < b[1])
        first = first | tie | (a[0] != a[0])
        return (tl.where(first, a[0], b[0]), tl.where(first, a[1], b[1]))
    else:
        top = tl.maximum(a[0], b[0])
        by_a, by_b = exponential(a[0] - finite(top)), exponential(b[0] - finite(top))
        if KIND == "LSE":
            return (top, a[1] * by_a + b[1] * by_b)
        else:
            return (top, a[1] * by_a + b[1] * by_b, a[2] * by_a + b[2] * by_b)


@triton.jit
def summed(KIND: tl.constexpr, top, e, s, AXIS: tl.constexpr):
    """The state of e = e^(z - top), summed along an axis."""
    total = tl.sum(e, AXIS)
    top += tl.zeros(total.shape, tl.float32)
    if KIND == "LSE":
        return (top, total)
    else:
        return (top, total, tl.sum(tl.where(e == 0.0, 0.0, e * s), AXIS))


@triton.jit
def own_sums(KIND: tl.constexpr, z, s, AXIS: tl.constexpr):
    """The states of exponents z along ``AXIS``, each with its own top, exact for any z."""
    top = tl.max(z, AXIS)
    return summed(KIND, top, exponential(z - along(finite(top), 1 - AXIS)), s, AXIS)


# A *partial* is a state of columns before its sums are summed along axis 0, with one top. Rows that
# are 8 apart are added, because they lie in one thread. So the threads meet once per block of
# columns and not in every tile. Along axis 1 most of a sum lies in one thread.


@triton.jit
def fresh(KIND: tl.constexpr, M: tl.constexpr, N: tl.constexpr):
    """An empty partial."""
    zero = tl.zeros((M // 2, N), tl.float32)
    if KIND == "SUM":
        return (zero,)
    elif KIND == "LSE":
        return (tl.full((), NOTHING, tl.float32), zero)
    else:
        return (tl.full((), NOTHING, tl.float32), zero, zero)


@triton.jit
def folded(e):
    M: tl.constexpr = e.shape[0]
    N: tl.constexpr = e.shape[1]
    return tl.sum(e.reshape(M // 16, 2, 8, N), 1).reshape(M // 2, N)


@triton.jit
def shared_sums(KIND: tl.constexpr, RATE: tl.constexpr, FIRST: tl.constexpr, z, s):
    """The states along axis 0, the partial of axis 1 with a factor of its sums, both of one
    exponential, and the least sum of the partial, 0 if the top is too large for it. The power is
    2^(rate z - top) for a whole top; a state's top is natural, and the factor makes up for its
    rounding."""
    best = tl.max(z) if RATE > 0 else tl.min(z)
    top = tl.ceil(best * RATE)
    least = tl.where(tl.abs(top) <= FARTHEST, 1.0, 0.0)
    if KIND == "LSE":  # the moments of large scores would leave the range of fp32
        top -= HEADROOM
    top = finite(top)
    e = powers(z, RATE, top)
    rounded = top * BACK
    factor = exponential(tl.fma(top, top * 0.0 + BACK, -rounded) + top * BACK_REST)
    first = ()
    if FIRST:
        first = scaled(KIND, summed(KIND, rounded, e, s, 1), factor)
    part = folded(e)
    least = tl.minimum(tl.min(part), least)
    if KIND == "LSE":
        return first, (rounded, part, factor), least
    else:
        return first, (rounded, part, folded(tl.where(e == 0.0, 0.0, e * s)), factor), least


@triton.jit
def scaled(KIND: tl.constexpr, state, factor):
    if KIND == "LSE":
        return (state[0], state[1] * factor)
    else:
        return (state[0], state[1] * factor, state[2] * factor)


@triton.jit
def joined(KIND: tl.constexpr, a, b):
    """The sum of a partial and that of a tile."""
    if KIND == "SUM":
        return (a[0] + b[0],)
    else:
        top = tl.maximum(a[0], b[0])
        by_a, by_b = exponential(a[0] - finite(top)), exponential(b[0] - finite(top))
        by_b *= b[len(b) - 1]
        if KIND == "LSE":
            return (top, a[1] * by_a + b[1] * by_b)
        else:
            return (top, a[1] * by_a + b[1] * by_b, a[2] * by_a + b[2] * by_b)


@triton.jit
def settled(KIND: tl.constexpr, partial):
    """The states of a partial."""
    if KIND == "SUM":
        return (tl.sum(partial[0], 0),)
    elif KIND == "LSE":
        total = tl.sum(partial[1], 0)
        return (partial[0] + total * 0.0, total)
    else:
        total = tl.sum(partial[1], 0)
        return (partial[0] + total * 0.0, total, tl.sum(partial[2], 0))


@triton.jit
def largest(v, places, AXIS: tl.constexpr):
    """The largest values along an axis and their first places."""
    nan = tl.sum((v != v).to(tl.int32), AXIS) > 0
    best = tl.max(v, AXIS)
    hit = (v == along(best, 1 - AXIS)) & (v != NOTHING)
    place = tl.min(tl.where(hit, along(places, AXIS), 0x7FFFFFFF), AXIS)
    place = tl.where(place == 0x7FFFFFFF, -1, place)
    return (tl.where(nan, float("nan"), best), tl.where(nan, -1, place))


@triton.jit
def states(
    P: tl.constexpr, STEP: tl.constexpr, K: tl.constexpr, QUICK: tl.constexpr, s, some, w, u, at
):
    """The states of a view along axis 0 of a tile and along axis 1, () for those that it lacks. If
    QUICK, the sums along axis 1 are a partial, and terms of sums as small as the third result may
    have vanished."""
    KIND: tl.constexpr = words.view(P, STEP, K, "kind")
    FIRST: tl.constexpr = words.view(P, STEP, K, "first") >= 0
    SECOND: tl.constexpr = words.view(P, STEP, K, "second") >= 0
    first, second, least = (), (), 1.0
    if KIND == "SUM":
        TERMS: tl.constexpr = words.terms(P, words.view(P, STEP, K, "group"))
        value = weighed(psi(u, words.view(P, STEP, K, "psi")), some, w, TERMS)
        if FIRST:
            first = (tl.sum(value, 1),)  # type: ignore[assignment]
        if SECOND:
            second = (folded(value) if QUICK else tl.sum(value, 0),)  # type: ignore[assignment]
    elif KIND == "MAX":
        v = tl.where(some, words.view(P, STEP, K, "sign") * s, NOTHING)
        if FIRST:
            first = largest(v, at[1], 1)
        if SECOND:
            second = largest(v, at[0], 0)
    else:
        RATE: tl.constexpr = words.rate(P, STEP, K)
        z = exponents(P, STEP, K, s, some, w)
        if QUICK and SECOND:
            first, second, least = shared_sums(KIND, RATE, FIRST, z, s)
        else:
            z = natural(P, STEP, K, z)
            if FIRST:
                first = own_sums(KIND, z, s, 1)
            if SECOND:
                second = own_sums(KIND, z, s, 0)
    return first, second, least
