"""The operator itself: autograd, torch.library, compilers, autocast, and special values.

tests/backends/test_sweep.py tests that the numbers are right on every backend.
"""

from dataclasses import replace

import pytest
import torch
from layouts import column_major
from oracle import VECTORS, differences, evaluate, leaves, problem

from contrastloss import ops
from contrastloss.backends import PairCall
from contrastloss.channel import (
    COL,
    EXPECT,
    INDEX,
    LSE,
    MAX,
    SUM,
    differs,
    form,
    not_above,
    row_weight,
    same,
)
from contrastloss.ops import PairStats, pair_stats
from contrastloss.program import Program

PROGRAM = (
    LSE(pairs=(differs(INDEX),)),
    SUM("softplus", axis=COL, pairs=(differs("a"),), weight=(row_weight("u"),), shift="margin"),
    EXPECT(2.0, axis=COL, weight=(not_above("most"),)),
    MAX(pairs=(same("a"),)),
)
SYMMETRIC = pytest.mark.parametrize("symmetric", [False, True], ids=["y", "symmetric"])


def call_of(device, symmetric=False, **options):
    options = {"m": 6, "n": 8, "d": 3, "vectors": VECTORS, **options}
    return problem(PROGRAM, device=device, symmetric=symmetric, **options)


def flat(results):
    return [v for r in results for v in ([r] if isinstance(r, torch.Tensor) else r)]


def arguments(call, backend, grad=True):
    """The arguments of torch.ops.contrastloss.pair_stats; floating ones require gradients."""
    program = Program(call["channels"], tuple(call["rows"]), tuple(call["cols"]))
    for value in leaves(call).values():
        value.requires_grad_(grad)
    return (
        call["x"], call["y"], *(call.get(name) for name in VECTORS),
        list(call["rows"].values()), list(call["cols"].values()),
        program.text, call["cosine"], call["x"].dtype, backend,
    )  # fmt: skip


# ---- autograd ------------------------------------------------------------------------------------


@SYMMETRIC
@pytest.mark.parametrize("cosine", [False, True], ids=["dot", "cosine"])
def test_gradcheck(backend, device, symmetric, cosine):
    call = call_of(device, symmetric, cosine=cosine)
    names = list(leaves(call))

    def function(*values):
        values = dict(zip(names, values, strict=True))
        cols = {**call["cols"], "margin": values.pop("cols margin")}
        results = pair_stats(**{**call, **values, "cols": cols}, backend=backend)
        # finite differences of -inf, the value of an empty set, are not defined
        return [
            torch.where(v == -torch.inf, 0.0, v) for v in flat(results) if v.is_floating_point()
        ]

    inputs = [leaf.detach().clone().requires_grad_() for leaf in leaves(call).values()]
    torch.autograd.gradcheck(function, inputs)
    torch.autograd.gradgradcheck(function, inputs)


def test_a_third_derivative_is_an_error(backend, device):
    x = torch.randn(4, 3, device=device, dtype=torch.float64, requires_grad=True)
    (lse,) = pair_stats(x, None, (LSE(),), backend=backend)
    (first,) = torch.autograd.grad(lse.sum(), x, create_graph=True)
    (second,) = torch.autograd.grad(first.square().sum(), x, create_graph=True)
    with pytest.raises(RuntimeError, match="third derivatives are not implemented"):
        torch.autograd.grad(second.sum(), x)


@SYMMETRIC
def test_second_derivative_in_low_precision_and_batches(backend, device, symmetric):
    """Second derivatives, which the reference computes for every backend, agree with autograd on
    the dense formula in fp64."""
    x, y = (0.5 * torch.randn(2, 5, 3, device=device) for _ in range(2))

    def penalty(lse, x):
        (grad,) = torch.autograd.grad(lse.sin().sum(), x, create_graph=True)
        return torch.autograd.grad(grad.square().sum(), x)[0]

    x.requires_grad_()
    (lse,) = pair_stats(x, None if symmetric else y, (LSE(),), backend=backend)
    got = penalty(lse, x)
    wide = x.detach().double().requires_grad_()
    s = wide @ (wide if symmetric else y.double()).mT
    if symmetric:
        s = s.masked_fill(torch.eye(5, dtype=torch.bool, device=device), -torch.inf)
    want = penalty(s.logsumexp(-1), wide)
    torch.testing.assert_close(got.double(), want, rtol=1e-4, atol=1e-5)


