"""The maths of a pair for Triton: psi, tests and weights, exponents and powers.

A tile is evaluated *direct*, with rows along axis 0, or *transposed*, as the tile on the other side
of the diagonal of a symmetric problem, whose rows are along axis 1. Everything that belongs to a
row or a column is loaded along its own axis, so both cases use the same formulas.
"""

from __future__ import annotations

import triton
import triton.language as tl

from . import words

__all__ = [
    "BACK",
    "BACK_REST",
    "LOG2E",
    "NOTHING",
    "along",
    "dpsi",
    "exponential",
    "exponents",
    "finite",
    "included",
    "less",
    "log_weights",
    "natural",
    "pace",
    "pairs_of",
    "powers",
    "psi",
    "shifted",
    "weighed",
]

NOTHING = tl.constexpr(float("-inf"))
LOG2E = tl.constexpr(words.LOG2E)
#: 1 / LOG2E in two parts: were it ln(2), large exponents and their tops would not agree
BACK = tl.constexpr(0.6931471824645996)
BACK_REST = tl.constexpr(7.348693061389158e-09)


@triton.jit
def along(vector, AXIS: tl.constexpr):
    """A vector, shaped to broadcast over a tile. Positions are int32 and offsets int64: tiles of
    64-bit positions would not fit in registers."""
    if AXIS == 0:
        return vector[:, None]
    else:
        return vector[None, :]


@triton.jit
def psi(u, KIND: tl.constexpr):
    if KIND == "one":
        return tl.full(u.shape, 1.0, u.dtype)
    elif KIND == "id":
        return u
    elif KIND == "square":
        return u * u
    elif KIND == "relu":
        return tl.where(u < 0, 0.0, u)
    elif KIND == "relu2":
        v = tl.where(u < 0, 0.0, u)
        return v * v
    elif KIND == "softplus":
        # log(1 + e^u) = max(u, 0) + log(1 + e^-|u|)
        return tl.where(u < 0, 0.0, u) + log1p(tl.exp(-tl.abs(u)))
    elif KIND == "focal":
        return -expm1(u) * u
    else:
        return tl.where(u > 0, 1.0, tl.where(u <= 0, 0.0, u))  # NaN stays NaN


@triton.jit
def dpsi(u, KIND: tl.constexpr):
    if KIND == "id":
        return tl.full(u.shape, 1.0, u.dtype)
    elif KIND == "square":
        return 2.0 * u
    elif KIND == "relu":
        return tl.where(u > 0, 1.0, 0.0)
    elif KIND == "relu2":
        return tl.where(u < 0, 0.0, 2.0 * u)
    elif KIND == "softplus":
        e = tl.exp(-tl.abs(u))
        return tl.where(u < 0, e, 1.0) / (1.0 + e)
    elif KIND == "focal":
        return -expm1(u) - u * tl.exp(u)
    else:
        return tl.zeros(u.shape, u.dtype)


@triton.jit
def log1p(t):
    """log(1 + t) for t in [0, 1], as 2 artanh(t / (2 + t)); its series keeps digits that 1 + t
    would lose."""
    q = t / (2.0 + t)
    v = q * q
    p = 1.0 / 15
    p = p * v + 1.0 / 13
    p = p * v + 1.0 / 11
    p = p * v + 1.0 / 9
    p = p * v + 1.0 / 7
    p = p * v + 1.0 / 5
    p = p * v + 1.0 / 3
    return 2.0 * q + 2.0 * q * v * p


@triton.jit
def expm1(u):
    """e^u - 1, near 0 by its series, where the difference would cancel."""
    p = 1.0 / 5040
    p = p * u + 1.0 / 720
    p = p * u + 1.0 / 120
    p = p * u + 1.0 / 24
    p = p * u + 1.0 / 6
    p = p * u + 0.5
    return tl.where(tl.abs(u) < 0.35, u + u * u * p, tl.exp(u) - 1.0)


# ---- pairs --------------------------------------------------------------------------------------
#
# ``at`` and ``inside`` are the positions along the axes of a tile and whether they are in it. The
# rows of the problem are along axis R, the columns along axis 1 - R.


