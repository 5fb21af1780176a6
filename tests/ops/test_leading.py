"""With leading dimensions, every operator gives the values and gradients of each item alone."""

import itertools

import pytest
import torch

from contrastloss import ops, sorting
from contrastloss.channel import COL, EXPECT, INDEX, LSE, MAX, SUM, differs

LEADS = [(), (1,), (0,), (2, 3)]
CHANNELS = (LSE(), LSE(axis=COL), EXPECT(2.0), MAX(), SUM("softplus", axis=COL),
            SUM("id", pairs=(differs(INDEX),)))  # fmt: skip
N, D = 5, 3


def flat(results):
    found = results if isinstance(results, (tuple, list)) else [results]
    return [v for r in found for v in (r if isinstance(r, tuple) else [r])]


def stats(x, y, a, b, beta, gamma, backend):
    vectors = {"row_scale": a, "col_scale": b, "row_bias": beta, "col_bias": gamma}
    return ops.pair_stats(x, y, CHANNELS, **vectors, cosine=True, backend=backend)


def topk(x, y, a, b, beta, gamma, backend):
    vectors = {"row_scale": a, "col_scale": b, "row_bias": beta, "col_bias": gamma}
    return ops.pair_topk(x, y, 3, **vectors, backend=backend)


def gather(x, y, a, b, beta, gamma, backend):
    index = (torch.arange(16, device=x.device) % N).view(4, 4).expand(*x.shape[:-1], 4)
    vectors = {"row_scale": a, "col_scale": b, "row_bias": beta, "col_bias": gamma}
    return ops.gather_scores(x, y, index, **vectors, backend=backend)


def symmetric(x, beta, backend):
    return ops.pair_stats(x, None, CHANNELS, row_bias=beta, backend=backend)


PAIRS = ((4, D), (N, D), (4,), (N,), (4,), (N,))
#: operators, and the shapes of the operands of one item
CASES = {
    "pair_stats": (stats, PAIRS),
    "pair_stats of x alone": (symmetric, ((N, D), (N,))),
    "pair_topk": (topk, PAIRS),
    "gather_scores": (gather, PAIRS),
    "sort": (lambda x, b, backend: sorting.sort(x, steepness=b, backend=backend), ((N,), ())),
    "rank": (lambda x, b, backend: sorting.rank(x, steepness=b, backend=backend), ((N,), ())),
    "rank_mass": (lambda x, t, backend: sorting.rank_mass(x, t, backend=backend), ((N,), (N,))),
    "soft_rank": (lambda x, backend: sorting.soft_rank(x), ((N,),)),
    "soft_sort": (lambda x, backend: sorting.soft_sort(x, regularization="kl"), ((N,),)),
    **{
        f"sort_network, {masses} masses": (
            lambda x, t, b, backend: ops.sort_network(x, t, steepness=b, backend=backend),
            ((N,), (masses, N), ()),
        )
        for masses in (0, 2)
    },
}


def run(function, operands):
    """Values, and the gradients of a linear combination of them."""
    leaves = [v.detach().clone().requires_grad_() for v in operands]
    values = flat(function(*leaves))
    total = sum(
        (v * torch.linspace(1, 2, v.numel(), dtype=v.dtype, device=v.device).view(v.shape)).sum()
        for v in values
        if v.is_floating_point()
    )
    return [*values, *torch.autograd.grad(total, leaves, allow_unused=True, materialize_grads=True)]


@pytest.mark.parametrize("lead", LEADS, ids=str)
@pytest.mark.parametrize("name", CASES)
def test_items_one_by_one(name, lead, backend, device):
    function, shapes = CASES[name]
    g = torch.Generator().manual_seed(0)
    operands = [
        (torch.rand((*lead, *s), generator=g, dtype=torch.float64) + 0.5).to(device) for s in shapes
    ]
    items = list(itertools.product(*map(range, lead)))

    def each(*operands):
        found = [
            flat(function(*(v[i][None] for v in operands), backend="reference")) for i in items
        ]
        return [
            torch.cat(parts).view(*lead, *parts[0].shape[1:]) for parts in zip(*found, strict=True)
        ]

    got = run(lambda *operands: function(*operands, backend=backend), operands)
    if items:
        for a, b in zip(got, run(each, operands), strict=True):
            torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-9)
    else:
        ones = [v.new_ones(1, *v.shape[1:]) for v in operands]
        one = run(lambda *operands: function(*operands, backend=backend), ones)
        for a, b in zip(got, one, strict=True):
            assert (a.shape, a.dtype) == ((0, *b.shape[1:]), b.dtype)


def test_masses_shared_by_all_rows_have_the_sum_of_their_gradients(backend, device):
    """Rows (..., n) with one shared t (T, n): its gradient is the sum over all rows."""
    for lead in LEADS:
        x = torch.linspace(0, 1, N * max(1, torch.Size(lead).numel()), dtype=torch.float64)
        x = x[: N * torch.Size(lead).numel()].view(*lead, N).to(device)
        t = torch.ones(2, N, dtype=torch.float64, device=device, requires_grad=True)
        _, mass = ops.sort_network(x, t, backend=backend)
        assert mass.shape == (*lead, 2, N)
        (grad,) = torch.autograd.grad(mass.sum(), t)
        # P is doubly stochastic: every rank's masses sum to 1, once per row
        want = torch.full_like(t, torch.Size(lead).numel())
        torch.testing.assert_close(grad, want)


def test_steepness_of_another_shape():
    with pytest.raises(ValueError, match=r"^steepness: got shape \(2,\), expected .*\(3,\)"):
        ops.sort_network(torch.ones(3, 4), steepness=torch.ones(2))


@pytest.mark.parametrize("shape", [(1 << 62, 0, 1), (1 << 31, 0, 2)], ids=str)
def test_more_items_than_can_be_counted(shape, backend):
    x = torch.empty(shape)
    for call in (
        lambda: ops.pair_stats(x, x, (LSE(),), backend=backend),
        lambda: ops.pair_topk(x, None, 1, backend=backend),
        lambda: ops.gather_scores(x, x, x.new_empty((*shape[:-1], 1), dtype=torch.int64)),
    ):
        with pytest.raises(ValueError, match=rf"^x: got shape \({shape[0]}, 0, .*at most 2147483"):
            call()