def test_statistics_may_be_used_twice(backend, device):
    """The gradients of two uses are added, and a second backward pass gives the same result."""
    x, y = torch.randn(2, 7, 3, device=device, dtype=torch.float64)
    x.requires_grad_()
    (lse,) = pair_stats(x, y, (LSE(),), backend=backend)
    once = torch.autograd.grad(lse.sum(), x, retain_graph=True)[0]
    again = torch.autograd.grad(lse.sum(), x, retain_graph=True)[0]
    both = torch.autograd.grad(lse.sum() + (2 * lse).sum(), x)[0]
    assert torch.equal(once, again)
    torch.testing.assert_close(both, 3 * once)


def test_channels_that_nobody_differentiates(backend, device):
    """If only some statistics are used, the others add nothing to the gradients, and no NaN."""
    call = call_of(device)
    everything = flat(pair_stats(**call, backend=backend))
    for k in (0, 1, 2, 3, 4):
        copy = call_of(device)
        values = [leaf.requires_grad_() for leaf in leaves(copy).values()]
        value = flat(pair_stats(**copy, backend=backend))[k]
        assert torch.equal(value, everything[k])
        grads = torch.autograd.grad(value[value.isfinite()].sum(), values, allow_unused=True)
        assert all(g is None or g.isfinite().all() for g in grads)


def test_no_graph_without_grad(backend, device):
    call = call_of(device)
    assert not any(v.requires_grad for v in flat(pair_stats(**call, backend=backend)))
    call["x"].requires_grad_()
    results = flat(pair_stats(**call, backend=backend))
    assert [v.requires_grad for v in results] == [v.is_floating_point() for v in results]
    with torch.no_grad():
        assert not any(v.requires_grad for v in flat(pair_stats(**call, backend=backend)))


# ---- torch.library and compilers -----------------------------------------------------------------


@SYMMETRIC
@pytest.mark.parametrize("lead", [(), (2,)], ids=["matrix", "batch"])
@pytest.mark.parametrize("layout", [torch.clone, column_major])
def test_opcheck(backend, device, symmetric, lead, layout):
    call = call_of(device, symmetric, lead=lead, dtype=torch.float32)
    for name, value in call.items():
        if isinstance(value, torch.Tensor):
            call[name] = layout(value.detach()).requires_grad_(value.requires_grad)
    torch.library.opcheck(torch.ops.contrastloss.pair_stats, arguments(call, backend))


@pytest.mark.gpu_smoke
@SYMMETRIC
def test_the_function_is_the_operator(backend, device, symmetric):
    call = call_of(device, symmetric)
    args = arguments(call, backend)
    whole = PairCall.of(args)
    wanted = list(leaves(call).values())
    direct = PairStats.apply(whole, *whole.operands.flat())
    operator = torch.ops.contrastloss.pair_stats(*args)

    def gradients(values):
        total = sum(v.cos().sum() for v in values if v.is_floating_point() and v.isfinite().all())
        return torch.autograd.grad(total, wanted, allow_unused=True)

    assert all(map(torch.equal, direct, operator))
    for a, b in zip(gradients(direct), gradients(operator), strict=True):
        assert (a is None and b is None) or torch.equal(a, b)


class Loss(torch.nn.Module):
    """A loss with every kind of operand."""

    def __init__(self, backend):
        super().__init__()
        self.backend = backend

    def forward(self, x, y, scale, bias, labels):
        rows, cols = {"a": labels}, {"a": labels.flip(0)}
        lse, mean, best = pair_stats(
            x, y, CHANNELS, scale=scale, row_bias=bias, rows=rows, cols=cols, cosine=True,
            backend=self.backend,
        )  # fmt: skip
        return (lse - mean.value + best.value).mean()


