from math import e, log

import torch
from properties import E1, E2, close, every_check, gradients, tensor

from contrastloss import NTXentLoss
from contrastloss.functional import nt_xent
from contrastloss.testing import Subject


@every_check
def test_properties(check, device, backend):
    check(Subject(NTXentLoss, {}, device, backend))


def test_by_hand(device, backend):
    # z = [e1, e2, e1, e2]: each row has a positive score 1 and two negative scores 0
    x = tensor(E1, E2, device=device)
    rows = nt_xent(x, x, temperature=1.0, reduction="none", backend=backend)
    close(rows, [log(e + 2) - 1] * 4)


def test_rows_come_in_the_order_of_the_views(device, backend):
    # z = [e1, e2 | e1, e1]
    # x_0 = e1: positive y_0 scores 1; negatives x_1: 0 and y_1: 1       log(e + 1 + e) - 1
    # x_1 = e2: positive y_1 scores 0; negatives x_0: 0 and y_0: 0       log 3
    # y_0 = e1: positive x_0 scores 1; negatives x_1: 0 and y_1: 1       log(e + 1 + e) - 1
    # y_1 = e1: positive x_1 scores 0; negatives x_0: 1 and y_0: 1       log(1 + e + e)
    x, y = tensor(E1, E2, device=device), tensor(E1, E1, device=device)
    rows = NTXentLoss(1.0, reduction="none", backend=backend)(x, y)
    own = log(2 * e + 1)
    close(rows, [own - 1, log(3), own - 1, own])


def test_one_instance_has_no_negative(device, backend):
    x = torch.randn(1, 7, device=device, requires_grad=True)
    loss = NTXentLoss(backend=backend)(x, torch.randn(1, 7, device=device))
    assert loss.item() == 0.0
    assert not gradients(loss, x)[0].any()


def test_views_can_be_swapped(device, backend):
    x, y = torch.randn(2, 9, 4, device=device, dtype=torch.float64)
    loss = NTXentLoss(backend=backend)
    close(loss(x, y), loss(y, x))


def test_a_sharp_temperature_neither_overflows_nor_leaks(device, backend):
    """tau = 0.001, scores up to 1000: the loss is determined by the hardest negative alone."""
    x, y = tensor(E1, E2, device=device), tensor([0.6, 0.8], [0.8, 0.6], device=device)
    # x_0 = e1: positive 600, negatives 0 and 800. x_1: 600, 800. y: 600, and 800 or 960
    rows = NTXentLoss(0.001, reduction="none", backend=backend)(x.float(), y.float())
    want = torch.tensor([200.0, 200.0, 360.0, 360.0], device=device)
    torch.testing.assert_close(rows, want, rtol=1e-5, atol=1e-4)
