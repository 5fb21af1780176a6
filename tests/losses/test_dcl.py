from math import e, exp, log

import pytest
import torch
from properties import E1, E2, close, every_check, gradients, tensor

from contrastloss import DCLLoss
from contrastloss.functional import dcl
from contrastloss.testing import Subject

OPTIONS = [{}, {"weight": 0.5}, {"weight": 0.5, "detach_weight": False}]


@every_check
@pytest.mark.parametrize("options", OPTIONS, ids=["dcl", "dclw", "dclw-differentiated"])
def test_properties(check, options, device, backend):
    if check.__name__ == "check_gradients" and options and options.get("detach_weight", True):
        pytest.skip("a detached weight is no derivative")
    check(Subject(DCLLoss, options, device, backend, thorough=False))


def test_by_hand(device, backend):
    # z = [e1, e2, e1, e2]: the positive scores 1 and is not in the denominator 1 + 1
    x = tensor(E1, E2, device=device)
    close(dcl(x, x, temperature=1.0, reduction="none", backend=backend), [log(2) - 1] * 4)


def test_weights_by_hand(device, backend):
    # z = [e1, e2 | e1, e1]; cos(x_i, y_i) = 1, 0; softmax = e/(e+1), 1/(e+1); w_i = 2 - 2 softmax_i
    # x_0: positive 1, negatives 0, 1;   x_1: positive 0, negatives 0, 0
    # y_0: positive 1, negatives 0, 1;   y_1: positive 0, negatives 1, 1
    x, y = tensor(E1, E2, device=device), tensor(E1, E1, device=device)
    rows = DCLLoss(1.0, weight=1.0, reduction="none", backend=backend)(x, y)
    w = 2 - 2 * e / (e + 1)
    close(rows, [log(1 + e) - w, log(2), log(1 + e) - w, log(2 * e)])


def test_weights_use_cosines_not_scores(device, backend):
    """Temperature and bias do not affect the weight."""
    x, y = tensor(E1, E2, device=device), tensor(E1, E1, device=device)
    loss = DCLLoss(0.5, weight=1.0, reduction="none", backend=backend)
    w = 2 - 2 * e / (e + 1)
    close(loss(x, y)[0], log(1 + exp(2)) - 2 * w)
    close(loss(x, y, logit_bias=3.0)[0], log(exp(3) + exp(5)) - 5 * w)


def test_a_detached_weight_is_a_constant(device, backend):
    x, y = (v.to(device).requires_grad_() for v in torch.randn(2, 6, 3).double())
    constant, differentiated = (
        DCLLoss(weight=0.5, detach_weight=flag, backend=backend) for flag in (True, False)
    )
    close(constant(x, y), differentiated(x, y))
    a, b = gradients(constant(x, y), x), gradients(differentiated(x, y), x)
    assert (a[0] - b[0]).norm() > 1e-3 * b[0].norm()


def test_one_instance_is_zero(device, backend):
    """Without negatives the loss is 0 instead of -inf, without gradient."""
    x = torch.randn(1, 4, device=device, requires_grad=True)
    loss = DCLLoss(backend=backend)(x, torch.randn(1, 4, device=device))
    assert loss.item() == 0.0
    assert not gradients(loss, x)[0].any()