CHANNELS = (LSE(), EXPECT(axis=COL, pairs=(differs("a"),)), MAX(pairs=(differs(INDEX),)))


def loss_inputs(n, device):
    x, y = torch.randn(2, n, 5, device=device)
    scale, bias = torch.tensor(3.0, device=device), torch.randn(n, device=device)
    inputs = [v.requires_grad_() for v in (x.clone(), y.clone(), scale, bias)]
    return [*inputs, torch.arange(n, device=device) % 3]


def assert_same_run(function, eager, inputs):
    got, want = function(*inputs), eager(*inputs)
    torch.testing.assert_close(got, want)
    torch.testing.assert_close(
        torch.autograd.grad(got, inputs[:4]), torch.autograd.grad(want, inputs[:4])
    )


def test_compile(backend, device):
    torch.compiler.reset()
    loss = Loss(backend)
    compiled = torch.compile(loss, fullgraph=True, dynamic=True, backend="aot_eager")
    for n in (6, 9, 4):
        assert_same_run(compiled, loss, loss_inputs(n, device))


def test_inductor(device):
    torch.compiler.reset()
    loss = Loss(None)
    compiled = torch.compile(loss, fullgraph=True)
    assert_same_run(compiled, loss, loss_inputs(7, device))


def test_export(device):
    inputs = [v.detach() for v in loss_inputs(8, device)]
    rows = torch.export.Dim("rows", min=2, max=4096)
    sizes = ({0: rows}, {0: rows}, None, {0: rows}, {0: rows})
    program = torch.export.export(Loss(None), tuple(inputs), dynamic_shapes=sizes)
    assert any("contrastloss.pair_stats" in str(node.target) for node in program.graph.nodes)
    other = [v.detach() for v in loss_inputs(13, device)]
    torch.testing.assert_close(program.module()(*other), Loss(None)(*other))


def test_fake_tensors(device):
    """The operator gives the right shapes and dtypes for tensors without data."""
    with torch._subclasses.FakeTensorMode():
        x = torch.empty(2, 5, 3, dtype=torch.bfloat16, device=device)
        y = torch.empty(2, 7, 3, dtype=torch.bfloat16, device=device)
        lse, best = pair_stats(x, y, (LSE(axis=COL), MAX()))
    assert lse.shape == (2, 7)
    assert lse.dtype == torch.float32
    assert best.value.shape == best.index.shape == (2, 5)
    assert best.index.dtype == torch.int64


TRANSFORMS = {
    "vmap": lambda f, x: torch.vmap(f)(x),
    "grad": lambda f, x: torch.func.grad(f)(x),
    "jvp": lambda f, x: torch.func.jvp(f, (x,), (x,)),
}


@pytest.mark.parametrize("transform", TRANSFORMS)
def test_function_transforms_are_an_error(transform, device):
    x = torch.randn(3, 4, 5, device=device)

    def function(x):
        return pair_stats(x, None, (LSE(),))[0].sum()

    with pytest.raises(RuntimeError, match=r"^pair_stats: torch.func transforms .* not supported"):
        TRANSFORMS[transform](function, x)


def test_forward_mode_is_an_error(device):
    x = torch.randn(4, 5, device=device)
    with torch.autograd.forward_ad.dual_level():
        dual = torch.autograd.forward_ad.make_dual(x, torch.ones_like(x))
        with pytest.raises(RuntimeError, match="forward"):
            pair_stats(dual, None, (LSE(),))


