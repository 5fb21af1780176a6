"""Differentiable sorting agrees with diffsort, with an enumeration, and with values by hand."""

from math import atan, exp, inf, log, nan, pi

import numpy as np
import pytest
import torch
from properties import close, gradients, tensor

from contrastloss import sorting
from contrastloss.sorting import _isotonic, rank, rank_mass, soft_rank, soft_sort, sort

NETWORKS = ("odd_even", "bitonic")
DISTRIBUTIONS = ("cauchy", "logistic", "logistic_phi", "gaussian", "reciprocal", "optimal")
FUNCTIONS = {
    "sort": sort,
    "rank": rank,
    "rank_mass": lambda x, **options: rank_mass(x, torch.ones(x.shape), **options),
}
every_function = pytest.mark.parametrize("function", FUNCTIONS.values(), ids=FUNCTIONS)
every_network = pytest.mark.parametrize("network", NETWORKS)
every_distribution = pytest.mark.parametrize("distribution", DISTRIBUTIONS)


def draw(*size, device, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*size, generator=generator, dtype=torch.float64).to(device)


# ---- values --------------------------------------------------------------------------------------


@pytest.mark.gpu_smoke
@every_distribution
@pytest.mark.parametrize(
    ("network", "n"),
    [(network, n) for network in NETWORKS for n in (2, 3, 8, 11, 33, 64)
     if (network, n) != ("bitonic", 11)],  # for some n diffsort has another network: see below
)  # fmt: skip
def test_it_is_diffsort(n, network, distribution, device):
    """Values, P and gradients agree with diffsort. Its 'gaussian' rounds 1 / steepness to fp32,
    which is exact for powers of 2; its 'optimal' adds 1e-10 to |v|."""
    import diffsort

    x = draw(2, n, device=device, seed=n).requires_grad_()
    steepness, tolerance = 4.0, 1e-8 if distribution == "optimal" else 1e-12
    theirs = diffsort.DiffSortNet(
        network, n, steepness=steepness, distribution=distribution, device=str(device)
    )(x)
    ours = sort(x, network=network, distribution=distribution, steepness=steepness)
    for got, want in zip(ours, theirs, strict=True):
        torch.testing.assert_close(got, want, rtol=tolerance, atol=tolerance)
    weights = [draw(*value.shape, device=device, seed=1) for value in theirs]
    got, want = (
        gradients(sum((v * w).sum() for v, w in zip(pair, weights, strict=True)), x)[0]
        for pair in (ours, theirs)
    )
    torch.testing.assert_close(got, want, rtol=10 * tolerance, atol=10 * tolerance)


def test_two_values_by_hand(device):
    w = 0.5 + atan(10 * (1 - 3)) / pi
    values, P = sort(tensor([3, 1], device=device))
    close(values[0], [3 * w + 1 - w, 3 * (1 - w) + w])
    close(P[0], [[w, 1 - w], [1 - w, w]])
    close(rank(tensor([3, 1], device=device))[0], [w + 2 * (1 - w), 1 - w + 2 * w])
    close(rank_mass(tensor([3, 1], device=device), tensor(0, 1, device=device))[0], [1 - w, w])


@every_network
def test_one_value_has_rank_one(network, device):
    x = tensor([7], [-2], device=device)
    values, P = sort(x, network=network)
    close(values, x)
    close(P, [[[1]], [[1]]])
    close(rank(x, network=network), [[1], [1]])


@every_distribution
@every_network
def test_values_and_masses_are_products_with_p(network, distribution, device):
    x, t = draw(3, 4, 9, device=device), draw(3, 4, 9, device=device, seed=1)
    options = {"network": network, "distribution": distribution, "steepness": 2.0}
    values, P = sort(x, **options)
    close(P.sum(-1), torch.ones_like(x))
    close(P.sum(-2), torch.ones_like(x))
    close(values, (x.unsqueeze(-2) @ P).squeeze(-2))
    close(rank_mass(x, t, **options), (P * t.unsqueeze(-2)).sum(-1))
    close(rank_mass(x, t[0, 0], **options), P @ t[0, 0])
    close(rank(x, **options), P @ torch.arange(1.0, 10, dtype=x.dtype, device=device))


