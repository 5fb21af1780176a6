"""Operands with a floating dtype other than x's give the same result as the same numbers in the
statistics' dtype, and get gradients in their own dtype."""

import pytest
import torch

from contrastloss import ops
from contrastloss.channel import (
    COL,
    EXPECT,
    LSE,
    SUM,
    at_most,
    col_weight,
    distance,
    form,
    not_above,
    row_weight,
)  # fmt: skip
from contrastloss.losses import LOSSES, ScoreLoss
from contrastloss.ops import sort_network
from contrastloss.testing import example

DTYPES = (torch.float16, torch.bfloat16, torch.float32, torch.float64)
M, N, D = 4, 6, 3
CHANNELS = (
    LSE(2.0, weight=(row_weight("u"), col_weight("v"), form("t"))),
    SUM("softplus", shift="c"),
    SUM("square", axis=COL, shift="e"),
    EXPECT(axis=COL),
    SUM("id", weight=(form("p", log=True, eps=0.1), distance("age", -0.5))),
    LSE(weight=(at_most("q"),)),
    LSE(weight=(not_above("most"),)),
)
VECTORS = {"scale": (), "row_scale": (M,), "col_scale": (N,), "row_bias": (M,), "col_bias": (N,)}
ROWS = {"u": (M,), "t": (M, 2), "c": (M,), "p": (M, 2), "age": (M,), "q": (M, 2), "most": (M,)}
COLS = {"v": (N,), "t": (N, 2), "e": (N,), "p": (N, 2), "age": (N,), "q": (N, 2)}
OPERANDS = {**VECTORS, **{("row", k): s for k, s in ROWS.items()},
            **{("col", k): s for k, s in COLS.items()}}  # fmt: skip
DIFFERENTIATED = {"x", "y", *VECTORS, ("row", "c"), ("col", "e")}


def stat(dtype):
    return torch.float64 if dtype == torch.float64 else torch.float32


def drawn(shape, dtype, seed=0):
    g = torch.Generator().manual_seed(seed)
    return (0.5 + torch.rand(shape, generator=g, dtype=torch.float64)).to(dtype)


def run(function, operands, differentiated):
    """Values, and gradients by name."""
    leaves = {
        k: v.detach().clone().requires_grad_(k in differentiated) for k, v in operands.items()
    }
    values = [
        v for r in function(leaves) for v in (r if isinstance(r, tuple) else [r])
        if v.is_floating_point()
    ]  # fmt: skip
    total = sum((torch.where(v.isfinite(), v, 0.0) / 16).sin().sum() for v in values)
    wanted = [k for k in leaves if leaves[k].requires_grad]
    grads = torch.autograd.grad(
        total, [leaves[k] for k in wanted], allow_unused=True, materialize_grads=True
    ) if total.requires_grad else [torch.zeros_like(leaves[k]) for k in wanted]  # fmt: skip
    return values, dict(zip(wanted, grads, strict=True))


def check(function, operands, name, dtype, differentiated, rtol=2e-6):
    """Compare the operand ``name`` in ``dtype`` with the same numbers in the statistics' dtype."""
    wide = operands[name].dtype
    narrow = {**operands, name: operands[name].to(dtype)}
    values, grads = run(function, narrow, differentiated)
    wanted, wanted_grads = run(function, {**operands, name: narrow[name].to(wide)}, differentiated)
    for a, b in zip(values, wanted, strict=True):
        torch.testing.assert_close(a, b, rtol=rtol, atol=rtol)
    for k, grad in grads.items():
        assert grad.dtype == narrow[k].dtype, k
        bound = rtol + 2 * torch.finfo(grad.dtype).eps
        torch.testing.assert_close(grad.double(), wanted_grads[k].double(), rtol=bound, atol=bound)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("own", DTYPES, ids=str)