# ---- precision -----------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
def test_autocast_rounds_the_operands_of_products_only(backend, device, dtype):
    call = call_of(device, dtype=torch.float32, m=20, n=30, d=40)

    def function(**call):
        with torch.autocast(device.type, dtype=dtype):
            return pair_stats(**call, backend=backend)

    rounded = {**call, "x": call["x"].to(dtype).float(), "y": call["y"].to(dtype).float()}
    values, grads = evaluate(function, call)
    expected, expected_grads = evaluate(lambda **c: pair_stats(**c, backend=backend), rounded)
    for got, want in zip(values, expected, strict=True):
        assert got.dtype == want.dtype
        torch.testing.assert_close(got, want, rtol=1e-5, atol=1e-5)
    for name, want in expected_grads.items():
        got = grads[name]
        assert got.dtype == torch.float32
        if name in ("x", "y"):  # products with G, which is rounded too
            assert (got - want).norm() <= torch.finfo(dtype).eps / 2 * want.norm()
        else:
            torch.testing.assert_close(got, want, rtol=1e-4, atol=1e-4)


def test_compute_dtype(backend, device):
    x, y = torch.randn(2, 9, 33, device=device)
    (got,) = pair_stats(x, y, (LSE(),), compute_dtype=torch.bfloat16, backend=backend)
    rounded = x.bfloat16().double() @ y.bfloat16().double().T
    torch.testing.assert_close(got.double(), rounded.logsumexp(1), rtol=1e-6, atol=1e-5)


def test_scores_are_not_rounded_to_the_dtype_of_the_inputs(backend, device):
    """The scores of two bf16 columns, 257 and 256, would be equal if they were rounded to bf16."""
    x = torch.tensor([[1.0, 1.0]], dtype=torch.bfloat16, device=device)
    y = torch.tensor([[256.0, 1.0], [256.0, 0.0]], dtype=torch.bfloat16, device=device)
    best, lse = pair_stats(x, y, (MAX(), LSE()), backend=backend)
    assert best.value.item() == 257.0
    torch.testing.assert_close(lse.item(), 257.0 + torch.tensor(-1.0).exp().log1p().item())


def test_the_scale_is_applied_after_the_product(backend, device):
    """Sums of products 240 * 240 exceed fp16; with a scale of 1/1000 nothing may overflow."""
    x = torch.full((1, 4), 240.0, dtype=torch.float16, device=device)
    (lse,) = pair_stats(x, x, (LSE(),), scale=1e-3, backend=backend)
    torch.testing.assert_close(lse.item(), 4 * 240.0**2 / 1000)


@pytest.mark.parametrize("temperature", [1.0, 1e-2, 1e-4])
def test_extreme_scores(backend, device, temperature):
    x, y = torch.randn(2, 40, 8, device=device)
    call = {"x": x, "y": y, "channels": (LSE(), LSE(axis=COL)), "rows": {}, "cols": {}}
    call |= {"scale": torch.tensor(1 / temperature, device=device), "cosine": True}
    assert not differences(lambda **c: pair_stats(**c, backend=backend), call)


def test_bitwise_repeatable(backend, device):
    call = call_of(device, dtype=torch.float32, m=300, n=420, d=33)

    def function(**call):
        return pair_stats(**call, backend=backend)

    first, first_grads = evaluate(function, call)
    for _ in range(3):
        values, grads = evaluate(function, call)
        assert all(map(torch.equal, values, first))
        assert all(torch.equal(grads[name], first_grads[name]) for name in grads)


# ---- layouts, ties, NaN, infinities -------------------------------------------------------------


@pytest.mark.gpu_smoke
@SYMMETRIC
def test_views(backend, device, symmetric):
    """Strided, transposed and expanded operands give the same result as contiguous copies."""
    call = call_of(device, symmetric, m=8, n=8)

    def strided(v):
        if v.ndim == 0:
            return v
        return torch.stack([v, torch.full_like(v, 5)], -1).flatten(-2)[..., ::2]

    odd = {k: strided(v) if isinstance(v, torch.Tensor) else v for k, v in call.items()}
    odd["x"] = column_major(call["x"])
    for side in ("rows", "cols"):
        odd[side] = {k: strided(v) for k, v in call[side].items()}
    assert not any(v.is_contiguous() for v in (odd["x"], odd["row_bias"], *odd["rows"].values()))
    got, want = (flat(pair_stats(**c, backend=backend)) for c in (odd, call))
    torch.testing.assert_close(got, want)
    x = call["x"][:1].expand(8, -1).requires_grad_()
    assert not differences(lambda **c: pair_stats(**c, backend=backend), {**call, "x": x})


