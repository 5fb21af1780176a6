import pytest
import torch
from properties import close, every_check, gradients, tensor

from contrastloss import BarlowTwinsLoss
from contrastloss.functional import barlow_twins
from contrastloss.testing import CHECKS, Subject


def views(n, d, generator):
    x, noise = torch.randn(2, n, 9, generator=generator).double()
    x[:, 1:] += 0.5 * x[:, :-1]  # correlated features
    return [3.0 * x + 1.0, x + 0.5 * noise]


@every_check
def test_properties(check, device):
    check(Subject(BarlowTwinsLoss, {"lambda_": 0.1}, device, thorough=False, make=views))


@pytest.mark.parametrize("standardize", ["biased", "unbiased", "none"])
def test_on_every_backend(standardize, device, backend):
    options = {"lambda_": None, "standardize": standardize}
    CHECKS[0](Subject(BarlowTwinsLoss, options, device, backend, make=views))


def test_by_hand(device, backend):
    # standardised: x = [(1, 1), (-1, -1)], y = [(1, -1), (-1, 1)]; c = [[1, -1], [1, -1]]
    x = tensor([3, 5], [1, 1], device=device)
    y = tensor([2, 0], [1, 4], device=device)
    options = {"eps": 1e-300, "backend": backend}
    close(barlow_twins(x, y, **options), 4 + 0.005 * 2)
    close(barlow_twins(x, y, lambda_=None, **options), 4 + 0.5 * 2)
    # with variance 1 and eps 3, standardised values are halved and c is divided by 4
    close(barlow_twins(x - 2, y, lambda_=1.0, eps=3.0, backend=backend), hand(x, y))


def test_other_standardisations_by_hand(device):
    # the unbiased variance of two rows is twice the biased one: c is halved
    x = tensor([3, 5], [1, 1], device=device)
    y = tensor([2, 0], [1, 4], device=device)
    unbiased = barlow_twins(x, y, lambda_=1.0, eps=1e-300, standardize="unbiased")
    close(unbiased, 0.25 + 2.25 + 2 * 0.25)
    # c = x^T y / 2 = [[7/2, 2], [11/2, 2]]
    plain = barlow_twins(x, y, lambda_=1.0, standardize="none")
    close(plain, 2.5**2 + 1 + 4 + 5.5**2)


def hand(x, y):
    """Column variances: 1 and 4 for x, 1/4 and 4 for y; eps is 3."""
    x0, x1, y0, y1 = 1 / 2, 2 / 7**0.5, 0.5 / 3.25**0.5, 2 / 7**0.5
    return (1 - x0 * y0) ** 2 + (1 + x1 * y1) ** 2 + (x0 * y1) ** 2 + (x1 * y0) ** 2


def test_constant_features_one_row_and_none(device, backend):
    x = torch.ones(4, 3, device=device, requires_grad=True)
    for rows in (x, x[:1]):
        value = barlow_twins(rows, rows, backend=backend)
        assert value.item() == 3.0
        assert gradients(value, x)[0].isfinite().all()
    value = barlow_twins(x[:0], x[:0], backend=backend)
    assert value.item() == 0.0
    assert not gradients(value, x)[0].any()


def test_errors(device):
    x = torch.ones(3, 2, device=device)
    with pytest.raises(ValueError, match=r"^y: got shape \(2, 2\), expected x's \(3, 2\)"):
        barlow_twins(x, x[:2])
    with pytest.raises(ValueError, match=r"^x: got shape \(1, 3, 2\), expected \(N, D\)"):
        barlow_twins(x[None], x[None])
