"""The C++ backend at thousands of sizes: values and gradients around every boundary of its tiles.

A tile has a few hundred rows and columns; micro-tiles and vectors are 2 to 32 wide, and buffers are
rounded up to multiples of some of them. A read or write that is off by one shows at some of these
sizes only.
"""

import random

import pytest
import torch
from hypothesis import given, settings, strategies as st

from contrastloss.backends import cpu
from contrastloss.channel import COL, EXPECT, INDEX, LSE, MAX, ROW, SUM, differs, not_above
from contrastloss.ops import pair_stats

#: sizes of micro-tiles, vectors, tile registers, tiles, and blocks of rows
UNITS = (1, 2, 3, 4, 6, 8, 12, 16, 32, 64, 192, 384)
#: the largest error allowed, relative to the largest element
ERRORS = {torch.float64: 1e-12, torch.float32: 2e-5, torch.bfloat16: 2e-2, torch.float16: 2e-3}

LOGS = (LSE(), LSE(axis=COL))
#: channels that the fused pass does not support, along both axes
MIXED = (
    LSE(pairs=(differs(INDEX),)),
    SUM("softplus", axis=COL),
    EXPECT(0.5),
    MAX(axis=COL),
)
#: a bound on the scores, which the fused pass supports
BOUNDED = tuple(
    LSE(axis=axis, pairs=(differs(INDEX),), weight=(not_above("most"),)) for axis in (ROW, COL)
)

pytestmark = pytest.mark.skipif(cpu.missing() is not None, reason=str(cpu.missing()))


