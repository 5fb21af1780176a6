"""Extreme numbers on every instruction set: NaN, ids, norms, rounding."""

import itertools
import math

import pytest
import torch
from torch.nn import functional as F

from contrastloss.backends import cpu
from contrastloss.channel import (
    COL,
    EXPECT,
    INDEX,
    LSE,
    MAX,
    SUM,
    at_most,
    differing,
    differs,
    not_above,
    precedes,
    same,
    within,
)
from contrastloss.ops import pair_stats, pair_topk

if cpu.missing() is not None:
    pytest.skip(f"cpu: {cpu.missing()}", allow_module_level=True)

KINDS = (LSE(), LSE(2.0), LSE(pairs=(differs("i"),)), EXPECT(), SUM("softplus"), SUM("step"), MAX())


def values(x, y, channels, **operands):
    found = pair_stats(x, y, channels, backend="cpu", **operands)
    return [v if isinstance(v, torch.Tensor) else v.value for v in found]


# ---- NaN -----------------------------------------------------------------------------------------

#: one pair; part of a tile; exactly one tile; slightly more than one tile
SIZES = [(1, 1), (5, 7), (192, 384), (200, 390)]
ROWS = {"one row": slice(0, 1), "the last": slice(-1, None), "a tile": slice(0, 192), "all": ...}


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
@pytest.mark.parametrize(("m", "n"), SIZES)
@pytest.mark.parametrize("rows", ROWS)
def test_nan_reaches_all_that_it_is_part_of(isa, dtype, m, n, rows):
    x, y = torch.randn(m, 9).to(dtype), torch.randn(n, 9).to(dtype)
    bad = torch.zeros(m, dtype=torch.bool)
    bad[ROWS[rows]] = True
    x[bad, 4] = math.nan
    ids = {"rows": {"i": torch.zeros(m).long()}, "cols": {"i": torch.ones(n).long()}}
    for cosine, kind in itertools.product((False, True), KINDS):
        given = ids if kind.pairs else {}
        along = type(kind)(**{**_fields(kind), "axis": COL})
        row, col = values(x, y, (kind, along), cosine=cosine, **given)
        assert torch.equal(row.isnan(), bad), f"{kind}: rows"
        assert col.isnan().all(), f"{kind}: columns"


def _fields(kind):
    return {name: getattr(kind, name) for name in (*kind.fields, "pairs", "weight")}


def test_nan_in_a_symmetric_batch(isa):
    x = torch.randn(200, 6)
    x[3] = math.nan
    for axis in ("row", "col"):
        assert all(v.isnan().all() for v in values(x, None, (LSE(axis=axis), EXPECT(axis=axis))))
        assert all(v.isnan().all() for v in values(x * math.nan, None, (LSE(axis=axis),)))


def test_nan_of_a_pair_that_is_left_out_stays_out(isa):
    x = torch.randn(5, 4)
    y = torch.randn(6, 4)
    y[2] = math.nan
    ids = {"rows": {"i": torch.zeros(5).long()}, "cols": {"i": (torch.arange(6) == 2).long()}}
    (got,) = values(x, y, (LSE(pairs=(same("i"),)),), **ids)
    keep = torch.arange(6) != 2
    torch.testing.assert_close(got, (x @ y[keep].T).logsumexp(1))


def test_a_bound_that_is_nan_drops_no_pair_silently(isa):
    m, n = torch.randn(4, 3), torch.randn(5, 3)
    m[1] = math.nan
    x, y = torch.randn(4, 3), torch.randn(5, 3)
    near = {"rows": {"near": m}, "cols": {"near": n}}
    (got,) = values(x, y, (LSE(weight=(at_most("near"),)),), **near)
    assert torch.equal(got.isnan(), torch.arange(4) == 1)


@pytest.mark.parametrize("beta", [None, torch.zeros(400)], ids=["plain", "bias"])
def test_a_bound_of_scores_that_is_nan(isa, beta):
    """It makes NaN of its row, and of every column that has a pair of that row. The bias takes the
    general pass in place of the fused one."""
    x, y = torch.randn(400, 5, requires_grad=True), torch.randn(500, 5)
    bound = torch.full((400,), 0.1)
    bound[7] = math.nan
    off = (differs(INDEX),)
    weight = (not_above("most"),)
    program = (LSE(pairs=off, weight=weight), LSE(axis=COL, pairs=off, weight=weight))
    row, col = values(x, y, program, rows={"most": bound}, cosine=True, row_bias=beta)
    assert torch.equal(row.isnan(), torch.arange(400) == 7)
    assert torch.equal(col.isnan(), torch.arange(500) != 7)
    (row,) = values(x, y, program[:1], rows={"most": bound}, cosine=True, row_bias=beta)
    (dx,) = torch.autograd.grad(row.sum(), x)
    assert torch.equal(dx.isnan().any(1), torch.arange(400) == 7)


# ---- ids -----------------------------------------------------------------------------------------

LOW, HIGH = -(1 << 63), (1 << 63) - 1
IDS = [LOW, LOW + 1, -1, 0, 1, 2, 190, HIGH - 1, HIGH]
WIDTHS = [-1, 0, 1, 1 << 31, HIGH]


