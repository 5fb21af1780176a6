from math import e, exp, log

import torch
from properties import E1, E2, close, every_check, gradients, tensor

from contrastloss import BinaryNCELoss, SigLIPLoss
from contrastloss.functional import binary_nce
from contrastloss.testing import CHECKS, Subject


@every_check
def test_properties(check, device):
    check(Subject(BinaryNCELoss, {}, device, thorough=False))


def test_on_every_backend(device, backend):
    CHECKS[0](Subject(BinaryNCELoss, {}, device, backend))


def test_by_hand(device, backend):
    # s = [[0.6, 1, 1], [0.8, 0, 0], [0.6, 1, 1]]; the mean is over two negatives
    x, y = tensor(E1, E2, E1, device=device), tensor([0.6, 0.8], E1, E1, device=device)
    rows = binary_nce(x, y, reduction="none", backend=backend)
    close(rows[0], log(1 + exp(-0.6)) + log(1 + e))
    close(rows[1], log(2) + (log(1 + exp(0.8)) + log(2)) / 2)
    close(rows[2], log(1 + 1 / e) + (log(1 + exp(0.6)) + log(1 + e)) / 2)


def test_two_rows_are_siglip(device, backend):
    x, y = torch.randn(2, 2, 5, dtype=torch.float64, device=device)
    want = SigLIPLoss(0.3, bias=0.0, backend=backend)(x, y)
    close(BinaryNCELoss(0.3, backend=backend)(x, y), want)


def test_a_single_row_has_only_its_positive(device, backend):
    x, y = tensor(E1, device=device, grad=True), tensor(E2, device=device)
    loss = BinaryNCELoss(normalize=False, backend=backend)(x, y)
    close(loss, log(2))
    close(gradients(loss, x)[0], [[0.0, -0.5]])