@triton.jit
def operand(vectors, K: tl.constexpr, at, inside, AXIS: tl.constexpr):
    """Operand K at these positions; -1 means the positions themselves."""
    if K < 0:
        return along(at[AXIS], AXIS)
    else:
        return along(tl.load(vectors[K] + at[AXIS], mask=inside[AXIS], other=0), AXIS)


@triton.jit
def passes(OP: tl.constexpr, WIDTH: tl.constexpr, a, b):
    if OP == "eq":
        return a == b
    elif OP == "ne":
        return a != b
    elif OP == "lt":
        return a < b
    elif WIDTH < 0:
        return (a < b) & (a > b)
    else:
        # the difference of two int64 may need 65 bits, but is correct as an unsigned number
        difference = tl.where(a > b, a - b, b - a).to(tl.uint64)
        return difference <= WIDTH


@triton.jit
def included(
    P: tl.constexpr, G: tl.constexpr, INTERIOR: tl.constexpr, allowed, rows, cols, at, inside,
    R: tl.constexpr,
):  # fmt: skip
    """Which pairs pass the tests of group G."""
    some = allowed
    for k in tl.static_range(words.tests(P, G)):
        if not words.settled(P, G, k, INTERIOR):
            a = operand(rows, words.test(P, G, k, "row"), at, inside, R)
            b = operand(cols, words.test(P, G, k, "col"), at, inside, 1 - R)
            some &= passes(words.test(P, G, k, "op"), words.test(P, G, k, "width"), a, b)
    return some


@triton.jit
def log_weights(P: tl.constexpr, G: tl.constexpr, s, rows, cols, at, inside, R: tl.constexpr):
    """The log-weights of group G; -inf excludes a pair."""
    w = tl.zeros(s.shape, tl.float32)
    for k in tl.static_range(words.terms(P, G)):
        w += term(P, G, k, s, rows, cols, at, inside, R)
    return w


@triton.jit
def term(
    P: tl.constexpr, G: tl.constexpr, K: tl.constexpr, s, rows, cols, at, inside, R: tl.constexpr
):
    KIND: tl.constexpr = words.term(P, G, K, "kind")
    VALUE: tl.constexpr = words.term(P, G, K, "value")
    if KIND == "row":
        return operand(rows, words.name(P, G, K, "rows", 0), at, inside, R)
    elif KIND == "col":
        return operand(cols, words.name(P, G, K, "cols", 0), at, inside, 1 - R)
    elif KIND == "not_above":
        return up_to(operand(rows, words.name(P, G, K, "rows", 0), at, inside, R), s)
    elif KIND == "distance":
        a = operand(rows, words.name(P, G, K, "rows", 0), at, inside, R)
        b = operand(cols, words.name(P, G, K, "cols", 0), at, inside, 1 - R)
        return VALUE * tl.log(1.0 + tl.abs(a - b))
    elif KIND == "differing":
        count = tl.zeros(s.shape, tl.float32)
        for t in tl.static_range(words.names(P, G, K)):
            a = operand(rows, words.name(P, G, K, "rows", t), at, inside, R)
            b = operand(cols, words.name(P, G, K, "cols", t), at, inside, 1 - R)
            count += tl.where(a != b, 1.0, 0.0)
        return tl.log(count)
    else:
        t = form(
            rows[words.name(P, G, K, "rows", 0)], cols[words.name(P, G, K, "cols", 0)],
            words.term(P, G, K, "extent"), at, inside, R, s.shape,
        )  # fmt: skip
        if KIND == "form":
            return t
        elif KIND == "at_most":
            return up_to(0.0, t)
        else:
            return tl.log(VALUE + t)


@triton.jit
def up_to(bound, value):
    """The log-weight of values with an upper bound; NaN stays NaN."""
    return tl.where(value <= bound, 0.0, tl.where(value > bound, NOTHING, value + bound))


@triton.jit
def form(left, right, EXTENT: tl.constexpr, at, inside, R: tl.constexpr, SHAPE: tl.constexpr):
    """The second bilinear form, <m_i, n_j>."""
    t = tl.zeros(SHAPE, tl.float32)
    for e in range(EXTENT):
        a = tl.load(left + at[R] * EXTENT + e, mask=inside[R], other=0)
        b = tl.load(right + at[1 - R] * EXTENT + e, mask=inside[1 - R], other=0)
        t += along(a, R) * along(b, 1 - R)
    return t


