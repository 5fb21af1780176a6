"""Special values and many sizes on the GPU backends, also without a GPU: in Triton's interpreter
(TRITON_INTERPRET=1) and in the CUDA emulation (--cuda-host)."""

import itertools

import pytest
import torch
from backends.test_cuda import PROGRAMS
from backends.test_sweep import MIXED, disagreements, function_of
from oracle import VECTORS, evaluate, problem
from torch.utils._pytree import tree_leaves

from contrastloss import ops
from contrastloss.channel import (
    COL,
    EXPECT,
    INDEX,
    LSE,
    MAX,
    PSI,
    SUM,
    at_most,
    differs,
    form,
    not_above,
    precedes,
    row_weight,
    same,
    within,
)

#: rows of a tile, and columns of one or several tiles
TILE = {"cuda": 128, "triton": 32}


pytestmark = pytest.mark.among("cuda", "triton")


# ---- NaN -----------------------------------------------------------------------------------------

NAN_PROGRAMS = {
    "log and sum": PROGRAMS["log and sum"],
    "all": (
        LSE(), LSE(axis=COL), EXPECT(), EXPECT(axis=COL), MAX(), MAX(axis=COL),
        LSE(2.0, relax=0.25), SUM("relu", axis=COL),
    ),
    "sums": tuple(SUM(psi) for psi in PSI if psi != "step"),
}  # fmt: skip
#: which rows of which operand are NaN, in units of tiles
NANS = {
    "a row": ("x", 0.1, 0.11),
    "a tile of rows": ("x", 0, 1),
    "the last rows": ("x", 1, None),
    "all rows": ("x", 0, None),
    "a column": ("y", 0.3, 0.31),
    "a tile of columns": ("y", 0, 1),
    "all columns": ("y", 0, None),
    "biases of a tile": ("row_bias", 0, 1),
    "scales of columns": ("col_scale", 0.5, None),
}


@pytest.mark.parametrize("symmetric", [False, True], ids=["y", "symmetric"])
@pytest.mark.parametrize("place", NANS)
@pytest.mark.parametrize("name", NAN_PROGRAMS)
def test_nan(device, backend, name, place, symmetric):
    """Values and the gradients of x and y are NaN where the reference's are, and equal the
    reference's elsewhere."""
    operand, start, stop = NANS[place]
    if symmetric and operand == "y":
        pytest.skip("there is none")
    tile = TILE[backend]
    rows = slice(int(start * tile), None if stop is None else int(stop * tile) or 1)
    size = {"m": tile + 9, "n": tile + 13, "d": 5, "dtype": torch.float32}
    vectors = (operand,) if operand in VECTORS else ()
    call = problem(NAN_PROGRAMS[name], **size, symmetric=symmetric, vectors=vectors, device=device)
    call[operand] = call[operand].clone()
    call[operand][rows.start : max(rows.start + 1, rows.stop or call[operand].shape[0])] = torch.nan
    values, grads = evaluate(function_of(backend), call)
    expected, expected_grads = evaluate(function_of("reference"), call)
    odd = 0
    for got, want in zip(values, expected, strict=True):
        torch.testing.assert_close(got, want, rtol=1e-5, atol=1e-5, equal_nan=True)
        odd += int(want.isnan().sum())
    assert odd
    for key in {"x", "y"} & grads.keys():
        assert torch.equal(grads[key].isnan(), expected_grads[key].isnan())


def test_nan_is_not_below_a_threshold(device, backend):
    """NaN is not counted as below a threshold, neither by a step nor by a bound on a form or on
    the score."""
    x, bound = torch.ones(3, 2, device=device), torch.ones(3, 2, device=device)
    x[1], bound[2] = torch.nan, torch.nan
    program = (SUM("step"), LSE(weight=(at_most("near"),)), SUM("one", weight=(not_above("most"),)))
    rows = {"near": -bound, "most": 2 * bound[:, 0]}
    count, some, below = ops.pair_stats(
        x, x[:1], program, rows=rows, cols={"near": bound[:1]}, backend=backend
    )
    assert count.isnan().tolist() == [False, True, False]
    assert some.isnan().tolist() == below.isnan().tolist() == [False, True, True]


# ---- ids -----------------------------------------------------------------------------------------

LEAST, MOST = -(2**63), 2**63 - 1
IDS = (LEAST, LEAST + 1, -(2**32), -2, -1, 0, 1, 2, 5, 2**31, 2**32, MOST - 1, MOST)
WIDTHS = (-(2**40), -1, 0, 1, 3, 2**31, 2**32, MOST - 1, MOST)
PASSES = {
    "eq": lambda a, b, width: a == b,
    "ne": lambda a, b, width: a != b,
    "lt": lambda a, b, width: a < b,
    "within": lambda a, b, width: abs(a - b) <= width,
}


