"""The parts of G for Triton.

A channel's vectors are (mean, lse, at, grad, grad_lse, shared), loaded along its own axis::

    LSE     p grad theta [pace]                           SUM  grad e^w sign psi'(u)
    EXPECT  p (grad (1 + theta (s - mean)) + grad_lse theta)
    MAX     grad sign [place = at]

The share p is e^(z - lse), or 2^(rate z - top) times a factor for the top that all rows and columns
of a view share. ``shared`` is this factor, of an LSE times grad theta: see shares.py.
"""

from __future__ import annotations

import triton
import triton.language as tl

from . import words
from .maths import along, dpsi, exponential, exponents, finite, natural, pace, powers, weighed

__all__ = ["view_gradient"]


@triton.jit
def slope(
    P: tl.constexpr, STEP: tl.constexpr, K: tl.constexpr, SHARED: tl.constexpr, s, vectors,
    AXIS: tl.constexpr,
):  # fmt: skip
    """What the powers are multiplied with for the gradient of one channel."""
    THETA: tl.constexpr = words.view(P, STEP, K, "theta")
    if words.view(P, STEP, K, "kind") == "LSE":
        return along(vectors[5] if SHARED else vectors[3] * THETA, AXIS)
    else:
        change = along(vectors[3], AXIS) * (1.0 + THETA * (s - along(vectors[0], AXIS)))
        change += along(vectors[4], AXIS) * THETA
        return along(vectors[5], AXIS) * change if SHARED else change


@triton.jit
def own_powers(
    P: tl.constexpr, STEP: tl.constexpr, K: tl.constexpr, s, z, vectors, AXIS: tl.constexpr
):
    """The gradient of one channel."""
    e = exponential(natural(P, STEP, K, z) - along(finite(vectors[1]), AXIS))
    return product(P, STEP, K, e, slope(P, STEP, K, False, s, vectors, AXIS))


@triton.jit
def product(P: tl.constexpr, STEP: tl.constexpr, K: tl.constexpr, e, by):
    if words.view(P, STEP, K, "kind") == "LSE":
        return e * by
    else:
        return tl.where(e == 0.0, 0.0, e * by)


@triton.jit
def shared_powers(P: tl.constexpr, STEP: tl.constexpr, K: tl.constexpr, s, z, top, first, second):
    """The gradients of a row and a column channel, with one exponential."""
    by = slope(P, STEP, K, True, s, first, 0) + slope(P, STEP, K, True, s, second, 1)
    return product(P, STEP, K, powers(z, words.rate(P, STEP, K), top), by)


@triton.jit
def view_gradient(
    P: tl.constexpr, STEP: tl.constexpr, K: tl.constexpr, SHARED: tl.constexpr,
    FIRST: tl.constexpr, SECOND: tl.constexpr, s, some, w, u, top, first, second, at,
):  # fmt: skip
    """G of a view. ``first`` and ``second`` are the vectors of its channels along axis 0 of the
    tile and along axis 1; FIRST and SECOND whether the channel has a gradient,
    and SHARED whether they have one exponential, with this ``top``."""
    KIND: tl.constexpr = words.view(P, STEP, K, "kind")
    SIGN: tl.constexpr = words.view(P, STEP, K, "sign")
    if KIND == "SUM":
        TERMS: tl.constexpr = words.terms(P, words.view(P, STEP, K, "group"))
        value = weighed(SIGN * dpsi(u, words.view(P, STEP, K, "psi")), some, w, TERMS)
        if FIRST and SECOND:
            part = value * (along(first[3], 0) + along(second[3], 1))
        elif FIRST:
            part = value * along(first[3], 0)
        else:
            part = value * along(second[3], 1)
    elif KIND == "MAX":
        part = tl.zeros(s.shape, tl.float32)
        if FIRST:
            hit = along(at[1], 1) == along(first[2], 0)
            part += tl.where(hit, SIGN * along(first[3], 0), 0.0)
        if SECOND:
            hit = along(at[0], 0) == along(second[2], 1)
            part += tl.where(hit, SIGN * along(second[3], 1), 0.0)
    else:
        z = exponents(P, STEP, K, s, some, w)
        if SHARED and FIRST and SECOND:
            part = shared_powers(P, STEP, K, s, z, top, first, second)
        elif FIRST and SECOND:
            part = own_powers(P, STEP, K, s, z, first, 0)
            part += own_powers(P, STEP, K, s, z, second, 1)
        elif FIRST:
            part = own_powers(P, STEP, K, s, z, first, 0)
        else:
            part = own_powers(P, STEP, K, s, z, second, 1)
        if KIND == "LSE" and words.view(P, STEP, K, "margin") is not None:
            part = tl.where(part == 0.0, 0.0, part * pace(P, STEP, K, s))
    return part