@triton.jit
def shifted(
    P: tl.constexpr, STEP: tl.constexpr, K: tl.constexpr, s, rows, cols, at, inside,
    R: tl.constexpr,
):  # fmt: skip
    """u = sign (s - shift), the shift along the channel's own axis."""
    SHIFT: tl.constexpr = words.view(P, STEP, K, "shift")
    OWN: tl.constexpr = 0 if words.view(P, STEP, K, "first") >= 0 else 1
    if SHIFT >= 0:
        if OWN == R:
            s -= operand(rows, SHIFT, at, inside, OWN)
        else:
            s -= operand(cols, SHIFT, at, inside, OWN)
    return words.view(P, STEP, K, "sign") * s


@triton.jit
def pairs_of(
    P: tl.constexpr, STEP: tl.constexpr, K: tl.constexpr, INTERIOR: tl.constexpr, s, rows, cols,
    allowed, at, inside,
):  # fmt: skip
    """Of a view of a tile: which pairs it has, their log-weights, and u."""
    R: tl.constexpr = words.orientation(P, STEP)
    G: tl.constexpr = words.view(P, STEP, K, "group")
    some = included(P, G, INTERIOR, allowed, rows, cols, at, inside, R)
    w = log_weights(P, G, s, rows, cols, at, inside, R)
    if words.terms(P, G) > 0:
        some &= w != NOTHING
    return some, w, shifted(P, STEP, K, s, rows, cols, at, inside, R)


@triton.jit
def pace(P: tl.constexpr, STEP: tl.constexpr, K: tl.constexpr, s):
    """[s + m]_+ or, if theta is negative, [1 + m - s]_+; NaN stays NaN."""
    M: tl.constexpr = words.view(P, STEP, K, "margin")
    if words.view(P, STEP, K, "theta") < 0:
        return psi(1.0 - s + M, "relu")
    else:
        return psi(s + M, "relu")


@triton.jit
def exponents(P: tl.constexpr, STEP: tl.constexpr, K: tl.constexpr, s, some, w):
    """z, so that e^(theta s + w) or, with a pace, e^(theta pace (s - m) + w) with 1 - m for m if
    theta is negative, is 2^(rate z); excluded pairs have the z of 2^-inf."""
    THETA: tl.constexpr = words.view(P, STEP, K, "theta")
    if words.plain(P, STEP, K):
        z = s
    elif THETA == 0:
        z = w
    elif words.view(P, STEP, K, "margin") is None:
        z = THETA * s + w
    else:
        OFFSET: tl.constexpr = words.offset(P, STEP, K)
        z = THETA * pace(P, STEP, K, s) * (s - OFFSET) + w
    if words.rate(P, STEP, K) > 0:
        return tl.where(some, z, NOTHING)
    else:
        return tl.where(some, z, -NOTHING)


@triton.jit
def powers(z, RATE: tl.constexpr, top):
    """2^(rate z - top), rounded once."""
    rate = tl.full(z.shape, RATE, tl.float32)
    return tl.exp2(tl.fma(z, rate, -tl.broadcast_to(top, z.shape)))


@triton.jit
def natural(P: tl.constexpr, STEP: tl.constexpr, K: tl.constexpr, z):
    """The exponents of e that the numbers of :func:`exponents` stand for."""
    if words.plain(P, STEP, K) and words.view(P, STEP, K, "theta") != 1:
        return z * words.view(P, STEP, K, "theta")
    else:
        return z


@triton.jit
def exponential(z):
    return tl.exp2(z * LOG2E)


@triton.jit
def less(top, z):
    """log2 of e^(-z) 2^top, for numbers near each other."""
    back = tl.full(z.shape, BACK, tl.float32)
    return (tl.fma(tl.broadcast_to(top, z.shape), back, -z) + top * BACK_REST) * LOG2E


@triton.jit
def weighed(value, some, w, TERMS: tl.constexpr):
    """value e^w, 0 for excluded pairs."""
    if TERMS > 0:
        return tl.where(some, value * tl.exp(w), 0.0)
    else:
        return tl.where(some, value, 0.0)


@triton.jit
def finite(top):
    return tl.where(top == NOTHING, 0.0, top)
