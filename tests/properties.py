"""What the tests of all losses share."""

import pytest
import torch

from contrastloss.testing import CHECKS

#: every property of contrastloss.testing; the first is part of the smoke test of a GPU
every_check = pytest.mark.parametrize(
    "check",
    [pytest.param(CHECKS[0], marks=pytest.mark.gpu_smoke), *CHECKS[1:]],
    ids=lambda check: check.__name__,
)

E1, E2 = [1.0, 0.0], [0.0, 1.0]


def tensor(*rows, device="cpu", grad=False):
    return torch.tensor(rows, dtype=torch.float64, device=device).requires_grad_(grad)


def close(got, want):
    """Of a hand-computed value: fp64, all digits."""
    want = torch.as_tensor(want, dtype=torch.float64, device=got.device)
    torch.testing.assert_close(got, want, rtol=1e-12, atol=1e-14)


def gradients(value, *inputs):
    return torch.autograd.grad(value, inputs)
