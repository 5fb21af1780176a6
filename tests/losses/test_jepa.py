from math import sqrt

import pytest
import torch
from properties import E1, E2, close, every_check, gradients, tensor

from contrastloss import JEPALoss
from contrastloss.functional import jepa
from contrastloss.testing import CHECKS, Subject


def maps(n, d, generator):
    """Two maps; some features have standard deviations above gamma."""
    target, noise, context = torch.randn(3, 2, n, 6, generator=generator).double()
    context = context * torch.linspace(0.2, 1.4, 6, dtype=torch.float64)
    occupied, hidden = torch.rand(2, 2, n, generator=generator) < 0.6
    return [target + noise, target, context, occupied, hidden]


OPTIONS = {"gamma": 0.8, "beta": 2.0, "alpha": 3.0, "stop_gradient": False}


@every_check
def test_properties(check, device):
    check(Subject(JEPALoss, OPTIONS, device, thorough=False, make=maps))


def test_variances_of_unit_vectors(device):
    CHECKS[0](Subject(JEPALoss, {**OPTIONS, "normalize": True}, device, make=maps))
    prediction, target, context, *cells = Subject(JEPALoss, OPTIONS, device, make=maps).inputs()
    one = jepa(3 * prediction, target, 5 * context, *cells, normalize=True)
    unit = (torch.nn.functional.normalize(v, dim=-1) for v in (prediction, target, context))
    close(one, jepa(*unit, *cells))
    assert one.item() != jepa(prediction, target, context, *cells).item()


def test_by_hand(device):
    prediction = tensor(E1, E1, [1, 1], E2, device=device)
    target = tensor(E1, E2, E1, E1, device=device)
    context = tensor([0], [0.02], [5], [7], device=device)
    occupied = torch.tensor([True, True, False, False], device=device)
    # cosines 1, 0 | sqrt(1/2), 0; variances 2e-4 for the context, 0 for the prediction
    cells = 0.75 * (0 + 1) / 2 + 0.25 * (2 - sqrt(0.5)) / 2
    spread = 1 / 16 - sqrt(3e-4) + 1 / 16 - sqrt(1e-4)
    close(jepa(prediction, target, context, occupied), cells + spread)
    close(
        jepa(prediction, target, context, occupied, alpha=2.0, beta=10.0), 2 * cells + 10 * spread
    )
    # only cell 0 is visible; among the hidden cells, 1 is occupied and 2 is empty
    hidden = torch.tensor([False, True, True, False], device=device)
    cells = 0.75 * 1 + 0.25 * (1 - sqrt(0.5))
    close(jepa(prediction, target, context, occupied, hidden), cells + 2 * (1 / 16 - 0.01))


def test_without_cells(device):
    x = torch.randn(2, 5, 3, dtype=torch.float64, device=device, requires_grad=True)
    none = torch.zeros(2, 5, dtype=torch.bool, device=device)
    value = jepa(x, x, x, none, none)
    assert value.item() == 0.0
    assert not gradients(value, x)[0].any()
    # a single cell in one of two maps: half of both hinges
    one = none.clone()
    one[0, 0] = True
    value = jepa(x, x, x, one)
    close(value, 1 / 16 - 0.01)
    assert gradients(value, x)[0].isfinite().all()
    assert jepa(x[:, :0], x[:, :0], x[:, :0], none[:, :0]).item() == 0.0
    assert jepa(x[:0], x[:0], x[:0], none[:0]).item() == 0.0


def test_the_target_is_a_constant(device):
    target = torch.ones(3, 2, device=device, requires_grad=True)
    fixed = target.detach()
    occupied = torch.ones(3, dtype=torch.bool, device=device)
    assert not jepa(fixed, target, fixed, occupied).requires_grad


def test_errors(device):
    x, occupied = torch.ones(3, 2, device=device), torch.ones(3, dtype=torch.bool, device=device)
    with pytest.raises(ValueError, match=r"^occupied_weight: got 2, expected a number from 0 to 1"):
        JEPALoss(occupied_weight=2)
    with pytest.raises(ValueError, match=r"^target: got shape \(2, 2\), expected prediction's"):
        jepa(x, x[:2], x, occupied)
    with pytest.raises(ValueError, match=r"^context: got shape \(2, 2\), expected \(3, C\)"):
        jepa(x, x, x[:2], occupied)
    with pytest.raises(TypeError, match=r"^occupied: got dtype torch.float32, expected torch.bool"):
        jepa(x, x, x, occupied.float())
    with pytest.raises(ValueError, match=r"^hidden: got shape \(2,\), expected \(3,\)"):
        jepa(x, x, x, occupied, occupied[:2])
