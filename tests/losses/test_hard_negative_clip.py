from math import e, exp, log

import pytest
import torch
from properties import E1, E2, close, every_check, gradients, tensor

from contrastloss import CLIPLoss, HardNegativeCLIPLoss
from contrastloss.functional import hard_negative_clip
from contrastloss.testing import CHECKS, Subject


@every_check
def test_properties(check, device):
    check(Subject(HardNegativeCLIPLoss, {}, device, thorough=False))


@pytest.mark.parametrize("options", [{}, {"beta": 2.5, "detach_weights": True}], ids=str)
def test_on_every_backend(options, device, backend):
    CHECKS[0](Subject(HardNegativeCLIPLoss, options, device, backend))


def test_by_hand(device, backend):
    # s = [[1, 1, 0], [0, 0, 1], [1, 1, 0]], M = 2, G = 2 sum e^2s / sum e^s
    x, y = tensor(E1, E2, E1, device=device), tensor(E1, E1, E2, device=device)
    options = {"temperature": 1.0, "tau_plus": 0.0, "reduction": "none", "backend": backend}
    mixed = 2 * (1 + e**2) / (1 + e)
    # row scores: (1, 0), (0, 1), (1, 1); column scores: (0, 1), (1, 1), (0, 1)
    by_row = [log(1 + mixed / e), log(1 + mixed), log(1 + 2 * e)]
    by_col = [log(1 + mixed / e), log(1 + 2 * e), log(1 + mixed)]
    rows = hard_negative_clip(x, y, **options)
    close(rows, [(a + b) / 2 for a, b in zip(by_row, by_col, strict=True)])


def test_the_floor_by_hand(device, backend):
    # s = identity: G = 1, and (1 - 0.9 e) / 0.1 < 0, so N = 1 / e in both directions
    x = tensor(E1, E2, device=device)
    loss = HardNegativeCLIPLoss(1.0, tau_plus=0.9, reduction="none", backend=backend)
    close(loss(x, x), [log(1 + exp(-2))] * 2)


def test_without_both_it_is_clip(device, backend):
    x, y = torch.randn(2, 11, 4, device=device, dtype=torch.float64)
    loss = HardNegativeCLIPLoss(0.2, beta=0.0, tau_plus=0.0, backend=backend)
    close(loss(x, y), CLIPLoss(0.2, backend=backend)(x, y))


def test_one_row_is_zero(device, backend):
    x = torch.randn(1, 4, device=device, requires_grad=True)
    loss = HardNegativeCLIPLoss(backend=backend)(x, torch.randn(1, 4, device=device))
    assert loss.item() == 0.0
    assert not gradients(loss, x)[0].any()


@pytest.mark.parametrize("options", [{"beta": -1.0}, {"tau_plus": 1.0}], ids=str)
def test_bad_options(options):
    with pytest.raises(ValueError, match=f"^{next(iter(options))}: got .*, expected"):
        HardNegativeCLIPLoss(**options)