def test_operands_broadcast_over_batches(backend, device):
    """Vectors, ids and forms with fewer dimensions apply to all batch items; their gradients are
    summed."""
    program = (LSE(pairs=(differs("a"),)), LSE(axis=COL, weight=(form("t"),)))
    call = problem(program, m=5, n=6, d=3, lead=(2, 3), device=device)
    g = torch.Generator().manual_seed(1)
    like = call["x"].new_empty(0)
    call["row_bias"] = torch.randn(5, generator=g).to(like)
    call["col_scale"] = 1 + torch.rand(3, 1, generator=g).to(like)
    call["col_bias"] = torch.randn(2, 1, 6, generator=g).to(like)
    call["rows"] = {k: v[0, 0] for k, v in call["rows"].items()}
    # the oracle broadcasts by itself where a trailing dimension is not 1
    wide = {**call, "col_scale": call["col_scale"].expand(3, 6)}
    values, grads = evaluate(lambda **c: pair_stats(**c, backend=backend), call)
    wide_values, wide_grads = evaluate(lambda **c: pair_stats(**c, backend=backend), wide)
    assert all(map(torch.equal, values, wide_values))
    total = wide_grads.pop("col_scale").sum(-1, keepdim=True)
    torch.testing.assert_close(grads.pop("col_scale"), total)
    torch.testing.assert_close(grads, wide_grads)
    assert not differences(lambda **c: pair_stats(**c, backend=backend), wide)


@pytest.mark.parametrize("sign", [1.0, -1.0])
@pytest.mark.parametrize("n", [5, 700])
def test_ties_go_to_the_smallest_index(backend, device, sign, n):
    """Products of integers are exact, so ties do not depend on the order of summation."""
    x = torch.tensor([[1.0, 0.0], [0.0, 1.0]], device=device)
    y = torch.ones(n, 2, device=device)
    y[0, 0] = 1 - sign  # row 0: the first column is not the best
    rows, cols = pair_stats(x, y, (MAX(sign), MAX(sign, axis=COL)), backend=backend)
    assert rows.index.tolist() == [1, 0]
    assert rows.value.tolist() == [sign, sign]
    assert cols.index.tolist() == [1] + [0] * (n - 1)
    many = x[:1].expand(n, 2)
    (cols,) = pair_stats(many, y, (MAX(sign, axis=COL),), backend=backend)
    assert not cols.index.any()


def test_ties_give_the_gradient_to_one(backend, device):
    x, y = torch.ones(1, 2, device=device), torch.ones(4, 2, device=device, requires_grad=True)
    (best,) = pair_stats(x, y, (MAX(),), backend=backend)
    assert torch.autograd.grad(best.value.sum(), y)[0].tolist() == [[1, 1], [0, 0], [0, 0], [0, 0]]


KINDS = (
    *(LSE(), LSE(0.5), LSE(-1.0), LSE(3.0, relax=0.25), LSE(-3.0, relax=0.25)),
    *(EXPECT(), EXPECT(-2.0), MAX(), MAX(-1.0)),
    *(SUM(psi) for psi in ("id", "square", "relu", "relu2", "softplus", "focal")),
)

every_kind = pytest.mark.parametrize(
    "channel", KINDS, ids=lambda c: " ".join(str(v) for v in (c.kind, *map(vars(c).get, c.fields)))
)


