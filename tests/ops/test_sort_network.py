"""``sort_network`` on every backend that has it, against explicit matrices in fp64.

tests/test_sorting.py compares values, matrices and gradients with diffsort.
"""

import math

import pytest
import torch
from layouts import column_major

from contrastloss.backends import DISTRIBUTIONS, NETWORKS
from contrastloss.backends.network import layers
from contrastloss.ops import SortNetwork, sort_network

pytestmark = pytest.mark.operators("sort_network")


F = {
    "cauchy": lambda v, d, lam: torch.arctan(v) / math.pi + 0.5,
    "logistic": lambda v, d, lam: 1 / (1 + torch.exp(-v)),
    "logistic_phi": lambda v, d, lam: 1 / (1 + torch.exp(-v * (d.abs() + 1e-10).pow(-lam))),
    "gaussian": lambda v, d, lam: torch.special.ndtr(v),
    "reciprocal": lambda v, d, lam: (v / (2 + v.abs()) + 1) / 2,
    "optimal": lambda v, d, lam: torch.where(
        v.abs() <= 0.25, v + 0.5, torch.where(v > 0, 1 - 1 / (16 * v), -1 / (16 * v))
    ),
}


def matrix(x, beta, network, distribution, lam):
    """P of one row, computed as a product of n x n matrices, and the sorted row ``x @ P``."""
    n = len(x)
    p, now = torch.eye(n, dtype=x.dtype), x
    for layer in layers(network, n):
        w = torch.eye(n, dtype=x.dtype)
        for a, b in layer:
            d = now[b] - now[a]
            keep = F[distribution](beta * d, d, lam)
            one = torch.zeros(n, n, dtype=x.dtype)
            one[a, a] = one[b, b] = -1
            one[a, b] = one[b, a] = 1
            w = w + (1 - keep) * one
        p, now = p @ w, now @ w
    return p, now


def dense(x, t, beta, network, distribution, lam=0.25):
    rows = [matrix(r, b, network, distribution, lam) for r, b in zip(x, beta, strict=True)]
    return torch.stack([now for _, now in rows]), torch.stack(
        [v @ p.mT for v, (p, _) in zip(t.expand(len(x), -1, -1), rows, strict=True)]
    )


def problem(device, dtype=torch.float64, rows=5, n=7, masses=3):
    g = torch.Generator().manual_seed(1)
    x, t = torch.randn(rows, n, generator=g), torch.randn(rows, masses, n, generator=g)
    beta = 0.5 + 3 * torch.rand(rows, generator=g)
    return [v.to(device, dtype) for v in (x, t, beta)]


@pytest.mark.parametrize("network", NETWORKS)
@pytest.mark.parametrize("n", range(1, 34))
def test_the_networks_sort(network, n):
    """With hard swaps the network sorts 0-1 sequences, hence (0-1 principle) everything. The
    odd-even network has n(n - 1) / 2 comparators."""
    found = layers(network, n)
    if network == "odd_even":
        assert sum(map(len, found)) == n * (n - 1) // 2
    rows = torch.cat(
        [torch.ones(n + 1, n).triu(i) for i in range(1)] + [torch.randint(0, 2, (500, n))]
    )
    for layer in found:
        wires = [w for pair in layer for w in pair]
        assert len(set(wires)) == len(wires)
        for a, b in layer:
            low, high = rows[:, a].clone(), rows[:, b].clone()
            rows[:, a], rows[:, b] = torch.minimum(low, high), torch.maximum(low, high)
    assert (rows.diff(dim=1) >= 0).all()


@pytest.mark.parametrize("network", NETWORKS)
@pytest.mark.parametrize("distribution", DISTRIBUTIONS)
def test_values_masses_and_gradients(backend, device, network, distribution):
    for n in (1, 2, 5, 8, 13):
        x, t, beta = problem(device, n=n)
        weights = torch.randn_like(x), torch.randn_like(t)
        found = []
        for run in (
            lambda x, t, b: sort_network(
                x, t, steepness=b, network=network, distribution=distribution, backend=backend
            ),
            lambda x, t, b: dense(x.cpu(), t.cpu(), b.cpu(), network, distribution),
        ):
            leaves = [v.clone().requires_grad_() for v in (x, t, beta)]
            outputs = [v.to(device) for v in run(*leaves)]
            total = sum((w * v).sum() for w, v in zip(weights, outputs, strict=True))
            grads = torch.autograd.grad(total, leaves, materialize_grads=True)
            found.append([*outputs, *grads])
        for got, want in zip(*found, strict=True):
            torch.testing.assert_close(got, want, rtol=1e-9, atol=1e-9)