def test_pair_operators(own, dtype, backend, device):
    x, y = (drawn((k, D), own, k).to(device) for k in (M, N))
    both = {"x": x, "y": y}
    operands = {k: drawn(s, stat(own), i).to(device) for i, (k, s) in enumerate(OPERANDS.items())}
    operands |= both
    operands["row", "q"] = -operands["row", "q"]
    operands["row", "most"] *= 4.0  # about the size of the scores
    index = torch.arange(M * 2, device=device).view(M, 2) % N

    def stats(o):
        sides = {f"{s}s": {k: o[s, k] for k in keys} for s, keys in (("row", ROWS), ("col", COLS))}
        return ops.pair_stats(
            o["x"], o["y"], CHANNELS, **{k: o[k] for k in VECTORS}, **sides, backend=backend
        )

    def selected(o):
        vectors = {k: o[k] for k in VECTORS}
        return [
            ops.gather_scores(o["x"], o["y"], index, **vectors, backend=backend),
            ops.pair_topk(o["x"], o["y"], 3, **vectors, backend=backend).values,
        ]

    for name in OPERANDS:
        check(stats, operands, name, dtype, DIFFERENTIATED)
        if name in VECTORS:
            check(
                selected, {k: operands[k] for k in (*both, *VECTORS)}, name, dtype, DIFFERENTIATED
            )
    scores = ops.gather_scores(x, y, index, backend=backend)
    for side in ("lower", "upper"):
        bound = {side: scores[:, 0].detach()}
        check(lambda o: [ops.pair_topk(x, y, 3, **o, backend=backend).values],
              {side: bound[side].to(torch.float16).to(stat(own))}, side, dtype, ())  # fmt: skip


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("own", DTYPES, ids=str)
def test_sort_network(own, dtype, backend, device):
    operands = {
        "x": drawn((3, 5), own),
        "t": drawn((3, 2, 5), stat(own), 1),
        "steepness": drawn((3,), stat(own), 2),
    }
    operands = {k: v.to(device) for k, v in operands.items()}
    for name in ("t", "steepness"):
        check(lambda o: sort_network(**o, backend=backend), operands, name, dtype, {*operands})


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("option", ["temperature", "row temperature", "logit_scale", "logit_bias"])
@pytest.mark.parametrize("name", ["clip", "nt_xent", "supcon", "hard_negative", "ada_meow"])
def test_temperatures_and_biases_of_losses(name, option, dtype, device):
    """1 / tau is computed in fp32. In the narrow dtype of tau it would have a rounding error."""
    cls = LOSSES[name]
    if name == "ada_meow" and option != "temperature":
        pytest.skip("ada_meow has only a temperature")
    assert issubclass(cls, ScoreLoss)
    made = example(cls, 7, 5, torch.Generator().manual_seed(0))
    inputs = [v.to(device, torch.float32 if v.is_floating_point() else v.dtype) for v in made]
    operands = {option: drawn((7,) if "row" in option else (), torch.float32).to(device)}

    def loss(o):
        (value,) = o.values()
        if "temperature" in option:
            return [_with(cls, temperature=value)(*inputs)]
        return [cls()(*inputs, **{option: value})]

    check(loss, operands, option, dtype, {*operands}, 1e-5)


def _with(cls, **tensors):
    """A loss whose options are tensors with a graph."""
    loss = cls(**{k: v.detach() for k, v in tensors.items()})
    for k, v in tensors.items():
        del loss._buffers[k]
        object.__setattr__(loss, k, v)
    return loss


def test_a_compiled_call_with_an_fp64_shift_and_a_single_row_of_masses(device):
    """The default compiler gives the eager values and gradients for a shift in fp64 and for masses
    without a row dimension."""
    x, shift = drawn((M, D), torch.float32).to(device), drawn((M,), torch.float64, 1).to(device)
    scores, t = drawn((5,), torch.float32, 2).to(device), drawn((2, 5), torch.float32, 3).to(device)

    def call(o):
        rows = {"c": o["c"]}
        (found,) = ops.pair_stats(o["x"], o["x"], (SUM(psi="softplus", shift="c"),), rows=rows)
        return [found, *sort_network(o["scores"], o["t"])]

    operands = {"x": x, "c": shift, "scores": scores, "t": t}
    torch.compiler.reset()
    got, want = (run(f, operands, {*operands}) for f in (torch.compile(call, fullgraph=True), call))
    torch.testing.assert_close(got[0], want[0])
    assert got[1]["c"].dtype == torch.float64
    for k, grad in want[1].items():
        torch.testing.assert_close(got[1][k], grad)
