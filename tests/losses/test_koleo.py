from math import log, sqrt

import pytest
import torch
from properties import E1, E2, close, every_check, gradients, tensor

from contrastloss import KoLeoLoss
from contrastloss.functional import koleo
from contrastloss.testing import CHECKS, Subject


def rows(n, d, generator):
    return [torch.randn(n, 7, generator=generator).double()]


@every_check
def test_properties(check, device):
    check(Subject(KoLeoLoss, {}, device, thorough=False, make=rows))


@pytest.mark.parametrize("chosen", [{}, {"normalize": False}], ids=str)
def test_on_every_backend(chosen, device, backend):
    CHECKS[0](Subject(KoLeoLoss, chosen, device, backend, make=rows))


def test_by_hand(device, backend):
    # unit vectors e1, e2, (0.6, 0.8): neighbours 2, 2 and 1, squared distances 0.8, 0.4 and 0.4
    z = tensor(E1, E2, [3, 4], device=device)
    options = {"reduction": "none", "eps": 1e-30, "backend": backend}
    close(koleo(z, **options), [-0.5 * log(0.8), -0.5 * log(0.4), -0.5 * log(0.4)])
    # without normalisation, the first two are neighbours at sqrt 2; the third's is the second
    plain = [-0.5 * log(2), -0.5 * log(2), -0.5 * log(18)]
    close(koleo(z, normalize=False, **options), plain)


def test_the_gradient_reaches_both_rows(device, backend):
    # d/da of -log |a - b| is -(a - b) / |a - b|^2
    z = tensor([0, 0], [3, 4], [100, 0], device=device, grad=True)
    loss = KoLeoLoss(1e-30, normalize=False, reduction="none", backend=backend)(z)
    close(gradients(loss[0], z)[0], [[3 / 25, 4 / 25], [-3 / 25, -4 / 25], [0, 0]])


def test_duplicates(device, backend):
    z = tensor(E1, E1, E2, device=device, grad=True)
    loss = koleo(z, reduction="none", backend=backend)
    close(loss, [-log(1e-8), -log(1e-8), -log(sqrt(2) + 1e-8)])
    (grad,) = gradients(loss[:2].sum(), z)
    assert not grad.any()


def test_near_duplicates_keep_their_digits(device, backend):
    z = torch.randn(6, 16, device=device)
    z = torch.cat([z, z + 1e-5 * torch.randn(6, 16, device=device)])
    got = koleo(z, reduction="none", backend=backend).double()
    torch.testing.assert_close(got, koleo(z.double(), reduction="none"), rtol=0, atol=0.02)


@pytest.mark.parametrize("n", [0, 1])
def test_fewer_than_two_rows_are_zero(n, device, backend):
    z = torch.randn(n, 3, device=device, requires_grad=True)
    loss = koleo(z, backend=backend)
    assert loss.item() == 0.0
    assert not gradients(loss, z)[0].any()


def test_errors():
    with pytest.raises(ValueError, match=r"^z: got shape \(3,\), expected \(N, D\)"):
        koleo(torch.ones(3))
