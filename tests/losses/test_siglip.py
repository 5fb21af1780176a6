from math import exp, log

import pytest
import torch
from properties import E1, E2, close, every_check, gradients, tensor
from torch import nn

from contrastloss import SigLIPLoss
from contrastloss.functional import siglip
from contrastloss.testing import Subject


@every_check
@pytest.mark.parametrize("options", [{}, {"bias": -0.3}], ids=str)
def test_properties(check, options, device, backend):
    check(Subject(SigLIPLoss, options, device, backend, thorough=not options))


def test_by_hand(device, backend):
    # s = [[0, -1], [-1, 0]]: positive term log(1 + e^-0), negative term log(1 + e^-1)
    x = tensor(E1, E2, device=device)
    rows = siglip(x, x, temperature=1.0, bias=-1.0, reduction="none", backend=backend)
    close(rows, [log(2) + log(1 + exp(-1))] * 2)


def test_mean_is_over_rows_not_pairs(device, backend):
    x = tensor(E1, E2, device=device)
    mean, total = (
        SigLIPLoss(1.0, -1.0, reduction=r, backend=backend)(x, x) for r in ("mean", "sum")
    )
    close(total, 2 * (log(2) + log(1 + exp(-1))))
    close(mean, total.item() / 2)


@pytest.mark.parametrize("how", ["option", "logit_bias"])
def test_gradient_of_the_bias(how, device, backend):
    # dl/db = sum over pairs of sigmoid(s_ij) for negatives, -sigmoid(-s_ii) for positives; per row
    # with N = 2: sigmoid(-1) - sigmoid(-0) = 1 / (1 + e) - 1/2
    x = tensor(E1, E2, device=device)
    bias = nn.Parameter(torch.tensor(-1.0, dtype=torch.float64, device=device))
    if how == "option":
        loss = SigLIPLoss(1.0, bias, backend=backend)(x, x)
    else:
        loss = SigLIPLoss(1.0, 99.0, backend=backend)(x, x, logit_bias=bias)
    close(gradients(loss, bias)[0], 1 / (1 + exp(1)) - 0.5)


def test_a_learnable_bias_is_a_parameter(device):
    loss = SigLIPLoss(bias=nn.Parameter(torch.tensor(-10.0, device=device)))
    assert [name for name, _ in loss.named_parameters()] == ["bias"]
    assert list(loss.state_dict()) == ["bias"]


def test_one_pair(device, backend):
    """Without negatives only the positive term is left, log(1 + e^-(1 - 10))."""
    x = tensor(E1, device=device)
    close(SigLIPLoss(1.0, backend=backend)(x, x), log(1 + exp(9)))


def test_large_scores_are_exact(device, backend):
    """softplus(990) is 990 and softplus(-1010) is 0; neither overflows."""
    x = tensor(E1, E2, device=device).float().requires_grad_()
    loss = SigLIPLoss(0.001, backend=backend)(x, -x.detach())
    assert loss.item() == pytest.approx(1010.0, rel=1e-6)
    assert gradients(loss, x)[0].isfinite().all()
