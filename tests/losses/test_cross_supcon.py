from math import e, log

import pytest
import torch
from properties import E1, E2, close, every_check, tensor

from contrastloss import CLIPLoss, CrossSupConLoss
from contrastloss.functional import cross_supcon
from contrastloss.testing import CHECKS, Subject


@every_check
def test_properties(check, device):
    check(Subject(CrossSupConLoss, {}, device, thorough=False))


def test_on_every_backend(device, backend):
    CHECKS[0](Subject(CrossSupConLoss, {}, device, backend))


def test_by_hand(device, backend):
    # scores by row: 1, 0, 0 | 1, 0, 0 | 0, 1, 1
    x, y = tensor(E1, E1, E2, device=device), tensor(E1, E2, [0, 5], device=device)
    labels = torch.tensor([3, 3, 8], device=device)
    rows = cross_supcon(x, y, labels, temperature=1.0, reduction="none", backend=backend)
    one, two = log(e + 2), log(2 * e + 1)  # of a row or column with one score 1, or with two
    close(rows, [(one - 1 / 2 + two - 1) / 2, (one - 1 / 2 + one - 0) / 2, (two - 1 + one - 1) / 2])


def test_distinct_labels_are_clip(device, backend):
    x, y = torch.randn(2, 6, 4, device=device, dtype=torch.float64)
    got = cross_supcon(x, y, torch.arange(6, device=device), temperature=0.2, backend=backend)
    close(got, CLIPLoss(0.2, backend=backend)(x, y))


def test_errors(device):
    x = torch.ones(3, 2, device=device)
    with pytest.raises(ValueError, match="labels: got shape"):
        cross_supcon(x, x, torch.zeros(2, device=device).long())
    with pytest.raises(ValueError, match=r"y: got shape \(2, 2\), expected x's \(3, 2\)"):
        cross_supcon(x, x[:2], torch.zeros(3, device=device).long())
