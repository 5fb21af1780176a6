"""Sorting networks of the Triton backend in Triton's interpreter: numbers of wires that fill a
block and numbers that do not, instances with several blocks. More tests are in
tests/ops/test_sort_network.py."""

import pytest
import torch
from served import serves

from contrastloss.backends import NETWORKS, triton
from contrastloss.ops import sort_network


@pytest.fixture(autouse=True)
def _served(device):
    if not serves("triton", "sort_network", device):
        pytest.skip("needs a GPU, or TRITON_INTERPRET=1")


def run(backend, inputs, **options):
    """The sorted rows, the masses, and the gradients of a fixed combination of both."""
    x, t, steepness = leaves = [v.clone().requires_grad_() for v in inputs]
    found = sort_network(x, t, steepness=steepness, backend=backend, **options)
    made = torch.Generator().manual_seed(5)
    weights = [torch.randn(v.shape, generator=made).to(v) for v in found]
    return [*found, *torch.autograd.grad(found, leaves, weights, materialize_grads=True)]


def inputs(device, rows, n):
    x, t = torch.randn(rows, n, device=device), torch.rand(rows, 2, n, device=device)
    return x, t, 1.0 + 9.0 * torch.rand(rows, device=device)


@pytest.mark.parametrize("network", NETWORKS)
@pytest.mark.parametrize(("rows", "n"), [(300, 1), (700, 2), (129, 17), (40, 32), (3, 65)])
def test_networks(device, rows, n, network):
    given = inputs(device, rows, n)
    want = run("reference", [v.double() for v in given], network=network)
    for one, exact in zip(run("triton", given, network=network), want, strict=True):
        assert one.dtype == torch.float32
        assert (one - exact).norm() <= 1e-4 * (exact.norm() + 1.0)


def test_any_number_of_instances(device, monkeypatch):
    """A row's results do not depend on the program instance that computes them."""
    from contrastloss.backends.triton import sort

    given = inputs(device, 70, 16)
    want = run("triton", given)
    monkeypatch.setattr(sort, "SCRATCH", 0)
    assert all(map(torch.equal, run("triton", given), want))


def test_what_it_sorts_at_most(device):
    message = f"it sorts at most {triton.WIRES} numbers, not {triton.WIRES + 1}"
    with pytest.raises(RuntimeError, match=message):
        sort_network(torch.ones(1, triton.WIRES + 1, device=device), backend="triton")
