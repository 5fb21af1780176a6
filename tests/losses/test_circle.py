from math import exp, log1p

import pytest
import torch
from properties import E1, E2, close, every_check, tensor

from contrastloss import CircleLoss
from contrastloss.functional import circle
from contrastloss.testing import Subject


@every_check
@pytest.mark.parametrize("options", [{"gamma": 8.0}, {"m": 0.25, "gamma": 20.0}], ids=str)
def test_properties(check, options, device, backend):
    check(Subject(CircleLoss, options, device, backend, thorough="m" not in options))


def test_by_hand(device, backend):
    # rows 0 and 1: positive score 1, negative score 0; row 2 has no positive and is not counted
    z = tensor(E1, E1, E2, device=device).requires_grad_()
    labels = torch.tensor([0, 0, 1], device=device)
    near, far = exp(-4 * 0.4 * 0.4), exp(4 * 0.4 * -0.4)
    want = log1p(near * far)
    rows = circle(z, labels, m=0.4, gamma=4, reduction="none", backend=backend)
    close(rows, [want, want, 0.0])
    close(CircleLoss(0.4, 4, backend=backend)(z, labels), want)
    # d loss / d s_02 = share * gamma * weight; both rows of a pair contribute
    (grad,) = torch.autograd.grad(circle(z, labels, gamma=4, backend=backend), z)
    share = near * far / (1 + near * far)
    close(grad[0], [0.0, share * 4 * 0.4 / 2])


@pytest.mark.parametrize("options", [{}, {"m": 0.25, "gamma": 256.0}], ids=str)
def test_matches_pytorch_metric_learning(options, device, backend):
    from pytorch_metric_learning import losses

    found = []
    for loss in (CircleLoss(**options, backend=backend), losses.CircleLoss(**options)):
        z, labels = Subject(CircleLoss, device=device).inputs(n=30)
        labels[0] = 99  # without positive
        z = z.detach().requires_grad_()
        value = loss(z, labels)
        found.append((value, torch.autograd.grad(value, z)[0]))
    for ours, theirs in zip(*found, strict=True):
        close(ours, theirs)


def test_without_positives_or_without_negatives(device, backend):
    z = torch.randn(4, 3, device=device, requires_grad=True)
    for labels in (torch.arange(4, device=device), torch.zeros(4, device=device).long()):
        loss = circle(z, labels, backend=backend)
        assert loss.item() == 0
        (grad,) = torch.autograd.grad(loss, z)
        assert (grad == 0).all()


def test_errors(device):
    with pytest.raises(ValueError, match=r"^m: got inf, expected a finite number"):
        CircleLoss(m=float("inf"))
