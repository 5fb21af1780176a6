from math import e, exp, log, tanh

import pytest
import torch
from properties import E1, E2, close, every_check, gradients, tensor

from contrastloss import AdaMEOWLoss
from contrastloss.functional import ada_meow
from contrastloss.losses import ada_meow as module
from contrastloss.testing import Subject


@every_check
def test_properties(check, device):
    check(Subject(AdaMEOWLoss, {}, device, thorough=False))


def test_by_hand(device):
    x, y = tensor(E1, E2, device=device), tensor([3, 0], E1, device=device)
    weight = tensor([1, 0], [0, 2], device=device)
    bias, v = tensor(0.5, 0, device=device), tensor(1, 3, device=device)

    def log_w(first, second):
        return -log(1 + exp(-(tanh(first + 0.5) + 3 * tanh(2 * second))))

    # x_0 + y_j = (2, 0) for both j, with score 1; x_1 + y_j = (1, 1), with score 0
    rows = ada_meow(x, y, weight, bias, v, temperature=1.0, reduction="none")
    close(rows, [log(2 * e) + log_w(2, 0) - 1, log(2) + log_w(1, 1)])


def test_gradients_of_the_network(device, monkeypatch):
    """Also when computed in many parts of one or two rows."""
    x, y, *params = Subject(AdaMEOWLoss, {}, device).inputs(n=7)
    leaves = [p.clone().requires_grad_() for p in params]
    want = AdaMEOWLoss.reference(x, y, *leaves, scale=2.0, bias=0.0, normalize=True).mean()
    dense = gradients(want, *leaves)
    for held in (1 << 21, 70, 1):
        monkeypatch.setattr(module, "_HELD", held)
        got = ada_meow(x, y, *leaves)
        close(got, want)
        for ours, theirs in zip(gradients(got, *leaves), dense, strict=True):
            torch.testing.assert_close(ours, theirs, rtol=1e-10, atol=1e-12)


def test_bias_of_the_second_layer(device):
    x, y, *params = Subject(AdaMEOWLoss, {}, device).inputs(n=7)
    leaves = [p.clone().requires_grad_() for p in params]
    c = torch.full((1,), -0.7, dtype=torch.float64, device=device, requires_grad=True)
    reference = AdaMEOWLoss.reference(
        x, y, *leaves, scale=2.0, bias=0.0, normalize=True, v_bias=c
    ).mean()
    got = ada_meow(x, y, *leaves, v_bias=c)
    close(got, reference)
    for ours, theirs in zip(
        gradients(got, *leaves, c), gradients(reference, *leaves, c), strict=True
    ):
        torch.testing.assert_close(ours, theirs, rtol=1e-10, atol=1e-12)
    with pytest.raises(ValueError, match=r"v_bias: got shape \(2,\), expected \(1,\)"):
        ada_meow(x, y, *params, v_bias=c.expand(2))


def test_weights_do_not_underflow(device):
    x = torch.randn(5, 3, device=device, requires_grad=True)
    weight, bias, v = (torch.ones(s, device=device) * 40 for s in ((2, 3), (2,), (2,)))
    loss = ada_meow(x, x, 0 * weight, bias, -200 * v)  # a weight of about e^-16000
    assert loss.isfinite()
    assert gradients(loss, x)[0].isfinite().all()


def test_errors(device):
    x = torch.ones(3, 2, device=device)
    with pytest.raises(ValueError, match=r"weight: got shape \(3, 1\), expected \(H, 2\)"):
        ada_meow(x, x, x[:, :1], x[:, 0], x[:, 0])
    with pytest.raises(ValueError, match=r"v: got shape \(2,\), expected bias' \(3,\)"):
        ada_meow(x, x, x, x[:, 0], x[0])
    with pytest.raises(TypeError, match=r"bias: got dtype torch.int64, expected one of"):
        ada_meow(x, x, x, x[:, 0].long(), x[:, 0])
