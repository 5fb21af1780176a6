"""BECLR's loss, with the properties of all losses and by hand."""

from math import exp, log

import pytest
import torch
from properties import E1, E2, close, every_check, gradients, tensor

from contrastloss import BECLRLoss
from contrastloss.functional import beclr
from contrastloss.testing import Subject


@every_check
def test_properties(check, device, backend):
    check(Subject(BECLRLoss, {"temperature": 0.5, "weight": 0.3}, device, backend, thorough=False))


def test_by_hand(device, backend):
    p = tensor([E1, E1], [E2, E2], device=device)
    t = tensor([E1, E2], [E2, E2], device=device)
    options = {"weight": 1.0, "temperature": 1.0, "backend": backend}
    # cosines 0, 1, 1, 1; of other instances' projections 0, 0 and 1, 1
    z = tensor([E1, E2], [E2, E2], device=device)
    want = log((2 + 2 * exp(1) + 2 * (1 + exp(1))) / 8)
    close(beclr(p, z, t, **options), -0.75 + want)
    close(beclr(p, z, t, **{**options, "weight": 0.0}), -0.75)
    close(beclr(p[:1], z[:1], t[:1], **options), -0.5)
    # stored: products 1 and 0 of the first row, 0 and 1 of the others, of which 1 is above
    stored = tensor(E1, E2, device=device, grad=True)
    found = beclr(p, z, t, stored=stored, **options)
    close(found, -0.75 + log(8 / 4 / 4))
    found = beclr(p, z, t, stored=stored, **options, threshold=1.5)
    close(found, -0.75 + log((4 * exp(1) + 4) / 4 / 8))
    close(beclr(p, z, t, stored=stored, **options, threshold=-1.5), -0.75)


@pytest.mark.parametrize("threshold", [-2.0, 0.2, 3.0])
def test_stored_negatives(threshold, device, backend):
    inputs = [v.requires_grad_() for v in Subject(BECLRLoss, {}, device).inputs(n=13, d=5)]
    stored = torch.randn(29, 5, device=device).double()
    loss = BECLRLoss(threshold=threshold, backend=backend)
    want = loss.reference(*inputs, stored=stored, temperature=2.0, weight=0.1, threshold=threshold)
    found = loss(*inputs, stored=stored)
    close(found, want)
    for got, expected in zip(*[gradients(v, *inputs[:2]) for v in (found, want)], strict=True):
        torch.testing.assert_close(got, expected, rtol=1e-9, atol=1e-12)


def test_errors(device):
    z = torch.ones(3, 2, 4, device=device)
    with pytest.raises(ValueError, match=r"teacher: got shape \(3, 1, 4\), expected .*\(3, 2, 4\)"):
        beclr(z, z, z[:, :1])
