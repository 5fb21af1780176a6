"""The maths of a channel for Triton: psi, tests and weights, merging, and the parts of G.

A tile is evaluated *direct*, with rows along axis 0, or *transposed*, as the tile on the other side
of the diagonal of a symmetric problem, whose rows are along axis 1. Everything that belongs to a
row or a column is loaded along its own axis, so both cases use the same formulas.
"""

from __future__ import annotations

import triton
import triton.language as tl

from . import words

__all__ = [
    "NOTHING",
    "along",
    "dpsi",
    "empty",
    "expm1",
    "finite",
    "form",
    "log1p",
    "logits",
    "merged",
    "operand",
    "pace",
    "passes",
    "psi",
    "reduced",
    "score_gradient",
    "shifted",
    "term",
    "up_to",
    "weighed",
    "weights",
]

NOTHING = tl.constexpr(float("-inf"))


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


@triton.jit
def operand(vectors, K: tl.constexpr, places, valid, AXIS: tl.constexpr):
    """Operand K at these positions; -1 means the positions themselves."""
    if K < 0:
        return along(places, AXIS)
    else:
        return along(tl.load(vectors[K] + places, mask=valid, other=0), AXIS)


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
def weights(
    P: tl.constexpr, G: tl.constexpr, s, allowed, rows, cols, i, in_i, j, in_j, R: tl.constexpr
):
    """The log-weights of a tile with scores s for group G, -inf for excluded pairs. i are the rows,
    along axis R, and j the columns."""
    w = tl.where(allowed, 0.0, NOTHING)
    for k in tl.static_range(words.terms(P, G)):
        w += term(P, G, k, s, rows, cols, i, in_i, j, in_j, R, w.shape)
    for k in tl.static_range(words.tests(P, G)):
        a = operand(rows, words.test(P, G, k, "row"), i, in_i, R)
        b = operand(cols, words.test(P, G, k, "col"), j, in_j, 1 - R)
        fits = passes(words.test(P, G, k, "op"), words.test(P, G, k, "width"), a, b)
        w = tl.where(fits, w, NOTHING)
    return tl.where(allowed, w, NOTHING)