@pytest.mark.parametrize("given", ["both", "rows", "cols"])
def test_ids_at_the_ends(device, backend, given):
    """Ids compare as unbounded integers do; a position compares like any other id."""
    ids = torch.tensor(IDS, device=device)
    x = torch.ones(len(IDS), 1, device=device)
    positions = range(len(IDS))
    rows, cols = ({INDEX: ids} if given in ("both", side) else {} for side in ("rows", "cols"))
    left, right = IDS if rows else positions, IDS if cols else positions
    tests = [same(INDEX), differs(INDEX), precedes(INDEX), *(within(INDEX, w) for w in WIDTHS)]
    for test in tests:
        (count,) = ops.pair_stats(
            x, x, (SUM("one", pairs=(test,)),), rows=rows, cols=cols, backend=backend
        )
        want = [sum(PASSES[test.op](a, b, test.width) for b in right) for a in left]
        assert count.tolist() == want, test


# ---- operands ------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16, torch.float16], ids=str)
def test_operands_of_another_dtype(device, backend, dtype):
    """Results are bitwise equal to those of operands in the statistics' dtype; gradients have the
    operands' dtype."""
    program = (
        LSE(weight=(row_weight("u"), form("soft"))),
        SUM("relu2", shift="margin"),
        SUM("softplus", axis=COL, shift="margin"),
    )
    call = problem(
        program, m=9, n=14, d=5, dtype=torch.float32, vectors=VECTORS, device=device, cosine=True
    )
    narrow = dict(call)
    for name in VECTORS:
        narrow[name] = call[name].to(dtype)
        call[name] = narrow[name].float()
    for side in ("rows", "cols"):
        narrow[side] = {k: v.to(dtype) for k, v in call[side].items()}
        call[side] = {k: v.float() for k, v in narrow[side].items()}
    values, grads = evaluate(function_of(backend), narrow)
    expected, expected_grads = evaluate(function_of(backend), call)
    assert all(map(torch.equal, values, expected))
    for name, grad in grads.items():
        want = expected_grads[name]
        assert grad.dtype == (torch.float32 if name in ("x", "y") else dtype)
        assert torch.equal(grad, want.to(grad.dtype))


# ---- sizes ---------------------------------------------------------------------------------------

SIZES = {
    "cuda": (1, 2, 7, 31, 32, 33, 63, 65, 127, 128, 129, 159, 161, 255, 256, 257),
    "triton": (1, 31, 32, 33, 65),
}
DEPTHS = (1, 2, 3, 4, 5, 7, 8, 9, 15, 16, 17, 31, 32, 33, 47, 63, 64, 65)
SWEPT = {
    "log": (LSE(), LSE(axis=COL), SUM(pairs=(same(INDEX),))),
    "labels": (
        LSE(pairs=(differs("label"),)),
        SUM("one", pairs=(same("label"), differs(INDEX))),
        SUM(pairs=(same("label"), differs(INDEX))),
    ),
    "mixed": MIXED,
}


@pytest.mark.parametrize("symmetric", [False, True], ids=["y", "symmetric"])
@pytest.mark.parametrize("name", SWEPT)
def test_sizes(device, backend, name, symmetric):
    """Sizes around every boundary of tiles, warps and vectors, with varying depths: values and all
    gradients."""
    sizes = SIZES[backend]
    depths, dtypes = itertools.cycle(DEPTHS), itertools.cycle((torch.float32, torch.float16))
    if backend == "cuda":
        dtypes = itertools.cycle((torch.float32, torch.bfloat16, torch.float64, torch.float16))
    pairs = [(m, m) for m in sizes] if symmetric else [*itertools.product(sizes, sizes)]
    cases = []
    for m, n in pairs[:: 1 if symmetric else 3]:
        # at seed 52 the terms of the scale's gradient cancel to a hundredth of their usual sum
        seed = 100 + len(cases)
        size = {"m": m, "n": n, "d": next(depths), "dtype": next(dtypes), "seed": seed}
        cases.append((str(size), SWEPT[name], {**size, "vectors": VECTORS}))
    disagreements(backend, cases, device=device, symmetric=symmetric)


@pytest.mark.parametrize("scale", [1e5, 1e9, 1e15, 1e30])
def test_scores_without_fractions(device, backend, scale):
    """Where the numbers of fp32 lie far apart, the largest score of a row is all of it."""
    generator = torch.Generator().manual_seed(0)
    x, y = (torch.randn(n, 8, generator=generator).to(device) for n in (97, 130))
    channels = (LSE(), LSE(axis=COL), EXPECT(), EXPECT(axis=COL))

    def computed(name, dtype):
        leaves = [v.to(dtype).requires_grad_() for v in (x, y)]
        values = tree_leaves(ops.pair_stats(*leaves, channels, scale=scale, backend=name))
        grads = torch.autograd.grad(values[0].sum() + values[1].sum(), leaves)
        return [v.detach() for v in (*values, *grads)]

    expected = computed("reference", torch.float64)
    for dtype in (torch.float32, torch.float64)[: 2 if backend == "cuda" else 1]:
        for got, want in zip(computed(backend, dtype), expected, strict=True):
            assert (got - want).norm() <= 1e-5 * want.norm()