def test_hand_computed(backend, device):
    """One Cauchy comparator, beta = 1, delta = -1: w = atan(-1) / pi + 1/2 = 1/4."""
    x = torch.tensor([2.0, 1.0], device=device, requires_grad=True)
    t = torch.tensor([[0.0, 1.0], [1.0, 2.0]], device=device)
    values, mass = sort_network(x, t, steepness=1.0, backend=backend)
    torch.testing.assert_close(values, torch.tensor([1.25, 1.75], device=device))
    torch.testing.assert_close(mass, torch.tensor([[0.75, 0.25], [1.75, 1.25]], device=device))
    (grad,) = torch.autograd.grad(mass[0, 0], x)  # of 1 - w by x: F'(-1) = 1 / (2 pi)
    slope = 1 / (2 * math.pi)
    torch.testing.assert_close(grad, torch.tensor([slope, -slope], device=device))


@pytest.mark.parametrize("distribution", DISTRIBUTIONS)
def test_single_precision(backend, device, distribution):
    """fp32 and narrower inputs, computed in fp32, agree with fp64 on the same numbers."""
    for dtype in (torch.float32, torch.bfloat16, torch.float16):
        x, t, beta = problem(device, dtype, rows=40, n=16)
        leaves = [v.clone().requires_grad_() for v in (x, t)]
        found = sort_network(
            *leaves, steepness=beta.float(), distribution=distribution, backend=backend
        )
        assert found[0].dtype == found[1].dtype == torch.float32
        wide = [v.double().requires_grad_() for v in (x, t)]
        want = sort_network(
            *wide, steepness=beta.double(), distribution=distribution, backend="reference"
        )
        for a, b in zip(found, want, strict=True):
            torch.testing.assert_close(a.double(), b, rtol=1e-5, atol=1e-5)
        grads = [
            torch.autograd.grad(v[0].square().sum() + v[1].sin().sum(), leaf)
            for v, leaf in ((found, leaves), (want, wide))
        ]
        tolerance = 1e-4 if dtype == torch.float32 else 2e-2
        for a, b in zip(*grads, strict=True):
            assert a.dtype == dtype
            torch.testing.assert_close(a.double(), b, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("distribution", DISTRIBUTIONS)
def test_gradcheck(backend, device, distribution):
    x, t, beta = problem(device, rows=2, n=5, masses=2)

    def function(x, t, beta):
        return sort_network(x, t, steepness=beta, distribution=distribution, backend=backend)

    torch.autograd.gradcheck(function, [v.requires_grad_() for v in (x, t, beta)])


def test_leading_dimensions_and_shared_masses(backend, device):
    x = torch.randn(2, 3, 6, device=device, dtype=torch.float64)
    t = torch.randn(4, 6, device=device, dtype=torch.float64, requires_grad=True)
    steepness = torch.tensor(2.0, device=device, dtype=torch.float64, requires_grad=True)
    values, mass = sort_network(x, t, steepness=steepness, backend=backend)
    assert values.shape == (2, 3, 6)
    assert mass.shape == (2, 3, 4, 6)
    one = sort_network(x[1, 2], t.detach(), steepness=2.0, backend=backend)
    assert torch.equal(values[1, 2], one[0])
    assert torch.equal(mass[1, 2], one[1])
    many = sort_network(x, t.detach().expand(2, 3, 4, 6), steepness=2.0, backend=backend)
    assert torch.equal(mass, many[1])
    assert torch.equal(mass, sort_network(x, t.detach(), steepness=2.0, backend=backend)[1])
    few = t.detach()[:2].requires_grad_()
    torch.autograd.gradcheck(
        lambda t, b: sort_network(x[:1, :2], t, steepness=b, backend=backend)[1], (few, steepness)
    )
    empty = sort_network(x[:0], t, backend=backend)
    assert empty[0].shape == (0, 3, 6)
    assert empty[1].shape == (0, 3, 4, 6)


def test_ties_have_defined_gradients(backend, device):
    """For equal values every comparator mixes half and half, and all gradients are finite."""
    for distribution in DISTRIBUTIONS:
        x = torch.zeros(3, 6, device=device, dtype=torch.float64, requires_grad=True)
        t = torch.eye(6, device=device, dtype=torch.float64)
        values, mass = sort_network(x, t, distribution=distribution, backend=backend)
        assert (values == 0).all()
        torch.testing.assert_close(mass.sum(-1), torch.ones_like(mass[..., 0]))
        (grad,) = torch.autograd.grad((mass * torch.arange(6.0, device=device)).sum(), x)
        assert grad.isfinite().all(), distribution


def test_an_infinity_stays_in_its_row(backend, device):
    x = torch.randn(40, 7, device=device)
    t = torch.randn(2, 7, device=device)
    clean = sort_network(x, t, backend=backend)
    x[5, 3], x[17, 0] = math.inf, -math.inf
    found = sort_network(x, t, backend=backend)
    keep = [i for i in range(40) if i not in (5, 17)]
    assert torch.equal(found[0][keep], clean[0][keep])
    assert torch.equal(found[1][keep], clean[1][keep])


def test_a_second_derivative_is_an_error(backend, device):
    x = torch.randn(3, 4, device=device, requires_grad=True)
    (grad,) = torch.autograd.grad(
        sort_network(x, backend=backend)[0].square().sum(), x, create_graph=True
    )
    with pytest.raises(RuntimeError, match="second derivatives are not implemented"):
        grad.sum().backward()


def test_torch_library_and_compilers(backend, device):
    x, t, beta = problem(device, torch.float32)
    for layout in (torch.clone, column_major):
        leaves = [layout(v).requires_grad_() for v in (x, t, beta)]
        arguments = (*leaves, 0.25, "odd_even", "cauchy", backend)
        torch.library.opcheck(torch.ops.contrastloss.sort_network.default, arguments)
    x, t, _ = leaves

    def loss(x, t):
        values, mass = sort_network(x, t, steepness=3.0, backend=backend)
        return values.square().sum() + mass.exp().sum()

    compiled = torch.compile(loss, backend="aot_eager", fullgraph=True)
    torch.testing.assert_close(compiled(x, t), loss(x, t))
    grads = [torch.autograd.grad(f(x, t), (x, t)) for f in (compiled, loss)]
    torch.testing.assert_close(*grads)


def test_the_function_is_public(device):
    x, t, beta = problem(device)
    found = SortNetwork.apply((0.25, "bitonic", "logistic", None), x, t, beta)
    want = sort_network(x, t, steepness=beta, network="bitonic", distribution="logistic")
    assert torch.equal(found[0], want[0])
    assert torch.equal(found[1], want[1])


X = torch.randn(4, 5)


@pytest.mark.parametrize(
    ("options", "kind", "message"),
    [
        ({"x": [1.0]}, TypeError, "x: got list, expected a tensor"),
        ({"x": X.long()}, TypeError, "x: got dtype torch.int64, expected a floating one"),
        ({"x": X[:, :0]}, ValueError, r"x: got shape \(4, 0\), expected \(\.\.\., n\)"),
        ({"x": X[0, 0]}, ValueError, r"x: got shape \(\), expected"),
        ({"x": X / 0 * 0}, ValueError, "x: got NaN, expected numbers"),
        ({"t": torch.ones(5)}, ValueError, r"t: got shape \(5,\), expected \(T, n\)"),
        ({"t": torch.ones(2, 6)}, ValueError, r"t: got shape \(2, 6\), expected"),
        ({"t": torch.ones(3, 2, 5)}, ValueError, r"t: got shape \(3, 2, 5\), expected"),
        ({"t": torch.ones(2, 5).long()}, TypeError, "t: got dtype torch.int64"),
        ({"steepness": 0.0}, ValueError, "steepness: got 0.0, expected a positive finite number"),
        ({"steepness": math.nan}, ValueError, "steepness: got nan"),
        ({"steepness": "1"}, TypeError, "steepness: got str"),
        ({"network": "bubble"}, ValueError, "network: got 'bubble', expected one of odd_even"),
        ({"distribution": "normal"}, ValueError, "distribution: got 'normal', expected one of cau"),
        ({"art_lambda": 1.0}, ValueError, "art_lambda: got 1.0, expected a number in"),
        ({"backend": "tpu"}, ValueError, "backend: got 'tpu', expected None or one of"),
    ],
)
def test_bad_arguments(options, kind, message):
    with pytest.raises(kind, match=message):
        sort_network(**{"x": X, **options})
