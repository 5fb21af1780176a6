from math import e, exp, log

import pytest
import torch
from properties import E1, E2, close, every_check, gradients, tensor
from torch.nn.functional import normalize

from contrastloss import HardNegativeLoss, NTXentLoss
from contrastloss.functional import hard_negative
from contrastloss.testing import CHECKS, Subject

OPTIONS = [
    {"beta": 0.0},
    {"tau_plus": 0.0},
    {"beta": 2.5, "tau_plus": 0.3},
    {"detach_weights": True},
]


@every_check
def test_properties(check, device, backend):
    check(Subject(HardNegativeLoss, {}, device, backend))


@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_options(options, device, backend):
    for name in ("check_reference", "check_accuracy", "check_degenerate", "check_shapes"):
        check = next(c for c in CHECKS if c.__name__ == name)
        check(Subject(HardNegativeLoss, options, device, backend, thorough=False))


def test_gradient_of_constant_weights_by_hand(device, backend):
    # dot products, beta = 1, row x_0 = e1: P = 0 and negative scores log 2 and 0, hence
    # G = N = 2 (4 + 1) / (2 + 1) and dl/dG = 1 / (1 + G) = 3/13; the derivative of G by s is
    # G p^(2) with constant weights, else G (2 p^(2) - p^(1))
    x, y = tensor(E1, [log(2), 0], device=device, grad=True), tensor([0, 0], E2, device=device)
    for detached, want in ((True, [8 * log(2) / 13, 2 / 13]), (False, [28 * log(2) / 39, 2 / 39])):
        loss = HardNegativeLoss(
            1.0, tau_plus=0.0, normalize=False, reduction="none", backend=backend,
            detach_weights=detached,
        )  # fmt: skip
        (dx,) = gradients(loss(x, y)[0], x)
        close(dx[0], want)


def test_by_hand(device, backend):
    # z = [e1, e2, e1, e2]: P = 1, M = 2 negatives with score 0: G = 2 (1 + 1) / (1 + 1) = 2,
    # N = (2 - 0.1 * 2 e) / 0.9 = 1.618..., above the floor 2 / e
    x = tensor(E1, E2, device=device)
    rows = hard_negative(x, x, temperature=1.0, reduction="none", backend=backend)
    n = (2 - 0.2 * e) / 0.9
    assert n > 2 / e
    close(rows, [log(1 + n / e)] * 4)


def test_weights_by_hand(device, backend):
    # z = [e1, e2 | e1, e1], beta = 1: G = M sum e^2s / sum e^s
    # x_0: P = 1, negatives 0, 1: G = 2 (1 + e^2) / (1 + e)
    # x_1: P = 0, negatives 0, 0: G = 2, N = (2 - 0.2) / 0.9 = 2, loss log 3
    # y_1: P = 0, negatives 1, 1: G = 2 e
    x, y = tensor(E1, E2, device=device), tensor(E1, E1, device=device)
    rows = HardNegativeLoss(1.0, reduction="none", backend=backend)(x, y)
    first = (2 * (1 + e**2) / (1 + e) - 0.2 * e) / 0.9
    close(rows, [log(1 + first / e), log(3), log(1 + first / e), log(1 + (2 * e - 0.2) / 0.9)])


def test_the_floor_by_hand(device, backend):
    # tau+ = 0.9: (2 - 1.8 e) / 0.1 < 0, so N is its floor M e^(-1/tau) = 2 / e, and only the
    # positive has a gradient
    x = tensor(E1, E2, device=device)
    loss = HardNegativeLoss(1.0, tau_plus=0.9, reduction="none", backend=backend)
    close(loss(x, x), [log(1 + 2 / e / e)] * 4)


def test_the_floor_passes_no_gradient_to_negatives(device, backend):
    x, y = tensor(E1, E2, device=device, grad=True), tensor(E1, E2, device=device)
    loss = HardNegativeLoss(1.0, tau_plus=0.9, normalize=False, reduction="none", backend=backend)
    # row 0: l = log(1 + 2 e^(-1 - P)); dl/dP = -2 e^(-1-P) / (1 + 2 e^(-1-P)), dP/dx_0 = y_0
    t = 2 * exp(-2)
    (dx,) = gradients(loss(x, y)[0], x)
    close(dx, [[-t / (1 + t), 0], [0, 0]])


def test_beta_zero_is_the_debiased_loss(device, backend):
    """Chuang et al.: N = max((sum e^s - tau+ M e^P) / (1 - tau+), M e^(-1/tau))."""
    x, y = torch.randn(2, 11, 4, device=device, dtype=torch.float64)
    z, n, tau, prior = normalize(torch.cat([x, y])), 11, 0.5, 0.1
    s = z @ z.T / tau
    i = torch.arange(2 * n, device=device)
    p = s[i, (i + n) % (2 * n)].exp()
    total = s.exp().masked_fill(i[:, None] % n == i % n, 0.0).sum(1)
    m = 2 * n - 2
    negative = ((total - prior * m * p) / (1 - prior)).clamp_min(m * exp(-1 / tau))
    close(HardNegativeLoss(tau, beta=0.0, backend=backend)(x, y), (1 + negative / p).log().mean())


def test_without_both_it_is_nt_xent(device, backend):
    x, y = torch.randn(2, 11, 4, device=device, dtype=torch.float64)
    loss = HardNegativeLoss(0.2, beta=0.0, tau_plus=0.0, backend=backend)
    close(loss(x, y), NTXentLoss(0.2, backend=backend)(x, y))


def test_one_instance_is_zero(device, backend):
    x = torch.randn(1, 4, device=device, requires_grad=True)
    loss = HardNegativeLoss(backend=backend)(x, torch.randn(1, 4, device=device))
    assert loss.item() == 0.0
    assert not gradients(loss, x)[0].any()


@pytest.mark.parametrize(
    ("options", "name"),
    [({"beta": -1.0}, "beta"), ({"beta": float("nan")}, "beta"), ({"tau_plus": 1.0}, "tau_plus"),
     ({"tau_plus": -0.1}, "tau_plus")],
)  # fmt: skip
def test_bad_options(options, name):
    with pytest.raises(ValueError, match=f"^{name}: got .*, expected"):
        HardNegativeLoss(**options)


def test_far_negatives_at_a_low_temperature_have_finite_gradients(device, backend):
    # excess = -100: tau+ e^100 would overflow
    x = tensor(E1, E2, device=device).float().requires_grad_()
    loss = HardNegativeLoss(0.01, backend=backend)
    value = loss(x, x.detach())
    assert value.isfinite()
    assert gradients(value, x)[0].isfinite().all()


def test_a_bias_of_all_scores_changes_nothing(device, backend):
    x, y = torch.randn(2, 7, 5, device=device).double()
    loss = HardNegativeLoss(tau_plus=0.3, backend=backend)
    close(loss(x, y, logit_bias=-3.0), loss(x, y))
