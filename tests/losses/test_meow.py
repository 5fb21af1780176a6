from math import e, log

import pytest
import torch
from properties import E1, E2, close, every_check, gradients, tensor

from contrastloss import MEOWLoss
from contrastloss.functional import meow
from contrastloss.testing import CHECKS, Subject


@every_check
def test_properties(check, device):
    check(Subject(MEOWLoss, {}, device, thorough=False))


def test_on_every_backend(device, backend):
    CHECKS[0](Subject(MEOWLoss, {}, device, backend))


def test_by_hand(device, backend):
    x, y = tensor(E1, E1, E2, device=device), tensor(E1, E2, E2, device=device)
    clusters = torch.tensor([[0, 0, 1], [0, 5, 1], [3, 5, 1]], device=device)
    # clusterings that differ: rows 0 and 1: 1; rows 0 and 2: 2; rows 1 and 2: 1
    rows = meow(x, y, clusters, temperature=1.0, reduction="none", backend=backend)
    close(rows, [log(1 + 2) - 1, log(e + 1), log(0 + 2 * 1 + e) - 1])
    # one clustering, with the first two rows in one cluster
    rows = meow(x, y, clusters[:, :1], temperature=1.0, reduction="none", backend=backend)
    close(rows, [log(1) - 1, log(1), log(1 + e) - 1])


def test_without_negatives(device, backend):
    x, y = torch.randn(2, 4, 3, device=device, requires_grad=True)
    loss = meow(x, y, torch.ones(4, 2, device=device).long(), backend=backend)
    assert loss.item() == 0.0
    assert not any(grad.any() for grad in gradients(loss, x, y))


def test_errors(device):
    x = torch.ones(3, 2, device=device)
    with pytest.raises(
        TypeError, match=r"clusters: got dtype torch.float32, expected an integer one"
    ):
        meow(x, x, x)
    for bad in (x[:, 0], x[:2], x.repeat(1, 9)):
        with pytest.raises(ValueError, match=r"clusters: got shape .*, expected \(3, T\)"):
            meow(x, x, bad.long())
