from math import e, log

import pytest
import torch
from properties import E1, E2, close, every_check, gradients, tensor

from contrastloss import HierarchicalContrastiveLoss, NTXentLoss
from contrastloss.functional import hierarchical_contrastive
from contrastloss.testing import CHECKS, Subject


@every_check
def test_properties(check, device):
    check(Subject(HierarchicalContrastiveLoss, {"alpha": 0.3}, device, thorough=False))


def test_on_every_backend(device, backend):
    CHECKS[0](Subject(HierarchicalContrastiveLoss, {}, device, backend))


def test_by_hand(device):
    # two series of two steps, both views [e1, e2] and [e1, e1]. At step 1 all four rows are e1:
    # log 3. At step 2 they are e2, e1, e2, e1: log(e + 2) - 1. Steps of series 1: the same four,
    # log(e + 2) - 1; of series 2: all e1, log 3. Pooled: (1, 1) and (1, 0), with scores 2 and 1
    # with themselves and 1 with each other: log(e^2 + 2e) - 2 and log(3e) - 1
    x = torch.stack([tensor(E1, E2), tensor(E1, E1)]).to(device)
    mixed, alike = log(e + 2) - 1, log(3)
    top = log(e**2 + 2 * e) - 2, log(3 * e) - 1
    instance = (mixed + alike) / 2
    rows = hierarchical_contrastive(x, x, alpha=0.25, reduction="none")
    close(
        rows,
        [
            (0.25 * instance + 0.75 * mixed + 0.25 * top[0]) / 2,
            (0.25 * instance + 0.75 * alike + 0.25 * top[1]) / 2,
        ],
    )


def test_one_time_is_nt_xent(device):
    x, y = torch.randn(2, 6, 1, 4, device=device, dtype=torch.float64)
    loss = HierarchicalContrastiveLoss(1.0, temperature=0.2, normalize=True)
    close(loss(x, y), NTXentLoss(0.2)(x[:, 0], y[:, 0]))


def test_an_odd_last_time_is_not_pooled(device):
    """An odd last step affects the first level only."""
    x = torch.randn(4, 3, 2, device=device, dtype=torch.float64)
    loss = HierarchicalContrastiveLoss(1.0)
    first = sum(NTXentLoss(1.0, normalize=False)(x[:, t], x[:, t]) for t in range(3)) / 3
    top = x[:, :2].amax(1)
    close(loss(x, x), (first + NTXentLoss(1.0, normalize=False)(top, top)) / 2)


def test_one_series_at_one_time_is_zero(device):
    x = torch.randn(1, 1, 4, device=device, requires_grad=True)
    value = HierarchicalContrastiveLoss()(x, x.detach())
    assert value.item() == 0.0
    assert not gradients(value, x)[0].any()


def test_errors():
    x, loss = torch.randn(4, 5, 3), HierarchicalContrastiveLoss()
    for bad, message in (
        (x[0], r"got shape \(5, 3\), expected \(B, T, D\)"),
        (x[:, :0], r"got shape \(4, 0, 3\), expected \(B, T, D\)"),
    ):
        with pytest.raises(ValueError, match=f"^x: {message}"):
            loss(bad, bad)
    with pytest.raises(ValueError, match=r"^y: got shape \(4, 4, 3\), expected x's \(4, 5, 3\)"):
        loss(x, x[:, 1:])
    with pytest.raises(TypeError, match=r"^y: got dtype torch.float64, expected x's"):
        loss(x, x.double())
