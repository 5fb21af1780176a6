from math import exp, log

import pytest
import torch
from properties import E1, E2, close, every_check, gradients, tensor

from contrastloss import CLIPLoss, InfoNCELoss, LogitScale
from contrastloss.functional import clip
from contrastloss.testing import Subject


@every_check
def test_properties(check, device, backend):
    check(Subject(CLIPLoss, {}, device, backend))


def test_two_rows_by_hand(device, backend):
    # s = [[0.6, 1.0], [0.8, 0.0]]
    # rows:    log(1 + e^(1.0 - 0.6)), log(1 + e^(0.8 - 0.0))
    # columns: log(1 + e^(0.8 - 0.6)), log(1 + e^(1.0 - 0.0))
    x, y = tensor(E1, E2, device=device), tensor([0.6, 0.8], E1, device=device)
    rows = clip(x, y, temperature=1.0, reduction="none", backend=backend)
    close(rows[0], (log(1 + exp(0.4)) + log(1 + exp(0.2))) / 2)
    close(rows[1], (log(1 + exp(0.8)) + log(1 + exp(1.0))) / 2)


def test_is_the_mean_of_both_directions(device, backend):
    x, y = torch.randn(2, 13, 5, device=device, dtype=torch.float64)
    one = InfoNCELoss(0.2, backend=backend)
    close(CLIPLoss(0.2, backend=backend)(x, y), (one(x, y) + one(y, x)) / 2)


def test_is_symmetric(device, backend):
    x, y = torch.randn(2, 13, 5, device=device, dtype=torch.float64)
    loss = CLIPLoss(backend=backend)
    close(loss(x, y), loss(y, x))


def test_learns_its_temperature(device, backend):
    # positives score k, other pairs 0: loss = log(1 + e^-k), d/dk = -1/(1 + e^k),
    # and the parameter is log k: d/dlog k = -k / (1 + e^k)
    temperature = LogitScale(0.5).to(device)
    x = tensor(E1, E2, device=device)
    loss = CLIPLoss(backend=backend)(x, x, logit_scale=temperature())
    (grad,) = gradients(loss, temperature.log_scale)
    torch.testing.assert_close(loss.item(), log(1 + exp(-2)))
    torch.testing.assert_close(grad.item(), -2 / (1 + exp(2)))


@pytest.mark.parametrize("n", [1, 4])
def test_all_equal(n, device, backend):
    """With all pairs equal the loss is log N, with zero gradient by symmetry; for N = 1 it is 0."""
    x = torch.ones(n, 3, device=device, requires_grad=True)
    loss = CLIPLoss(0.01, backend=backend)(x, torch.ones(n, 3, device=device))
    torch.testing.assert_close(loss.item(), log(n), rtol=1e-6, atol=1e-6)
    assert gradients(loss, x)[0].abs().max() < 1e-5