def test_ids_at_the_ends_of_int64(isa):
    """Also compared with positions, which have no operand."""
    ids, n = torch.tensor(IDS), 200
    x, y = torch.zeros(len(IDS), 1), torch.zeros(n, 1)
    tests = [same(INDEX), differs(INDEX), precedes(INDEX), *(within(INDEX, w) for w in WIDTHS)]
    for test, cols in itertools.product(tests, ({}, {INDEX: ids.repeat(23)[:n]})):
        there = cols[INDEX].tolist() if cols else range(n)
        compare = {
            "eq": lambda a, b: a == b,
            "ne": lambda a, b: a != b,
            "lt": lambda a, b: a < b,
            "within": lambda a, b, width=test.width: abs(a - b) <= width,
        }[test.op]
        want = [sum(compare(a, b) for b in there) for a in IDS]
        (got,) = values(x, y, (SUM("one", pairs=(test,)),), rows={INDEX: ids}, cols=cols)
        assert got.tolist() == want, f"{test} {'ids' if cols else 'positions'}"


def test_positions_may_stand_in_a_weight(isa):
    x, y = torch.zeros(3, 1), torch.zeros(4, 1)
    (got,) = values(x, y, (LSE(weight=(differing(INDEX),)),))
    torch.testing.assert_close(got, torch.full((3,), math.log(3.0)))


# ---- norms ---------------------------------------------------------------------------------------

FACTORS = {
    torch.float32: (1e30, 1e-11, 1.0),
    torch.float64: (1e200, 1e300, 1e-11, 1.0),
    torch.bfloat16: (1e25, 1e-11, 1.0),
}
#: tolerances of values and of gradients
ROUNDING = {
    torch.float32: (1e-6, 2e-5),
    torch.float64: (1e-13, 2e-12),
    torch.bfloat16: (1e-6, 2e-2),
}


@pytest.mark.parametrize("dtype", FACTORS)
def test_cosines_of_rows_whose_squares_overflow(isa, dtype):
    x, y = torch.randn(2, 40, 7, dtype=torch.float64)
    factors = torch.tensor(FACTORS[dtype], dtype=torch.float64).repeat(40)[:40, None]
    leaves = [(factors * v).to(dtype).requires_grad_() for v in (x, y)]
    (got,) = values(*leaves, (LSE(),), cosine=True)
    plain = [(v.detach().double() / factors).requires_grad_() for v in leaves]
    want = (F.normalize(plain[0]) @ F.normalize(plain[1]).T).logsumexp(1)
    limit, slack = ROUNDING[dtype]
    torch.testing.assert_close(got.double(), want, rtol=limit, atol=limit)
    found = torch.autograd.grad(got.sum(), leaves)
    for grad, slope in zip(found, torch.autograd.grad(want.sum(), plain), strict=True):
        torch.testing.assert_close(grad.double() * factors, slope, rtol=slack, atol=slack / 20)


def test_a_tiny_row_is_no_zero_row(isa):
    """A norm below eps is replaced by eps: cosines are those of x / eps, and so is the gradient."""
    x = torch.tensor([[3e-200, 4e-200]], dtype=torch.float64, requires_grad=True)
    y = torch.tensor([[1.0, 0.0]], dtype=torch.float64)
    (got,) = values(x, y, (SUM("id"),), cosine=True)
    assert got.item() == pytest.approx(3e-188)
    (grad,) = torch.autograd.grad(got.sum(), x)
    torch.testing.assert_close(grad, torch.tensor([[1e12, 0.0]], dtype=torch.float64))


# ---- rounding ------------------------------------------------------------------------------------


@pytest.mark.parametrize("compute", [torch.float32, torch.bfloat16, torch.float16])
def test_fp64_is_rounded_as_asked(isa, compute):
    x, y = torch.randn(2, 30, 12, dtype=torch.float64)
    (got,) = pair_stats(x, y, (LSE(),), compute_dtype=compute, backend="cpu")
    rounded = [v.to(compute).double() for v in (x, y)]
    want = (rounded[0] @ rounded[1].T).logsumexp(1)
    torch.testing.assert_close(got, want, rtol=1e-13, atol=1e-13)
    assert (got - (x @ y.T).logsumexp(1)).abs().max() > 1e-9


@pytest.mark.parametrize("flush", [False, True], ids=["denormals", "flushed"])
def test_every_fp16_number_is_read_exactly(isa, flush):
    """Also while numbers below the least normal one of fp32 count as 0: callers may set that, and
    gradients are computed so. No fp16 number is so small."""
    halves = torch.arange(-(1 << 15), 1 << 15).to(torch.int16).view(torch.float16)
    halves = halves[halves.isfinite()]
    one, zeros = torch.ones(1, 1).half(), torch.zeros(1, len(halves)).half().requires_grad_()
    torch.set_flush_denormal(flush)
    try:
        (got,) = values(halves[:, None], one, (SUM("id"),))
        both = values(halves[None], zeros, (SUM("id"), LSE()))
        (grad,) = torch.autograd.grad(both, zeros, [torch.full((1,), 0.5)] * 2)
    finally:
        torch.set_flush_denormal(False)
    torch.testing.assert_close(got, halves.float(), rtol=0, atol=0)
    torch.testing.assert_close(grad[0], halves, rtol=0, atol=0)


def test_a_draw_never_takes_what_is_minus_infinity(isa):
    x, y = torch.ones(1, 1), torch.ones(9, 1)
    bias = torch.zeros(9)
    bias[4] = -math.inf
    for beta in (-1.0, 0.0, 1.0):
        index = pair_topk(x, y, 9, sample=beta, seed=1, col_bias=bias, backend="cpu").indices
        assert sorted(index[0].tolist()) == [-1, 0, 1, 2, 3, 5, 6, 7, 8]