def around(units, least, most):
    """Multiples of the units, and one less and one more, between two bounds."""
    near = {k * u + e for u in units for k in range(1, most // u + 1) for e in (-1, 0, 1)}
    return sorted(k for k in near if k >= least)


def operands(m, n, d, dtype, seed, symmetric, vectors):
    """Embeddings whose scores are of order 1, so that no single column dominates a row; with
    ``vectors`` also the scale, and scales and biases of rows and columns."""
    g = torch.Generator().manual_seed(seed)
    x, y = (torch.randn(k, d, generator=g).div(d**0.25).to(dtype) for k in (m, n))
    found = {"x": x} if symmetric else {"x": x, "y": y}
    stat = torch.float64 if dtype == torch.float64 else torch.float32
    lengths = {
        "scale": (),
        "row_scale": (m,),
        "col_scale": (n,),
        "row_bias": (m,),
        "col_bias": (n,),
    }
    for name, shape in lengths.items() if vectors else ():
        found[name] = (0.6 + 0.8 * torch.rand(shape, generator=g)).to(stat)
    return {name: value.requires_grad_() for name, value in found.items()}


def bounds(call):
    """A bound on the scores of each row, in the widest gap of their middle half, so that rounding
    decides no pair."""
    s = scores({name: value.detach().double() for name, value in call.items()})
    n = s.shape[1]
    middle = s.sort(1).values[:, (n - 1) // 4 : (n - 1) // 4 + n // 2 + 1]
    gap, at = middle.diff(dim=1).max(1, keepdim=True)
    return (middle.gather(1, at) + gap / 2).squeeze(1)


def scores(wide):
    one = wide["x"].new_ones(())
    factors = wide.get("row_scale", one)[..., None] * wide.get("col_scale", one)
    s = wide.get("scale", one) * factors * (wide["x"] @ wide.get("y", wide["x"]).mT)
    return s + wide.get("row_bias", 0 * one)[..., None] + wide.get("col_bias", 0)


def dense(call, channels, bound, upstream):
    """The values and the gradients of all operands from the dense formula in fp64; and the margin
    by which each maximum exceeds the next value."""
    wide = {name: value.detach().double() for name, value in call.items()}
    x = wide["x"]
    y = wide.get("y", x)
    one = x.new_ones(())
    scale = wide.get("scale", one)
    a, b = wide.get("row_scale", one)[..., None], wide.get("col_scale", one)
    dot = x @ y.mT
    s = scores(wide)
    values, slope, lead = statistics(s, channels, bound, upstream, symmetric="y" not in call)
    h = scale * a * b * slope
    dx, dy = h @ y, h.mT @ x
    return (
        values,
        {
            "x": dx if "y" in call else dx + dy,
            "y": dy,
            "scale": (slope * a * b * dot).sum(),
            "row_scale": (slope * scale * b * dot).sum(1),
            "col_scale": (slope * scale * a * dot).sum(0),
            "row_bias": slope.sum(1),
            "col_bias": slope.sum(0),
        },
        lead,
    )


def statistics(s, channels, bound, upstream, symmetric):
    """The values of every channel, the gradient of the scores, and the margin of the maxima."""
    diagonal = torch.eye(*s.shape, dtype=torch.bool)
    every = ~diagonal if symmetric else torch.ones_like(diagonal)
    values, slope, lead = [], torch.zeros_like(s), torch.inf
    for channel, grad in zip(channels, upstream, strict=True):
        dim = 0 if channel.axis == COL else 1
        mask = ~diagonal if channel.pairs else every
        if channel.weight:
            mask = mask & (s <= bound[:, None])
        g, masked = grad.double().unsqueeze(dim), s.masked_fill(~mask, -torch.inf)
        if channel.kind == "SUM":
            values.append(torch.where(mask, torch.logaddexp(s, 0 * s), 0.0).sum(dim))
            slope += torch.where(mask, g * s.sigmoid(), 0.0)
        elif channel.kind == "MAX":
            values.append(masked.amax(dim))
            slope += g * torch.zeros_like(s).scatter_(dim, masked.argmax(dim, keepdim=True), 1.0)
            if s.shape[dim] > 1:
                first, second = masked.topk(2, dim).values.unbind(dim)
                lead = min(lead, (first - second).min().item())
        else:
            theta = channel.theta
            lse = (theta * masked).logsumexp(dim, keepdim=True)
            some = torch.where(lse == -torch.inf, 0.0, lse)
            p = torch.where(mask, (theta * masked - some).exp(), 0.0)
            mean = (p * s).sum(dim, keepdim=True)
            expected = channel.kind == "EXPECT"
            values.append((mean if expected else lse).squeeze(dim))
            slope += g * p * (1 + theta * (s - mean) if expected else theta)
    return values, slope, lead


def wrong(m, n, d, dtype, channels=LOGS, symmetric=False, vectors=False, seed=0):
    """What differs from the dense formula at these sizes, as text; None if nothing does."""
    call = operands(m, m if symmetric else n, d, dtype, seed, symmetric, vectors)
    bound = bounds(call)
    stat = torch.float64 if dtype == torch.float64 else torch.float32
    named = {"rows": {"most": bound.to(stat)}} if any(c.weight for c in channels) else {}
    results = pair_stats(**{"y": None, **call}, channels=channels, **named, backend="cpu")
    values = [v if isinstance(v, torch.Tensor) else v.value for v in results]
    g = torch.Generator().manual_seed(seed + 1)
    upstream = [torch.rand(v.shape, generator=g).to(v.dtype) + 0.5 for v in values]
    grads = torch.autograd.grad(values, list(call.values()), upstream)
    expected, slopes, lead = dense(call, channels, bound, upstream)
    found = [(f"value {k}", *pair) for k, pair in enumerate(zip(values, expected, strict=True))]
    if lead > 1e-5:  # otherwise rounding decides which pair gets the maximum's gradient
        found += [(f"d {k}", v, slopes[k]) for k, v in zip(call, grads, strict=True)]
    for name, got, want in found:
        empty = want == -torch.inf
        limit = ERRORS[got.dtype] * max(want.masked_fill(empty, 0.0).abs().max().item(), 1.0)
        difference = got.detach().double() - want
        error = difference.masked_fill(empty & (got == want), 0.0).abs().max().item()
        if not error <= limit:
            return f"{name} at {m} x {n} x {d}: off by {error:.1e}, allowed {limit:.1e}"
    return None


def sizes(seed):
    """(rows, columns, features): every number of rows and of columns up to 300, every number of
    features up to 80, and boundary sizes, each combined with random other sizes."""
    draw = random.Random(seed)
    borders, features = around(UNITS, 2, 400), around((4, 8, 16, 32), 1, 80)
    for k in range(2, 301):
        yield k, draw.choice(borders), draw.choice(features)
        yield draw.choice(borders), k, draw.choice(features)
    for d in range(1, 81):
        yield draw.randint(2, 300), draw.randint(2, 300), d
    for border in (1152, 2304):  # blocks of rows
        yield border + draw.randint(-1, 1), draw.choice(borders), draw.choice(features)


@pytest.mark.parametrize("dtype", ERRORS, ids=str)
def test_some_sizes_up_to_130(isa, dtype):
    """The few that an emulated chip has time for."""
    seed = random.randrange(1 << 30)
    draw, borders = random.Random(seed), around(UNITS, 2, 130)
    for channels, vectors in ((LOGS, False), (LOGS, True), (MIXED, True), (BOUNDED, False)):
        for symmetric in (False, True):
            m, n, d = draw.choice(borders), draw.choice(borders), draw.randint(1, 130)
            found = wrong(m, n, d, dtype, channels, symmetric, vectors, seed)
            assert not found, f"seed {seed}: {found}"


@pytest.mark.parametrize(
    ("channels", "vectors"),
    [(LOGS, False), (LOGS, True), (MIXED, True), (BOUNDED, False)],
    ids=["logs", "scaled", "mixed", "bounded"],
)
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16], ids=str)
def test_every_size_up_to_300(isa, dtype, channels, vectors):
    seed = random.randrange(1 << 30)
    every = 4 if vectors else 2  # each run takes every 2nd or 4th size, chosen at random
    cases = [case for case in enumerate(sizes(seed)) if case[0] % every == seed % every]
    found = [
        line
        for k, (m, n, d) in cases
        if (line := wrong(m, n, d, dtype, channels, k % 3 == 2, vectors, seed + k))
    ]
    assert not found, f"seed {seed}: {len(found)} of {len(cases)} sizes\n" + "\n".join(found[:20])


@settings(max_examples=12, deadline=None, database=None)
@given(
    m=st.integers(600, 1400),
    n=st.integers(600, 1400),
    d=st.integers(1, 3000),
    dtype=st.sampled_from([torch.float32, torch.bfloat16]),
    seed=st.integers(0),
)
def check_threads_and_depth(m, n, d, dtype, seed):
    """Enough work that two threads share it, and so many features that few rows fit in a block and
    that products are cut."""
    seed %= 1 << 30
    for symmetric in (False, True):
        assert not wrong(m, n, d, dtype, symmetric=symmetric, seed=seed)


def test_threads_and_depth(threads):
    threads(2)
    check_threads_and_depth()