@triton.jit
def term(
    P: tl.constexpr, G: tl.constexpr, K: tl.constexpr, s, rows, cols, i, in_i, j, in_j,
    R: tl.constexpr, SHAPE: tl.constexpr,
):  # fmt: skip
    KIND: tl.constexpr = words.term(P, G, K, "kind")
    VALUE: tl.constexpr = words.term(P, G, K, "value")
    if KIND == "row":
        return operand(rows, words.name(P, G, K, "rows", 0), i, in_i, R)
    elif KIND == "col":
        return operand(cols, words.name(P, G, K, "cols", 0), j, in_j, 1 - R)
    elif KIND == "not_above":
        return up_to(operand(rows, words.name(P, G, K, "rows", 0), i, in_i, R), s)
    elif KIND == "distance":
        a = operand(rows, words.name(P, G, K, "rows", 0), i, in_i, R)
        b = operand(cols, words.name(P, G, K, "cols", 0), j, in_j, 1 - R)
        return VALUE * tl.log(1.0 + tl.abs(a - b))
    elif KIND == "differing":
        count = tl.zeros(SHAPE, tl.float32)
        for t in tl.static_range(words.names(P, G, K)):
            a = operand(rows, words.name(P, G, K, "rows", t), i, in_i, R)
            b = operand(cols, words.name(P, G, K, "cols", t), j, in_j, 1 - R)
            count += tl.where(a != b, 1.0, 0.0)
        return tl.log(count)
    else:
        t = form(
            rows[words.name(P, G, K, "rows", 0)], cols[words.name(P, G, K, "cols", 0)],
            words.term(P, G, K, "extent"), i, in_i, j, in_j, R, SHAPE,
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
def form(
    left, right, EXTENT: tl.constexpr, i, in_i, j, in_j, R: tl.constexpr, SHAPE: tl.constexpr
):  # fmt: skip
    """The second bilinear form, <m_i, n_j>."""
    t = tl.zeros(SHAPE, tl.float32)
    for e in range(EXTENT):
        a = tl.load(left + i * EXTENT + e, mask=in_i, other=0)
        b = tl.load(right + j * EXTENT + e, mask=in_j, other=0)
        t += along(a, R) * along(b, 1 - R)
    return t


@triton.jit
def shifted(P: tl.constexpr, c: tl.constexpr, s, rows, cols, i, in_i, j, in_j, R: tl.constexpr):
    """u = sign (s - shift), the shift along the channel's own axis."""
    SHIFT: tl.constexpr = words.channel(P, c, "shift")
    if SHIFT >= 0:
        if words.channel(P, c, "axis") == 0:
            s -= operand(rows, SHIFT, i, in_i, R)
        else:
            s -= operand(cols, SHIFT, j, in_j, 1 - R)
    return words.channel(P, c, "sign") * s


@triton.jit
def pace(P: tl.constexpr, c: tl.constexpr, s):
    """[s + m]_+ or, if theta is negative, [1 + m - s]_+; NaN stays NaN."""
    M: tl.constexpr = words.channel(P, c, "margin")
    if words.channel(P, c, "theta") < 0:
        return psi(1.0 - s + M, "relu")
    else:
        return psi(s + M, "relu")


@triton.jit
def logits(P: tl.constexpr, c: tl.constexpr, s, w):
    """z = theta s + w or, with a pace, theta pace (s - m) + w, with 1 - m for m if theta is
    negative. z is -inf wherever w is, whatever s is there."""
    THETA: tl.constexpr = words.channel(P, c, "theta")
    M: tl.constexpr = words.channel(P, c, "margin")
    if THETA == 0:
        return w
    elif M is None:
        return tl.where(w == NOTHING, NOTHING, THETA * s + w)
    else:
        OFFSET: tl.constexpr = words.offset(P, c)
        return tl.where(w == NOTHING, NOTHING, THETA * pace(P, c, s) * (s - OFFSET) + w)


@triton.jit
def weighed(value, w, TERMS: tl.constexpr):
    """value e^w, 0 for excluded pairs."""
    if TERMS > 0:
        return tl.where(w == NOTHING, 0.0, value * tl.exp(w))
    else:
        return tl.where(w == NOTHING, 0.0, value)


# ---- state --------------------------------------------------------------------------------------
#
# LSE (top, sum), SUM (total,), EXPECT (top, sum, moment), MAX (value, position)


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
def finite(top):
    return tl.where(top == NOTHING, 0.0, top)


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
        by_a = tl.exp(a[0] - finite(top))
        by_b = tl.exp(b[0] - finite(top))
        if KIND == "LSE":
            return (top, a[1] * by_a + b[1] * by_b)
        else:
            return (top, a[1] * by_a + b[1] * by_b, a[2] * by_a + b[2] * by_b)


@triton.jit
def reduced(P: tl.constexpr, c: tl.constexpr, s, w, u, places, AXIS: tl.constexpr):
    """The state of one tile, reduced along ``AXIS``; ``places`` are the positions along that
    axis."""
    KIND: tl.constexpr = words.channel(P, c, "kind")
    if KIND == "SUM":
        TERMS: tl.constexpr = words.terms(P, words.channel(P, c, "group"))
        return (tl.sum(weighed(psi(u, words.channel(P, c, "psi")), w, TERMS), AXIS),)
    elif KIND == "MAX":
        v = tl.where(w == NOTHING, NOTHING, words.channel(P, c, "sign") * s)
        nan = tl.sum((v != v).to(tl.int32), AXIS) > 0
        best = tl.max(v, AXIS)
        hit = (v == along(best, 1 - AXIS)) & (v != NOTHING)
        at = tl.min(tl.where(hit, along(places, AXIS), 0x7FFFFFFF), AXIS)
        at = tl.where(at == 0x7FFFFFFF, -1, at)
        return (tl.where(nan, float("nan"), best), tl.where(nan, -1, at))
    else:
        z = logits(P, c, s, w)
        top = tl.max(z, AXIS)
        e = tl.exp(z - along(finite(top), 1 - AXIS))
        if KIND == "LSE":
            return (top, tl.sum(e, AXIS))
        else:
            return (top, tl.sum(e, AXIS), tl.sum(tl.where(e == 0.0, 0.0, e * s), AXIS))


# ---- G ------------------------------------------------------------------------------------------


@triton.jit
def score_gradient(
    P: tl.constexpr, c: tl.constexpr, s, w, u, mean, lse, at, grad, grad_lse, places
):
    """One channel's part of G; statistics and gradients are broadcast along the channel's axis.

    LSE     gL theta [pace] e^(z - L)     SUM  g e^w sign psi'(u)
    EXPECT  p (g (1 + theta (s - E)) + gL theta)        MAX  g sign [place = at]
    """
    KIND: tl.constexpr = words.channel(P, c, "kind")
    THETA: tl.constexpr = words.channel(P, c, "theta")
    SIGN: tl.constexpr = words.channel(P, c, "sign")
    if KIND == "SUM":
        TERMS: tl.constexpr = words.terms(P, words.channel(P, c, "group"))
        return weighed(grad * (SIGN * dpsi(u, words.channel(P, c, "psi"))), w, TERMS)
    elif KIND == "MAX":
        return tl.where(places == at, SIGN * grad, 0.0)
    else:
        p = tl.where(lse == NOTHING, 0.0, tl.exp(logits(P, c, s, w) - finite(lse)))
        if KIND == "LSE" and words.channel(P, c, "margin") is None:
            return p * (THETA * grad)
        elif KIND == "LSE":
            return tl.where(p == 0.0, 0.0, p * (THETA * grad * pace(P, c, s)))
        else:
            slope = grad * (1.0 + THETA * (s - mean)) + grad_lse * THETA
            return tl.where(p == 0.0, 0.0, p * slope)
