"""Sorting networks of the CUDA backend: teams that are parts of a warp, whole warps and blocks,
networks of several segments, batches of several launches. More tests are in
tests/ops/test_sort_network.py."""

import pytest
import torch

from contrastloss.backends import DISTRIBUTIONS, NETWORKS, cuda
from contrastloss.ops import sort_network

pytestmark = pytest.mark.usefixtures("cuda_backend")


def run(backend, inputs, **options):
    """The sorted rows, the masses, and the gradients of a fixed combination of both."""
    leaves = [v.clone().requires_grad_() for v in inputs]
    x, t, steepness = leaves
    found = sort_network(x, t, steepness=steepness, backend=backend, **options)
    generator = torch.Generator().manual_seed(5)
    weights = [torch.randn(v.shape, generator=generator).to(v) for v in found]
    return [*found, *torch.autograd.grad(found, leaves, weights)]


def compare(device, rows, n, masses, dtype, **options):
    x, t = torch.randn(rows, n, device=device), torch.rand(rows, masses, n, device=device)
    inputs = [v.double() for v in (x, t, 1.0 + 9.0 * torch.rand(rows, device=device))]
    want = run("reference", inputs, **options)
    got = run("cuda", [v.to(dtype) for v in inputs], **options)
    rtol = 1e-11 if dtype == torch.float64 else 1e-4
    for one, exact in zip(got, want, strict=True):
        assert one.dtype == dtype
        assert (one - exact).norm() <= rtol * (exact.norm() + 1.0)


@pytest.mark.gpu_smoke
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=str)
@pytest.mark.parametrize("network", NETWORKS)
@pytest.mark.parametrize("n", [1, 2, 3, 16, 33, 64, 65, 130])
def test_networks(device, n, network, dtype):
    compare(device, 37 if n < 65 else 5, n, 2, dtype, network=network)


@pytest.mark.parametrize("n", [33, 130])
def test_races(device, n):
    """A small case for a slow sanitizer."""
    compare(device, 5, n, 2, torch.float32)


@pytest.mark.parametrize("distribution", DISTRIBUTIONS)
def test_distributions_in_segments(device, distribution):
    compare(device, 3, 100, 1, torch.float64, distribution=distribution)


def test_many_rows(device):
    """More rows than fit in the scratch memory at once."""
    compare(device, 470, 300, 1, torch.float64, network="odd_even")


def test_a_large_network(device):
    compare(device, 2, cuda.WIRES, 1, torch.float32, network="bitonic")


def test_one_mass_for_all_rows(device):
    x, t = torch.randn(40, 20, device=device), torch.rand(3, 20, device=device)
    values, mass = sort_network(x, t, backend="cuda")
    want, masses = sort_network(x.double(), t.double(), backend="reference")
    torch.testing.assert_close(values, want.float(), rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(mass, masses.float(), rtol=1e-5, atol=1e-5)


def test_repeats_its_bits(device):
    inputs = [torch.randn(50, 40, device=device), torch.rand(50, 1, 40, device=device)]
    inputs.append(torch.full((50,), 8.0, device=device))
    first = run("cuda", inputs)
    for _ in range(3):
        assert all(map(torch.equal, run("cuda", inputs), first))


def test_too_many_numbers(device):
    x = torch.randn(2, cuda.WIRES + 1, device=device)
    message = f"'cuda' cannot serve this call: it sorts at most {cuda.WIRES} numbers, not 1025"
    with pytest.raises(RuntimeError, match=message):
        sort_network(x, backend="cuda")
