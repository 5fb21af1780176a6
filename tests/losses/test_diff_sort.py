from math import atan, log, pi

import pytest
import torch
from properties import close, every_check, gradients, tensor

from contrastloss import DiffSortLoss
from contrastloss.functional import diff_sort
from contrastloss.testing import Subject


def scores(n, d, generator):
    """Scores that are partly in order, and their targets."""
    n = max(n, 1)
    target = torch.stack([torch.randperm(n, generator=generator) for _ in range(3)])
    x = torch.randn(3, n, generator=generator).double() + target / n
    return [x, target]


CASES = [
    Subject(DiffSortLoss, options, thorough=False, make=scores)
    for options in ({}, {"network": "bitonic", "distribution": "logistic", "steepness": 1.0})
]


pytestmark = pytest.mark.operators("sort_network")


@every_check
@pytest.mark.parametrize("case", CASES, ids=lambda c: str(c.options))
def test_properties(check, case, device, backend):
    check(case.on(device, backend))


def test_by_hand(device, backend):
    x = tensor([1, 3], [3, 1], device=device)
    right = 0.5 + atan(2 * 2.0) / pi  # the mass of the correct order
    for target in (tensor([0, 1], [0, 1], device=device), torch.tensor([[-7, 2]] * 2)):
        rows = diff_sort(x, target.to(device), steepness=2.0, reduction="none", backend=backend)
        close(rows, [-log(right), -log(1 - right)])


def test_equal_targets_share_their_ranks(device, backend):
    """Two equal targets may be in either order; if all are equal, the loss is 0 for any order."""
    x = tensor(1, 3, 2, device=device)
    loss = DiffSortLoss(steepness=1e6, distribution="logistic", backend=backend)
    for target in ([0, 0, 0], [0, 1, 0], [1, 2, 1]):
        close(loss(x, torch.tensor(target, device=device)), 0.0)
    assert loss(x, torch.tensor([1, 0, 0], device=device)) > 10


def test_a_worse_order_has_a_larger_loss_that_the_gradient_reduces(device, backend):
    x = tensor(0.0, 0.1, 0.2, device=device, grad=True)
    loss, target = DiffSortLoss(backend=backend), torch.tensor([2, 1, 0], device=device)
    value = loss(x, target)
    assert value > loss(x.flip(0), target)
    (dx,) = gradients(value, x)
    assert dx[0] < 0 < dx[2]


def test_zero_mass_gives_a_finite_loss(device, backend):
    x = torch.tensor([1e4, 0.0], device=device, requires_grad=True)
    loss = DiffSortLoss(distribution="logistic", backend=backend)
    value = loss(x, torch.tensor([0, 1], device=device))
    assert value.item() == pytest.approx(-log(torch.finfo(torch.float32).tiny))
    assert gradients(value, x)[0].isfinite().all()


def test_empty_input(device, backend):
    x = torch.zeros(0, 3, device=device, requires_grad=True)
    assert DiffSortLoss(backend=backend)(x, x.detach()).item() == 0.0
    close(DiffSortLoss(backend=backend)(tensor([5], device=device), tensor([1], device=device)), 0)


ERRORS = [
    (torch.ones(3, 4), torch.ones(4), ValueError, r"target: got shape \(4,\), expected x's"),
    (torch.ones(3), [1, 2, 3], TypeError, "target: got list, expected a tensor"),
    (torch.ones(3).long(), torch.ones(3), TypeError, "x: got dtype torch.int64, expected"),
    (torch.tensor(1.0), torch.tensor(1.0), ValueError, r"x: got shape \(\), expected"),
    (torch.ones(3, 0), torch.ones(3, 0), ValueError, r"x: got shape \(3, 0\), expected"),
    (torch.tensor([1.0, torch.nan]), torch.ones(2), ValueError, "x: got NaN, expected numbers"),
]


@pytest.mark.parametrize(("x", "target", "kind", "message"), ERRORS)
def test_errors(x, target, kind, message):
    with pytest.raises(kind, match=f"^{message}"):
        DiffSortLoss()(x, target)