@every_network
@pytest.mark.parametrize("n", [2, 5, 16, 22])
def test_a_steep_network_sorts(n, network, device):
    """A very steep network sorts; the bitonic one also at n = 22, where that of diffsort fails."""
    x = draw(5, n, device=device)
    values, P = sort(x, network=network, distribution="optimal", steepness=1e9)
    want, order = x.sort(-1)
    torch.testing.assert_close(values, want, rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(P.argmax(-2), order)
    ranks = rank(x, network=network, distribution="optimal", steepness=1e9)
    assert (ranks.round().long() == order.argsort(-1) + 1).all()


@every_network
def test_descending_reverses_the_ranks(network, device):
    x, t = draw(4, 7, device=device), draw(7, device=device)
    up, down = sort(x, network=network), sort(x, network=network, descending=True)
    close(down.values, up.values.flip(-1))
    close(down.P, up.P.flip(-1))
    close(rank(x, network=network, descending=True), 8 - rank(x, network=network))
    close(rank_mass(x, t, network=network, descending=True), down.P @ t)


@pytest.mark.parametrize("dim", [0, 1, -2])
def test_along_another_dimension(dim, device):
    x, t = draw(4, 5, 6, device=device), draw(4, 5, 6, device=device, seed=1)
    values, P = sort(x, dim=dim)
    rows, last = x.movedim(dim, -1), t.movedim(dim, -1)
    want = sort(rows)
    close(values, want.values.movedim(-1, dim))
    close(P, want.P)
    close(rank(x, dim=dim), rank(rows).movedim(-1, dim))
    close(rank_mass(x, t, dim=dim), rank_mass(rows, last).movedim(-1, dim))


def test_a_steepness_per_row(device):
    x = draw(3, 6, device=device)
    steepness = tensor(1.0, 5.0, 20.0, device=device, grad=True)
    found = rank(x, steepness=steepness)
    for k in range(3):
        close(found[k], rank(x[k], steepness=steepness[k].item()))
    assert gradients(found[..., 0].sum(), steepness)[0].all()


@every_function
def test_gradcheck(function, device):
    x = draw(2, 5, device=device).requires_grad_()
    t = draw(2, 5, device=device, seed=1).requires_grad_()
    assert torch.autograd.gradcheck(lambda x: function(x, steepness=1.0), x)
    assert torch.autograd.gradcheck(lambda x, t: rank_mass(x, t, dim=0), (x, t))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32])
def test_results_are_fp32(dtype, device):
    """Results are fp32 for every input dtype: bf16 could not represent ranks up to 300."""
    x = draw(3, 300, device=device).to(dtype).requires_grad_()
    values, P = sort(x, network="bitonic")
    ranks = rank(x, network="bitonic")
    assert values.dtype == P.dtype == ranks.dtype == torch.float32
    want = rank(x.double(), network="bitonic")
    torch.testing.assert_close(ranks.double(), want, rtol=1e-5, atol=1e-5)
    assert gradients(values[..., 0].sum(), x)[0].dtype == dtype


# ---- ties, infinities and errors -----------------------------------------------------------------


@every_distribution
def test_ties_share_their_ranks_and_their_gradient(distribution, device):
    # Two equal values are mixed half and half. Their gradient is the slope of F at 0, times beta
    slopes = {"cauchy": 1 / pi, "logistic": 0.25, "gaussian": (2 * pi) ** -0.5,
              "reciprocal": 0.25, "optimal": 1.0}  # fmt: skip
    x = tensor([2, 2], device=device, grad=True)
    found = rank(x, distribution=distribution, steepness=3.0)
    close(found[0], [1.5, 1.5])
    (dx,) = gradients(found[0, 0], x)
    assert dx.isfinite().all()
    if distribution in slopes:
        close(dx[0], [3 * slopes[distribution], -3 * slopes[distribution]])
    else:  # v / (1e-10)^lambda
        close(dx[0] / dx[0, 0], [1, -1])


@every_function
@every_network
def test_an_infinity_leaves_other_rows_alone(function, network, device):
    x = draw(3, 5, device=device)
    poisoned = x.clone()
    poisoned[1, 2] = inf
    results = []
    for rows in (x, poisoned):
        leaf = rows.clone().requires_grad_()
        value = function(leaf, network=network)
        value = value.values if isinstance(value, sorting.Sorted) else value
        results.append((value[[0, 2]], gradients(value[[0, 2]].pow(2).sum(), leaf)[0][[0, 2]]))
    for got, want in zip(results[1], results[0], strict=True):
        close(got, want)


