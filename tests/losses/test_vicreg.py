from math import sqrt

import pytest
import torch
from properties import close, every_check, gradients, tensor

from contrastloss import VICRegLoss
from contrastloss.functional import vicreg
from contrastloss.testing import CHECKS, Subject


def views(n, d, generator):
    """Features with standard deviations above and below 1."""
    x, noise = torch.randn(2, n, 9, generator=generator).double()
    x[:, 1:] += 0.5 * x[:, :-1]
    x = x * torch.linspace(0.2, 2.0, 9, dtype=torch.float64)
    return [x + 1.0, x + 0.3 * noise]


@every_check
def test_properties(check, device):
    check(Subject(VICRegLoss, {}, device, thorough=False, make=views))


def test_on_every_backend(device, backend):
    options = {"invariance": 0.0, "covariance": 5.0, "gamma": 2.0, "eps": 0.1}
    CHECKS[0](Subject(VICRegLoss, options, device, backend, make=views))


def test_by_hand(device, backend):
    # x has variances 1/2 and 2 and covariance 1; y is constant
    x, y = tensor([1, 2], [0, 0], device=device), tensor([1, 1], [1, 1], device=device)

    def found(**options):
        only = {"invariance": 0, "variance": 0, "covariance": 0} | options
        return vicreg(x, y, **only, backend=backend)

    invariance = (0 + 1 + 1 + 1) / 4
    close(found(invariance=2.0), 2 * invariance)
    variance = (1 - sqrt(0.5 + 1e-4)) / 2 + (1 - sqrt(1e-4))
    close(found(variance=1.0), variance)
    covariance = 2 * 1 / 2
    close(found(covariance=3.0), 3 * covariance)
    close(vicreg(x, y, backend=backend), 25 * invariance + 25 * variance + covariance)


def test_one_row_and_none(device, backend):
    x = torch.randn(4, 3, dtype=torch.float64, device=device, requires_grad=True)
    value = vicreg(x[:1], x[1:2], backend=backend)
    close(value, 25 * (x[0] - x[1]).square().mean() + 50 * (1 - 0.01))
    assert gradients(value, x)[0].isfinite().all()
    value = vicreg(x[:0], x[:0], backend=backend)
    assert value.item() == 0.0
    assert not gradients(value, x)[0].any()


def test_errors(device):
    x = torch.ones(3, 2, device=device)
    for name in ("invariance", "variance", "covariance", "gamma", "eps"):
        with pytest.raises(ValueError, match=rf"^{name}: got -1, expected a .*finite"):
            VICRegLoss(**{name: -1})
    with pytest.raises(ValueError, match=r"^y: got shape \(2, 2\), expected x's \(3, 2\)"):
        vicreg(x, x[:2])
    with pytest.raises(ValueError, match=r"^x: got shape \(1, 3, 2\), expected \(N, D\)"):
        vicreg(x[None], x[None])
