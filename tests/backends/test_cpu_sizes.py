"""The C++ backend at thousands of sizes: values and gradients around every border of its tiles.

A tile is a few hundred rows and columns, micro-tiles and vectors are 2 to 32 wide, and the memory
behind each is rounded up to some of them: whatever reads one number too far, or writes it, shows at
some of these sizes and no other.
"""

import random

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from contrastloss.backends import cpu
from contrastloss.channel import COL, EXPECT, INDEX, LSE, MAX, SUM, differs
from contrastloss.ops import pair_stats

#: rows of a micro-tile, lanes of a vector, tile registers, tiles, and blocks of rows
UNITS = (1, 2, 3, 4, 6, 8, 12, 16, 32, 64, 192, 384)
#: the largest error of a gradient, of its largest element
ERRORS = {torch.float64: 1e-12, torch.float32: 2e-5, torch.bfloat16: 2e-2}

LOGS = (LSE(), LSE(axis=COL))
#: channels that the fused pass does not serve, of both axes
MIXED = (
    LSE(pairs=(differs(INDEX),)),
    SUM("softplus", axis=COL),
    EXPECT(0.5),
    MAX(axis=COL),
)

pytestmark = pytest.mark.skipif(cpu.missing() is not None, reason=str(cpu.missing()))


def around(units, least, most):
    """Whole numbers of units, one less and one more, between two bounds."""
    near = {k * u + e for u in units for k in range(1, most // u + 1) for e in (-1, 0, 1)}
    return sorted(k for k in near if k >= least)


def embeddings(m, n, d, dtype, seed, symmetric):
    """Scores of a few units, so that no row is won by one column."""
    g = torch.Generator().manual_seed(seed)
    x, y = (torch.randn(k, d, generator=g).div(d**0.25).to(dtype).requires_grad_() for k in (m, n))
    return (x, None) if symmetric else (x, y)


def dense(x, y, channels, upstream):
    """Values and the gradients of x and y, in closed form, in fp64."""
    left = x.detach().double()
    right = left if y is None else y.detach().double()
    s = left @ right.mT
    off = torch.ones_like(s, dtype=torch.bool)
    diagonal = torch.eye(*s.shape, dtype=torch.bool)
    if y is None:
        off &= ~diagonal
    values, slope = [], torch.zeros_like(s)
    for channel, grad in zip(channels, upstream, strict=True):
        dim = 0 if channel.axis == COL else 1
        mask = off & ~diagonal if channel.pairs else off
        g = grad.double().unsqueeze(dim)
        if channel.kind == "SUM":
            values.append(torch.where(mask, torch.logaddexp(s, 0 * s), 0.0).sum(dim))
            slope += torch.where(mask, g * s.sigmoid(), 0.0)
            continue
        masked = s.masked_fill(~mask, -torch.inf)
        if channel.kind == "MAX":
            values.append(masked.amax(dim))
            hit = torch.zeros_like(s).scatter_(dim, masked.argmax(dim, keepdim=True), 1.0)
            slope += torch.where(mask, g * hit, 0.0)
            continue
        theta = channel.theta
        lse = (theta * masked).logsumexp(dim, keepdim=True)
        p = torch.where(mask, (theta * masked - lse).exp(), 0.0)
        if channel.kind == "LSE":
            values.append(lse.squeeze(dim))
            slope += g * theta * p
        else:
            mean = (p * s).sum(dim, keepdim=True)
            values.append(mean.squeeze(dim))
            slope += g * p * (1 + theta * (s - mean))
    if y is None:
        return values, [(slope + slope.mT) @ left]
    return values, [slope @ right, slope.mT @ left]


def wrong(m, n, d, dtype, channels=LOGS, symmetric=False, seed=0):
    """What differs from the dense formula at these sizes, in words; None where nothing does."""
    n = m if symmetric else n
    x, y = embeddings(m, n, d, dtype, seed, symmetric)
    results = pair_stats(x, y, channels, backend="cpu")
    values = [v if isinstance(v, torch.Tensor) else v.value for v in results]
    g = torch.Generator().manual_seed(seed + 1)
    upstream = [torch.rand(v.shape, generator=g).to(v.dtype) + 0.5 for v in values]
    grads = torch.autograd.grad(values, [x] if symmetric else [x, y], upstream)
    expected, slopes = dense(x, y, channels, upstream)
    found = zip(("values",) * len(values) + ("dx", "dy"), (*values, *grads), (*expected, *slopes),
                strict=False)  # fmt: skip
    for name, got, want in found:
        limit = ERRORS[dtype if name != "values" else got.dtype] * max(want.abs().max().item(), 1.0)
        error = (got.detach().double() - want).abs().max().item()
        if not error <= limit:
            return f"{name} at {m} x {n} x {d}: off by {error:.1e}, allowed {limit:.1e}"
    return None


def sizes(seed):
    """(rows, columns, features): every number of rows and of columns up to 300, every number of
    features up to 80, and borders, each beside others that are drawn."""
    draw = random.Random(seed)
    borders, features = around(UNITS, 2, 400), around((4, 8, 16, 32), 1, 80)
    for k in range(2, 301):
        yield k, draw.choice(borders), draw.choice(features)
        yield draw.choice(borders), k, draw.choice(features)
    for d in range(1, 81):
        yield draw.randint(2, 300), draw.randint(2, 300), d
    for border in (1152, 2304):  # blocks of rows
        yield border + draw.randint(-1, 1), draw.choice(borders), draw.choice(features)


@pytest.mark.parametrize("channels", [LOGS, MIXED], ids=["logs", "mixed"])
@pytest.mark.parametrize("dtype", ERRORS, ids=str)
def test_every_size_up_to_300(isa, threads, dtype, channels):
    threads(1)
    seed = random.randrange(1 << 30)
    cases = [(case, k % 3 == 2) for k, case in enumerate(sizes(seed))]
    found = [
        line
        for k, (case, symmetric) in enumerate(cases)
        if (line := wrong(*case, dtype, channels, symmetric, seed + k))
    ]
    assert not found, f"seed {seed}: {len(found)} of {len(cases)} sizes\n" + "\n".join(found[:20])


@settings(max_examples=12, deadline=None, database=None)
@given(
    m=st.integers(600, 1400), n=st.integers(600, 1400), d=st.integers(1, 3000), seed=st.integers(0)
)
def test_threads_and_depth(m, n, d, seed):
    """So much work that two threads share it, and features that leave room for few rows."""
    seed %= 1 << 30
    for symmetric in (False, True):
        assert not wrong(m, n, d, torch.float32, symmetric=symmetric, seed=seed)