@every_function
@pytest.mark.parametrize(
    ("x", "options", "kind", "name"),
    [
        (torch.tensor([1.0, nan]), {}, ValueError, "x"),
        (torch.empty(3, 0), {}, ValueError, "x"),
        (torch.empty(0, 3), {"dim": 0}, ValueError, "x"),
        (torch.tensor(1.0), {}, ValueError, "x"),
        (torch.ones(3, dtype=torch.int64), {}, TypeError, "x"),
        (torch.ones(3), {"steepness": 0.0}, ValueError, "steepness"),
        (torch.ones(3), {"steepness": -1.0}, ValueError, "steepness"),
        (torch.ones(3), {"steepness": "10"}, TypeError, "steepness"),
        (torch.ones(3), {"network": "bubble"}, ValueError, "network"),
        (torch.ones(3), {"distribution": "normal"}, ValueError, "distribution"),
        (torch.ones(3), {"art_lambda": 1.0}, ValueError, "art_lambda"),
        (torch.ones(3), {"dim": 1}, IndexError, "dim"),
        (torch.ones(3), {"backend": "gpu"}, ValueError, "backend"),
    ],
    ids=lambda v: str(v) if isinstance(v, dict) else None,
)
def test_errors(function, x, options, kind, name):
    with pytest.raises(kind, match=f"^{name}: got .*expected"):
        function(x, **options)


def test_errors_of_arguments():
    with pytest.raises(ValueError, match=r"^x: got shape \(0, 3\), expected .* along dim 0"):
        sort(torch.empty(0, 3), dim=0)
    with pytest.raises(TypeError, match=r"^x: got list, expected a tensor"):
        sort([1.0, 2.0])
    with pytest.raises(TypeError, match=r"^t: got list, expected a tensor"):
        rank_mass(torch.ones(3), [1.0, 2.0, 3.0])
    with pytest.raises(TypeError, match=r"^t: got dtype torch\.int64, expected a floating"):
        rank_mass(torch.ones(3), torch.arange(3))
    for shape in ((2,), (1, 3), (3, 2)):
        with pytest.raises(ValueError, match=r"^t: got shape .*expected \(3,\) or x's \(2, 3\)"):
            rank_mass(torch.ones(2, 3), torch.ones(shape))


# ---- by projection -------------------------------------------------------------------------------

REGULARIZATIONS = ("l2", "kl")
every_regularization = pytest.mark.parametrize("regularization", REGULARIZATIONS)
every_projection = pytest.mark.parametrize("function", [soft_rank, soft_sort])


def isotonic_by_enumeration(s, w, regularization):
    """The non-increasing fit: the minimum over starts a <= i of the maximum over ends b >= i of the
    value of the block from a to b, which is its optimal constant level."""

    def value(a, b):
        if regularization == "l2":
            return (s - w)[a : b + 1].mean()
        return np.logaddexp.reduce(s[a : b + 1]) - np.logaddexp.reduce(w[a : b + 1])

    n = len(s)
    return np.array(
        [min(max(value(a, b) for b in range(i, n)) for a in range(i + 1)) for i in range(n)]
    )


def projected(x, regularization, strength, function):
    """The ascending result for one row, as in Blondel et al."""
    n = len(x)
    rho = np.arange(n, 0, -1.0)
    if function is soft_sort:
        s, w = rho / strength, np.sort(-x)[::-1]
        return isotonic_by_enumeration(s, w, regularization) - s
    order = np.argsort(-x)
    s, w = x[order] / strength, np.log(rho) if regularization == "kl" else rho
    dual = s - isotonic_by_enumeration(s, w, regularization)
    found = np.empty(n)
    found[order] = np.exp(dual) if regularization == "kl" else dual
    return found


@pytest.mark.parametrize("n", [1, 2, 3, 7, 8, 21])
@pytest.mark.parametrize("strength", [0.05, 1.0, 30.0])
@every_projection
@every_regularization
def test_projection_is_that_of_enumeration(regularization, function, strength, n, device):
    x = draw(3, n, device=device, seed=n)
    want = [projected(row, regularization, strength, function) for row in x.cpu().numpy()]
    got = function(x, regularization=regularization, strength=strength)
    torch.testing.assert_close(got.cpu().numpy(), np.stack(want), rtol=1e-10, atol=1e-10)


