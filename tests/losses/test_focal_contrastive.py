from math import e, log

import pytest
import torch
from properties import E1, E2, close, every_check, gradients, tensor

from contrastloss import FocalContrastiveLoss
from contrastloss.functional import focal_contrastive
from contrastloss.testing import CHECKS, Subject


@every_check
def test_properties(check, device):
    check(Subject(FocalContrastiveLoss, {}, device, thorough=False))


@pytest.mark.parametrize("divisor", ["positives", "batch"])
def test_on_every_backend(divisor, device, backend):
    CHECKS[0](Subject(FocalContrastiveLoss, {"divisor": divisor}, device, backend))


def test_by_hand(device, backend):
    # rows 0 and 1: scores 1, 0, 0; those of positives are 1 and 0. Row 2: scores 0, 0, 1,
    # positives 0 and 0. Row 3 has no positive.
    z = tensor(E1, E1, E2, E2, device=device)
    labels = torch.tensor([0, 0, 0, 1], device=device)
    near, far = e / (e + 2), 1 / (e + 2)
    terms = [-(1 - p) * log(p) for p in (near, far)]
    options = {"temperature": 1.0, "backend": backend}
    rows = focal_contrastive(z, labels, reduction="none", **options)
    close(rows, [sum(terms) / 2, sum(terms) / 2, terms[1], 0.0])
    close(focal_contrastive(z, labels, **options), (sum(terms) + terms[1]) / 3)
    # divided by the four rows of the batch
    batch = focal_contrastive(z, labels, divisor="batch", reduction="none", **options)
    close(batch, [sum(terms) / 4, sum(terms) / 4, 2 * terms[1] / 4, 0.0])


def test_without_positives(device, backend):
    for n in (1, 4):
        z = torch.randn(n, 3, device=device, requires_grad=True)
        loss = focal_contrastive(z, torch.arange(n, device=device), backend=backend)
        assert loss.item() == 0.0
        assert not gradients(loss, z)[0].any()


def test_only_positives(device, backend):
    """One other row, with the same label: p = 1, and the loss is 0."""
    z = tensor(E1, E2, device=device, grad=True)
    loss = focal_contrastive(z, torch.zeros(2, device=device).long(), backend=backend)
    close(loss, 0.0)
    assert not gradients(loss, z)[0].any()


def test_errors(device):
    z = torch.ones(3, 2, device=device)
    with pytest.raises(ValueError, match="labels: got shape"):
        focal_contrastive(z, torch.zeros(2, device=device).long())
    with pytest.raises(ValueError, match="z: got NaN or infinity in 3 of 3 rows"):
        focal_contrastive(z / 0, torch.zeros(3, device=device).long(), validate=True)