@every_kind
@pytest.mark.parametrize("side", ["x", "y"])
@pytest.mark.parametrize("n", [1, 3, 400])
def test_nan_stays_nan(backend, device, channel, side, n):
    """A NaN in a row of x reaches the statistics of this row and of every column, but of no other
    row; a NaN in y likewise. This includes NaN rows that fill whole tiles, or the whole input."""
    both = (channel, replace(channel, axis=COL))
    for bad in ([0], [n - 1], range(n // 4, n - n // 4), range(n)):
        x, y = torch.randn(2, n, 4, device=device)
        spoiled = torch.zeros(n, dtype=torch.bool, device=device)
        spoiled[list(bad)] = True
        (x if side == "x" else y)[spoiled, 2] = torch.nan
        rows, cols = (flat([r])[0] for r in pair_stats(x, y, both, backend=backend))
        own, others = (rows, cols) if side == "x" else (cols, rows)
        assert torch.equal(own.isnan(), spoiled)
        assert others.isnan().all()


@every_kind
@pytest.mark.parametrize("bad", [0, 399])
def test_the_gradient_of_nan_is_that_rows_own(backend, device, channel, bad):
    x, y = torch.randn(2, 400, 4, device=device)
    x[bad, 2] = torch.nan
    x.requires_grad_()
    result = flat(pair_stats(x, y, (channel,), backend=backend))[0]
    (dx,) = torch.autograd.grad(result.sum(), x)
    if channel.kind != "MAX" and getattr(channel, "psi", "") not in ("id", "relu"):
        assert dx[bad].isnan().all()  # the slopes of the other kinds do not depend on the score
    assert dx[torch.arange(400, device=device) != bad].isfinite().all()


def test_nan_is_counted(backend, device):
    """A channel that only counts pairs is not affected by NaN scores."""
    x, y = torch.ones(3, 2, device=device), torch.ones(4, 2, device=device)
    y[1:3] = torch.nan
    channels = (SUM("one"), SUM("step"), LSE(0.0))
    one, step, log = pair_stats(x, y, channels, backend=backend)
    assert one.tolist() == [4, 4, 4]
    assert step.isnan().all()
    torch.testing.assert_close(log.exp(), one)


def test_a_pair_that_is_not_tested_cannot_spoil_the_rest(backend, device):
    """A NaN score of a pair that fails the tests does not reach the result."""
    x, y = torch.randn(2, 5, 4, device=device)
    x[1] = torch.nan
    ids = torch.tensor([0, 9, 0, 0, 0], device=device)
    (lse, total) = pair_stats(
        x, y, (LSE(axis=COL, pairs=(same("a"),)), SUM("id", axis=COL, pairs=(same("a"),))),
        rows={"a": ids}, cols={"a": torch.zeros(5, dtype=torch.int64, device=device)},
        backend=backend,
    )  # fmt: skip
    s = x[[0, 2, 3, 4]] @ y.T
    torch.testing.assert_close(lse, s.logsumexp(0))
    torch.testing.assert_close(total, s.sum(0), atol=1e-5, rtol=1e-5)


def test_a_bias_of_minus_infinity_takes_a_column_out(backend, device):
    x, y = torch.randn(2, 6, 4, device=device, dtype=torch.float64)
    bias = torch.zeros(6, device=device, dtype=torch.float64)
    bias[2] = -torch.inf
    x.requires_grad_(), y.requires_grad_(), bias.requires_grad_()
    (lse, cols) = pair_stats(x, y, (LSE(), LSE(axis=COL)), col_bias=bias, backend=backend)
    keep = [0, 1, 3, 4, 5]
    torch.testing.assert_close(lse, (x @ y[keep].T).logsumexp(1))
    assert cols[2] == -torch.inf
    got = torch.autograd.grad(lse.sum() + cols[keep].sum(), (x, y, bias))
    s = x @ y[keep].T
    want = torch.autograd.grad(s.logsumexp(1).sum() + s.logsumexp(0).sum(), (x, y))
    torch.testing.assert_close(got[:2], want)
    assert got[2][2] == 0.0
    assert got[2].isfinite().all()


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int8, torch.int16, torch.int32, torch.bool])
def test_ids_of_any_integer_type(backend, device, dtype):
    x, y = torch.randn(2, 5, 4, device=device)
    a, b = (
        torch.tensor([0, 1, 1, 0, 1], device=device),
        torch.tensor([1, 1, 0, 0, 1], device=device),
    )
    channels = (LSE(pairs=(same("a"),)),)
    (want,) = pair_stats(x, y, channels, rows={"a": a}, cols={"a": b}, backend=backend)
    rows, cols = {"a": a.to(dtype)}, {"a": b.to(dtype)}
    assert torch.equal(pair_stats(x, y, channels, rows=rows, cols=cols, backend=backend)[0], want)


