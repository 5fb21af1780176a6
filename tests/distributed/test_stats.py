"""The sharded operator gives the same results as the operator on the whole batch in one process."""

import pytest
import torch
from spread import batched_stats, stats

from contrastloss.channel import (
    COL,
    EXPECT,
    INDEX,
    LSE,
    MAX,
    PSI,
    SUM,
    col_weight,
    differs,
    form,
    not_above,
    precedes,
    row_weight,
    same,
    within,
)
from contrastloss.ops import pair_stats

D = 5
ROWS, COLS = (
    {1: [7], 2: [4, 6], 3: [5, 0, 3], 4: [3, 5, 0, 2]},
    {
        1: [6],
        2: [7, 2],
        3: [0, 4, 4],
        4: [2, 0, 6, 3],
    },
)
OTHER = (differs("label"),)
CHANNELS = (
    LSE(),
    LSE(axis=COL, pairs=OTHER),
    LSE(2.0, pairs=(differs(INDEX),)),
    EXPECT(0.5, weight=(row_weight("weight"), col_weight("weight"))),
    EXPECT(axis=COL, pairs=(within("label", 1),)),
    MAX(),
    MAX(-1.0, axis=COL, pairs=OTHER),
    SUM(pairs=(same("label"),)),
    SUM("softplus", axis=COL, shift="shift"),
    SUM("relu2", shift="shift", pairs=(precedes(INDEX),)),
    LSE(weight=(form("form"),)),
    LSE(weight=(not_above("weight"),)),
    EXPECT(axis=COL, pairs=OTHER, weight=(not_above("weight"),)),
)


def problem(m, n, symmetric):
    """Operands whose scores have several orders of magnitude, and ties."""
    generator = torch.Generator().manual_seed(m + n)

    def normal(*shape):
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    def side(k):
        return {
            "label": torch.randint(0, 4, (k,), generator=generator),
            "weight": normal(k),
            "shift": normal(k),
            "form": normal(k, 3),
        }

    n = m if symmetric else n
    x, y = normal(m, D), normal(n, D)
    y[-1] = y[0]  # equal maxima on two ranks
    if symmetric:
        x[-1] = x[0]
    rows = side(m)
    return {
        "x": x,
        "y": None if symmetric else y,
        "scale": torch.tensor(1.5, dtype=torch.float64),
        "row_scale": 1 + normal(m).abs(),
        "col_scale": 1 + normal(n).abs(),
        "row_bias": normal(m),
        "col_bias": normal(n),
        "rows": rows,
        "cols": rows if symmetric else side(n),
        "cosine": symmetric,
    }


def whole(channels, problem, upstream):
    """Values and gradients of the whole batch, computed in this process."""
    x, y = problem["x"].clone().requires_grad_(), problem["y"]
    y = None if y is None else y.clone().requires_grad_()
    options = {
        k: problem[k].clone().requires_grad_()
        for k in ("scale", "row_scale", "col_scale", "row_bias", "col_bias")
    }
    rows, cols = (
        {k: v.clone().requires_grad_(k == "shift") for k, v in problem[s].items()}
        for s in ("rows", "cols")
    )
    results = pair_stats(x, y, channels, rows=rows, cols=cols, cosine=problem["cosine"], **options)
    flat = [v for r in results for v in ([r] if isinstance(r, torch.Tensor) else r)]
    loss = 0
    for value, weight in zip(flat, upstream, strict=True):
        if value.is_floating_point():
            loss = loss + (torch.where(value == -torch.inf, 0.0, value) * weight).sum()
    wanted = [x, *([] if y is None else [y]), *options.values(), rows["shift"], cols["shift"]]
    return flat, torch.autograd.grad(loss, wanted)


@pytest.mark.parametrize("symmetric", [False, True], ids=["x-y", "x-x"])
@pytest.mark.parametrize("strategy", ["gather", "ring"])
@pytest.mark.parametrize("world", [1, 2, 3, 4])
def test_every_channel_is_that_of_the_whole_batch(ranks, world, strategy, symmetric):
    rows = ROWS[world]
    cols = rows if symmetric else COLS[world]
    given = problem(sum(rows), sum(cols), symmetric)
    axes = [c.axis for c in CHANNELS for _ in c.returns]
    upstream = [torch.randn(sum(rows if a == "row" else cols), dtype=torch.float64) for a in axes]
    values, grads = whole(CHANNELS, given, upstream)
    found = ranks.run(stats, world, CHANNELS, given, rows, cols, strategy, upstream)
    for k, value in enumerate(values):
        together = torch.cat([part[0][k] for part in found])
        torch.testing.assert_close(together, value, rtol=1e-12, atol=1e-12)
    names = ["x", *([] if symmetric else ["y"]), "scale", "row_scale", "col_scale"]
    names += ["row_bias", "col_bias", "row shift", "col shift"]
    for k, (name, grad) in enumerate(zip(names, grads, strict=True)):
        parts = [part[1][k] for part in found]
        together = torch.stack(parts).sum(0) if name == "scale" else torch.cat(parts)
        torch.testing.assert_close(
            together, grad, rtol=1e-10, atol=1e-10, msg=lambda m, n=name: f"{n}: {m}"
        )


