"""Sorting networks in C++: instruction sets, lanes, threads, and operators called without the
Python layer."""

import pytest
import torch

from contrastloss.backends import DISTRIBUTIONS, cpu
from contrastloss.ops import sort_network

if cpu.missing() is not None:
    pytest.skip(f"cpu: {cpu.missing()}", allow_module_level=True)


@pytest.fixture(autouse=True)
def on_cpu(device):
    if device.type != "cpu":
        pytest.skip("the tensors are on another device")


def results(x, t, backend, **options):
    leaves = [v.clone().requires_grad_() for v in (x, t)]
    values, mass = sort_network(*leaves, backend=backend, **options)
    grads = torch.autograd.grad(values.square().sum() + mass.sin().sum(), leaves)
    return [values, mass, *grads]


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("distribution", DISTRIBUTIONS)
def test_every_instruction_set(isa, dtype, distribution):
    tolerance = (
        {"rtol": 1e-9, "atol": 1e-9} if dtype == torch.float64 else {"rtol": 2e-4, "atol": 2e-5}
    )
    for rows, n in ((1, 3), (37, 11), (5, 40)):
        x, t = torch.randn(rows, n, dtype=dtype), torch.randn(rows, 2, n, dtype=dtype)
        options = {"steepness": 2.0, "distribution": distribution}
        got = results(x, t, "cpu", **options)
        want = results(x.double(), t.double(), "reference", **options)
        for a, b in zip(got, want, strict=True):
            torch.testing.assert_close(a.double(), b, **tolerance)


def test_arctangent_over_the_whole_range(isa):
    """One comparator has w = 1/2 + atan(delta) / pi, for the pair (0, delta)."""
    delta = torch.cat([torch.logspace(-20, 20, 4001), torch.linspace(0, 6, 6001)])
    delta = torch.cat([delta, -delta])
    x = torch.stack([torch.zeros_like(delta), delta], 1)
    mass = sort_network(x, torch.tensor([[0.0, 1.0]]), steepness=1.0, backend="cpu")[1][:, 0]
    want = torch.atan(delta.double()) / torch.pi + 0.5
    assert (mass[:, 1].double() - want).abs().max() <= 1.2e-7


@pytest.mark.parametrize("count", [1, 2, 3, 7])
def test_repeats_bit_for_bit_at_any_number_of_threads(threads, count):
    x, t = torch.randn(1000, 20), torch.randn(1000, 3, 20)
    threads(2)
    want = results(x, t, "cpu")
    threads(count)
    for a, b in zip(results(x, t, "cpu"), want, strict=True):
        assert torch.equal(a, b)


def test_rows_too_long_for_a_lane_each():
    """The comparators of one vector of rows take more than 64 MB: one row at a time gives the same
    numbers."""
    x, t = torch.randn(3, 900), torch.randn(1, 900)
    got = sort_network(x, t, steepness=50.0, backend="cpu")
    want = sort_network(x.double(), t.double(), steepness=50.0, backend="reference")
    for a, b in zip(got, want, strict=True):
        torch.testing.assert_close(a.double(), b, rtol=1e-4, atol=1e-4)
    x.requires_grad_()
    (grad,) = torch.autograd.grad(sort_network(x, t, steepness=50.0, backend="cpu")[1].sum(), x)
    assert grad.abs().max() < 1e-2 * t.sum().abs() + 1  # masses of a doubly stochastic matrix
    whole = sort_network(x, torch.ones(1, 900), steepness=50.0, backend="cpu")[1]
    torch.testing.assert_close(whole, torch.ones_like(whole))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"ends": torch.tensor([[0, 4]], dtype=torch.int32)}, "no such wire"),
        ({"ends": torch.tensor([[0, 1]])}, "comparators: wrong dtype"),
        ({"t": torch.ones(3, 1, 4)}, "t: got 12 elements, expected 8"),
        ({"steepness": torch.ones(3)}, "steepness: got 3 elements, expected 2"),
        ({"distribution": 6}, "distribution: got 6, expected 0 to 5"),
    ],
)
def test_malformed_operands_are_errors(change, message):
    arguments = {
        "x": torch.randn(2, 4), "t": torch.ones(2, 1, 4), "steepness": torch.ones(2),
        "ends": torch.tensor([[0, 1]], dtype=torch.int32), "art_lambda": 0.25, "distribution": 0,
        "isa": -1, **change,
    }  # fmt: skip
    with pytest.raises(RuntimeError, match=message):
        torch.ops.contrastloss.cpu_sort(*arguments.values())