def test_large_ids_are_compared_as_integers(backend, device):
    """Ids that would be equal as floats are still distinguished."""
    x, y = torch.ones(2, 1, device=device), torch.ones(3, 1, device=device)
    ids = torch.tensor([2**62, 2**62 + 1], device=device)
    others = torch.tensor([2**62, 2**62, 2**62 + 1], device=device)
    (count,) = pair_stats(
        x, y, (SUM("one", pairs=(same("a"),)),), rows={"a": ids}, cols={"a": others},
        backend=backend,
    )  # fmt: skip
    assert count.tolist() == [2, 1]


def test_a_zero_vector_has_cosine_zero_and_no_gradient(backend, device):
    x = torch.tensor([[0.0, 0.0], [3.0, 4.0]], device=device, requires_grad=True)
    y = torch.tensor([[1.0, 0.0], [0.0, 0.0]], device=device, requires_grad=True)
    (total,) = pair_stats(x, y, (SUM("id"),), cosine=True, backend=backend)
    torch.testing.assert_close(total.tolist(), [0.0, 0.6])
    dx, dy = torch.autograd.grad(total.sum(), (x, y))
    assert not dx[0].any()
    assert not dy[1].any()
    assert dx.isfinite().all()
    assert dy.isfinite().all()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_inverse_norm(device, dtype):
    """Inverse norms are right for lengths whose squares overflow or underflow, and for lengths
    below eps; so are the gradients of unit vectors."""
    few = {torch.float32: (1e30, 1e-30, 6e37), torch.float64: (1e200, 1e-200, 1e307)}[dtype]
    norms = [5.0, 0.0, 5e-10, 5e-13, *(5 * v for v in few)]
    x = torch.tensor([[0.6 * v, -0.8 * v] for v in norms], dtype=dtype, device=device)
    want = [0.0 if v == 0 else 1 / max(v, 1e-12) for v in norms]
    got = ops.inverse_norm(x)
    torch.testing.assert_close(got.tolist(), want, rtol=1e-6, atol=0)
    x.requires_grad_()
    (dx,) = torch.autograd.grad((ops.unit(x) * ops.unit(x).new_tensor([1.0, 0.0])).sum(), x)
    for norm, r, grad in zip(norms, want, dx.tolist(), strict=True):
        slope = [0.64, 0.48] if norm > 1e-12 else [1.0, 0.0]  # (1 - 0.36, 0.6 * 0.8); below eps: 1
        torch.testing.assert_close(grad, [v * r for v in slope], rtol=1e-5, atol=0)
    odd = torch.tensor([[1.0, torch.nan], [torch.inf, 1.0], [0.0, -torch.inf]], device=device)
    assert ops.unit(odd.to(dtype)).isnan().any(1).all()
    assert ops.inverse_norm(x[:0]).shape == (0,)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_cosines_of_any_length(backend, device, dtype):
    """Rows times powers of two give the same statistics, and gradients divided by these powers."""
    big = 120 if dtype == torch.float32 else 1000
    x, y = (torch.randn(7, 5, dtype=dtype, device=device) for _ in "xy")
    powers = torch.tensor([-30, 0, 10, big // 2 + 4, big - 5, 1, big], device=device)
    factor = torch.ones(7, dtype=dtype, device=device).ldexp(powers)[:, None]

    def at(scale):
        leaves = [(v * scale).requires_grad_() for v in (x, y)]
        program = (LSE(pairs=(differs(INDEX),)), SUM("square"), MAX(axis=COL))
        found = flat(pair_stats(*leaves, program, cosine=True, backend=backend))
        total = sum(value.sum() for value in found if value.is_floating_point())
        return found, [g * scale for g in torch.autograd.grad(total, leaves)]

    torch.testing.assert_close(at(factor), at(torch.ones_like(factor)))