@pytest.mark.parametrize("world", [2, 3])
def test_batch_dimensions_are_gathered(ranks, world):
    """Every item's rows meet the columns of that item on all ranks."""
    row_sizes, col_sizes = ROWS[world], COLS[world]
    m, n = sum(row_sizes), sum(col_sizes)
    channels = (
        LSE(weight=(form("form", log=True),)),
        EXPECT(pairs=(differs("label"),), weight=(col_weight("weight"),)),
        MAX(),
        SUM("id", pairs=(differs(INDEX),)),
    )

    def normal(*shape):
        return torch.randn(*shape, dtype=torch.float64)

    def side(k):
        return {"label": torch.arange(k) % 2, "form": normal(2, k, 3).abs()}

    given = {"x": normal(2, m, D), "y": normal(2, n, D), "col_bias": normal(2, n)}
    given |= {"rows": side(m), "cols": {**side(n), "weight": normal(n)}}
    upstream = [normal(2, m) for channel in channels for _ in channel.returns]
    leaves = x, y, bias = [given[k].requires_grad_() for k in ("x", "y", "col_bias")]
    results = pair_stats(
        x, y, channels, rows=given["rows"], cols=given["cols"], col_bias=bias, cosine=True
    )
    values = [v for r in results for v in ([r] if isinstance(r, torch.Tensor) else r)]
    loss = sum((v * u).sum() for v, u in zip(values, upstream, strict=True) if v.requires_grad)
    grads = torch.autograd.grad(loss, leaves)
    plain = {k: v if isinstance(v, dict) else v.detach() for k, v in given.items()}
    found = ranks.run(batched_stats, world, channels, plain, row_sizes, col_sizes, upstream)
    for k, value in enumerate(values):
        together = torch.cat([part[0][k] for part in found], -1)
        torch.testing.assert_close(together, value, rtol=1e-12, atol=1e-12)
    for k, (grad, dim) in enumerate(zip(grads, (-2, -2, -1), strict=True)):
        together = torch.cat([part[1][k] for part in found], dim)
        torch.testing.assert_close(together, grad, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize(
    ("channel", "strategy", "what"),
    [(LSE(), "ring", "strategy='ring'"), (LSE(axis=COL), "auto", "column channels")],
)
def test_batch_dimensions_that_are_not_gathered(ranks, channel, strategy, what):
    given = {"x": torch.ones(1, 3, 2), "y": None, "scale": torch.ones(()), "cosine": False}
    given |= {"rows": {}, "cols": {}}
    for answer in ranks.answers(stats, 2, (channel,), given, [1, 0], [1, 0], strategy, None):
        assert f"with {what}, expected (M, D)" in str(answer)


@pytest.mark.parametrize("psi", PSI)
@pytest.mark.parametrize("strategy", ["gather", "ring"])
def test_every_psi(ranks, strategy, psi):
    channels = (SUM(psi), SUM(psi, axis=COL, sign=-1.0))
    given = problem(9, 8, False)
    upstream = [torch.randn(9, dtype=torch.float64), torch.randn(8, dtype=torch.float64)]
    given = {**given, "rows": {}, "cols": {}}
    found = ranks.run(stats, 2, channels, given, [3, 6], [5, 3], strategy, upstream)
    plain = {k: given[k] for k in ("scale", "row_scale", "col_scale", "row_bias", "col_bias")}
    x, y = given["x"].clone().requires_grad_(), given["y"].clone().requires_grad_()
    values = pair_stats(x, y, channels, **plain)
    for k, value in enumerate(values):
        together = torch.cat([part[0][k] for part in found])
        torch.testing.assert_close(together, value, rtol=1e-12, atol=1e-12)
    loss = sum((v * u).sum() for v, u in zip(values, upstream, strict=True))
    if not loss.requires_grad:
        return
    for k, grad in enumerate(torch.autograd.grad(loss, [x, y])):
        together = torch.cat([part[1][k] for part in found])
        torch.testing.assert_close(together, grad, rtol=1e-11, atol=1e-11)


@pytest.mark.parametrize("strategy", ["gather", "ring"])
def test_equal_maxima_have_the_smallest_position(ranks, strategy):
    """Of equal maxima the smallest position wins, in whatever order a rank processes the blocks."""
    channels = (MAX(), MAX(axis=COL), MAX(pairs=(differs(INDEX),)), MAX(-1.0, axis=COL))
    ones = torch.ones(9, 3, dtype=torch.float64)
    given = {
        "x": ones,
        "y": ones[:7],
        "scale": torch.ones((), dtype=torch.float64),
        "rows": {},
        "cols": {},
        "cosine": False,
    }
    found = ranks.run(stats, 3, channels, given, [2, 4, 3], [3, 2, 2], strategy, None)
    index = [torch.cat([part[0][2 * k + 1] for part in found]).tolist() for k in range(4)]
    assert index == [[0] * 9, [0] * 7, [1] + [0] * 8, [0] * 7]
