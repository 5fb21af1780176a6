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
    "BACK",
    "BACK_REST",
    "LEAST_SUM",
    "LOG2E",
    "NOTHING",
    "along",
    "empty",
    "finite",
    "fresh",
    "included",
    "joined",
    "less",
    "log_weights",
    "merged",
    "settled",
    "shifted",
    "states",
    "view_gradient",
]

NOTHING = tl.constexpr(float("-inf"))
LOG2E = tl.constexpr(words.LOG2E)
#: 1 / LOG2E in two parts: were it ln(2), large exponents and their tops would not agree
BACK = tl.constexpr(0.6931471824645996)
BACK_REST = tl.constexpr(7.348693061389158e-09)
#: exponents of a shared top lie up to this far above it, so that others may lie further below
HEADROOM = tl.constexpr(60.0)
#: terms below the range of fp32, 2^-126 each, do not change a sum of this size
LEAST_SUM = tl.constexpr(2.0**-60)


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


# ---- state --------------------------------------------------------------------------------------
#
# LSE (top, sum), SUM (total,), EXPECT (top, sum, moment), MAX (value, position). A top is an
# exponent of 2, a whole number, so that states are merged without rounding.


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
        by_a = tl.exp2(a[0] - finite(top))
        by_b = tl.exp2(b[0] - finite(top))
        if KIND == "LSE":
            return (top, a[1] * by_a + b[1] * by_b)
        else:
            return (top, a[1] * by_a + b[1] * by_b, a[2] * by_a + b[2] * by_b)


@triton.jit
def highest(z, RATE: tl.constexpr, AXIS: tl.constexpr):
    """The top of exponents along an axis, or of a whole tile for axis None."""
    return tl.ceil((tl.max(z, AXIS) if RATE > 0 else tl.min(z, AXIS)) * RATE)


@triton.jit
def summed(KIND: tl.constexpr, top, e, s, AXIS: tl.constexpr):
    """The state of e = 2^(z - top), summed along an axis."""
    total = tl.sum(e, AXIS)
    top += tl.zeros(total.shape, tl.float32)
    if KIND == "LSE":
        return (top, total)
    else:
        return (top, total, tl.sum(tl.where(e == 0.0, 0.0, e * s), AXIS))


@triton.jit
def own_sums(KIND: tl.constexpr, RATE: tl.constexpr, z, s, AXIS: tl.constexpr):
    """The states along ``AXIS``, each with its own top."""
    top = highest(z, RATE, AXIS)
    e = powers(z, RATE, along(finite(top), 1 - AXIS))
    return summed(KIND, top, e, s, AXIS)


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
    """The states along axis 0, the partial of axis 1, with one exponential for both, and the least
    sum of the partial, which is also that of its rows."""
    top = highest(z, RATE, None) - HEADROOM
    e = powers(z, RATE, finite(top))
    first = ()
    if FIRST:
        first = summed(KIND, top, e, s, 1)
    part = folded(e)
    least = tl.min(part)
    if KIND == "LSE":
        return first, (top, part), least
    else:
        return first, (top, part, folded(tl.where(e == 0.0, 0.0, e * s))), least


@triton.jit
def joined(KIND: tl.constexpr, a, b):
    """The sum of two partials."""
    if KIND == "SUM":
        return (a[0] + b[0],)
    else:
        top = tl.maximum(a[0], b[0])
        by_a, by_b = tl.exp2(a[0] - finite(top)), tl.exp2(b[0] - finite(top))
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
            if FIRST:
                first = own_sums(KIND, RATE, z, s, 1)
            if SECOND:
                second = own_sums(KIND, RATE, z, s, 0)
    return first, second, least


# ---- G ------------------------------------------------------------------------------------------
#
# A channel's vectors are (mean, top, at, grad, grad_lse, own, shared), loaded along its own axis:
#   LSE     own [pace] 2^(rate z - top)                   SUM  grad e^w sign psi'(u)
#   EXPECT  own 2^(rate z - top) (grad (1 + theta (s - mean)) + grad_lse theta)
#   MAX     grad sign [place = at]
# own is e^(-lse) 2^top, of an LSE times grad theta, and shared the same for the top that all rows
# and columns of a view share: see shares.py.


@triton.jit
def slope(P: tl.constexpr, STEP: tl.constexpr, K: tl.constexpr, s, vectors, by, AXIS: tl.constexpr):
    """What the powers are multiplied with for the gradient of one channel."""
    THETA: tl.constexpr = words.view(P, STEP, K, "theta")
    if words.view(P, STEP, K, "kind") == "LSE":
        return along(by, AXIS)
    else:
        change = along(vectors[3], AXIS) * (1.0 + THETA * (s - along(vectors[0], AXIS)))
        return along(by, AXIS) * (change + along(vectors[4], AXIS) * THETA)


@triton.jit
def own_powers(
    P: tl.constexpr, STEP: tl.constexpr, K: tl.constexpr, s, z, vectors, AXIS: tl.constexpr
):
    """The gradient of one channel, each row or column with its own top."""
    e = powers(z, words.rate(P, STEP, K), along(vectors[1], AXIS))
    return product(P, STEP, K, e, slope(P, STEP, K, s, vectors, vectors[5], AXIS))


@triton.jit
def product(P: tl.constexpr, STEP: tl.constexpr, K: tl.constexpr, e, by):
    if words.view(P, STEP, K, "kind") == "LSE":
        return e * by
    else:
        return tl.where(e == 0.0, 0.0, e * by)


@triton.jit
def shared_powers(P: tl.constexpr, STEP: tl.constexpr, K: tl.constexpr, s, z, top, first, second):
    """The gradients of a row and a column channel, with one exponential."""
    by = slope(P, STEP, K, s, first, first[6], 0) + slope(P, STEP, K, s, second, second[6], 1)
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
