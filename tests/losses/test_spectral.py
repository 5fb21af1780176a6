import torch
from properties import E1, E2, close, every_check, gradients, tensor

from contrastloss import SpectralLoss
from contrastloss.functional import spectral
from contrastloss.testing import CHECKS, Subject


@every_check
def test_properties(check, device):
    check(Subject(SpectralLoss, {}, device, thorough=False))


def test_on_every_backend(device, backend):
    CHECKS[0](Subject(SpectralLoss, {}, device, backend))


def test_by_hand(device, backend):
    # s = [[0.6, 1, 1], [0.8, 0, 0], [0.6, 1, 1]]
    x, y = tensor(E1, E2, E1, device=device), tensor([0.6, 0.8], E1, E1, device=device)
    rows = spectral(x, y, reduction="none", backend=backend)
    close(rows, [-1.2 + 1.0, 0.64 / 2, -2.0 + 1.36 / 2])
    close(SpectralLoss(0.5, backend=backend)(x, y), (-2.4 + 4 + 1.28 - 4 + 2.72) / 3)


def test_gradient_by_hand(device, backend):
    # dot products: dl_0/dx_0 = 2 (s_01 y_1 + s_02 y_2) / 2 - 2 y_0
    x = tensor([1, 2], [0, 0], [0, 0], device=device, grad=True)
    y = tensor([1, 1], [3, 0], [0, -1], device=device)
    loss = SpectralLoss(normalize=False, reduction="none", backend=backend)(x, y)
    close(gradients(loss[0], x)[0], [[9 - 2, 2 - 2], [0, 0], [0, 0]])


def test_a_single_row_has_only_its_positive(device, backend):
    x, y = torch.randn(2, 1, 5, dtype=torch.float64, device=device)
    loss = SpectralLoss(normalize=False, backend=backend)(x, y)
    close(loss, -2 * (x * y).sum())