def test_two_projected_values_by_hand(device):
    x = tensor([0, 0.4], [0, 7], device=device)
    close(soft_rank(x), [[1.3, 1.7], [1, 2]])
    close(soft_rank(x, descending=True), [[1.7, 1.3], [2, 1]])
    near = 1 / (1 + exp(0.4))
    close(soft_rank(x, regularization="kl"), [[3 * near, 3 * (1 - near)], [1, 2]])
    # each value is at most 1 / 2 from the mean of the row
    close(soft_sort(x.flip(-1)), [[0, 0.4], [3, 4]])
    close(soft_sort(x, strength=0.2, descending=True), [[0.4, 0], [6, 1]])


@every_projection
@every_regularization
@pytest.mark.parametrize("strength", [0.1, 1.0, 10.0])
@pytest.mark.parametrize(("descending", "dim"), [(False, -1), (True, 0)])
def test_gradcheck_of_projection(function, regularization, strength, descending, dim, device):
    x = draw(4, 5, device=device).requires_grad_()
    options = {"regularization": regularization, "strength": strength, "descending": descending}
    assert torch.autograd.gradcheck(lambda x: function(x, dim=dim, **options), x)
    assert torch.autograd.gradgradcheck(lambda x: function(x, dim=dim, **options) ** 2, x)
    close(function(x, dim=dim, **options), function(x.movedim(dim, -1), **options).movedim(-1, dim))


@every_regularization
def test_the_worst_order_for_pooling(regularization, device):
    """In an increasing sequence, a sequential algorithm would pool one neighbour after another."""
    n = 3000
    y = torch.arange(n, dtype=torch.float64, device=device) ** 2
    weight = torch.zeros_like(y) if regularization == "kl" else None
    want = y.mean() if weight is None else y.logsumexp(0) - log(n)
    torch.testing.assert_close(_isotonic(y, weight), want.expand(n))


@every_projection
@every_regularization
def test_far_apart_values_stay_finite(function, regularization, device):
    x = torch.tensor([1e4, -1e4, 0.0, 3.0], device=device, requires_grad=True)
    value = function(x, regularization=regularization)
    assert value.isfinite().all()
    assert gradients(value.pow(2).sum(), x)[0].isfinite().all()
    assert value.dtype == torch.float32


@every_projection
def test_no_rows(function, device):
    assert function(torch.zeros(0, 5, device=device)).shape == (0, 5)


@every_projection
@every_regularization
def test_low_precision_is_projected_in_fp64(function, regularization, device):
    x = draw(2, 500, device=device).bfloat16()
    wide = function(x.double(), regularization=regularization)
    assert torch.equal(function(x, regularization=regularization), wide.float())


@every_projection
@every_regularization
def test_equal_values_by_projection(function, regularization, device):
    x = torch.full((4,), 2.0, device=device, dtype=torch.float64, requires_grad=True)
    value = function(x, regularization=regularization)
    close(value, [2.5 if function is soft_rank else 2.0] * 4)
    assert gradients(value[0], x)[0].isfinite().all()


@every_projection
@every_regularization
def test_a_projected_infinity_leaves_other_rows_alone(function, regularization, device):
    x = draw(3, 5, device=device)
    poisoned = x.clone()
    poisoned[1, 2] = inf
    got, want = (function(v, regularization=regularization)[[0, 2]] for v in (poisoned, x))
    close(got, want)


@every_projection
@pytest.mark.parametrize(
    ("x", "options", "kind", "name"),
    [
        (torch.tensor([1.0, nan]), {}, ValueError, "x"),
        (torch.empty(3, 0), {}, ValueError, "x"),
        (torch.ones(3, dtype=torch.int64), {}, TypeError, "x"),
        ([1.0], {}, TypeError, "x"),
        (torch.ones(3), {"strength": 0.0}, ValueError, "strength"),
        (torch.ones(3), {"strength": inf}, ValueError, "strength"),
        (torch.ones(3), {"strength": "1"}, TypeError, "strength"),
        (torch.ones(3), {"regularization": "l1"}, ValueError, "regularization"),
        (torch.ones(3), {"dim": -2}, IndexError, "dim"),
    ],
    ids=lambda v: str(v) if isinstance(v, dict) else None,
)
def test_errors_of_projection(function, x, options, kind, name):
    with pytest.raises(kind, match=f"^{name}: got .*expected"):
        function(x, **options)
