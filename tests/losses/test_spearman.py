from math import sqrt

import pytest
import torch
from properties import close, every_check, gradients, tensor

from contrastloss import SpearmanLoss
from contrastloss.functional import spearman
from contrastloss.testing import Subject


def scores(n, d, generator):
    """Scores, and targets of which some are equal."""
    rows, n = min(n, 3), max(n, 1)
    target = torch.randint(0, n, (rows, n), generator=generator)
    target[:, 0] = n
    return [torch.randn(rows, n, generator=generator).double() + target / n, target]


CASES = [
    Subject(SpearmanLoss, options, thorough=False, make=scores)
    for options in ({"strength": 0.3}, {"strength": 2.0, "regularization": "kl"})
]


@pytest.mark.parametrize("case", CASES, ids=lambda c: str(c.options))
@every_check
def test_properties(check, case, device):
    check(case.on(device))


def test_by_hand(device):
    # soft ranks 1.3, 1.7, 3 and target ranks 1.5, 1.5, 3, both with mean 2
    x, target = tensor(0, 0.4, 9, device=device), torch.tensor([5, 5, 7], device=device)
    want = 1 - (0.7 * 0.5 + 0.3 * 0.5 + 1) / sqrt((0.49 + 0.09 + 1) * 1.5)
    close(spearman(x, target), want)


def test_from_right_to_wrong_order(device):
    x, target = tensor(0, 2, 4, 6, 8, device=device), torch.arange(5, device=device)
    rows = torch.stack([x, x.flip(0)])
    close(SpearmanLoss(reduction="none")(rows, target.expand(2, 5)), [0, 2])


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("size", [1, 7])
def test_equal_scores_or_targets_have_no_correlation(size, dtype, device):
    same = torch.full((size,), 0.1, dtype=dtype, device=device)
    for x, target in ((same, torch.arange(size, device=device)), (same.cumsum(0), same)):
        leaf = x.clone().requires_grad_()
        value = SpearmanLoss()(leaf, target)
        close(value.double(), 1.0)
        assert not gradients(value, leaf)[0].any()


def test_empty_input(device):
    assert SpearmanLoss()(torch.zeros(0, 3), torch.zeros(0, 3)).item() == 0.0


@pytest.mark.parametrize(
    ("options", "kind"),
    [({"strength": 0.0}, ValueError), ({"regularization": "l1"}, ValueError),
     ({"reduction": "all"}, ValueError)], ids=str,
)  # fmt: skip
def test_options(options, kind):
    (name,) = options
    with pytest.raises(kind, match=f"^{name}: got .*expected"):
        SpearmanLoss(**options)


@pytest.mark.parametrize(
    ("x", "target", "kind", "message"),
    [
        (torch.ones(3, 4), torch.ones(4), ValueError, r"target: got shape \(4,\), expected x's"),
        (torch.ones(3), [1, 2, 3], TypeError, "target: got list, expected a tensor"),
        (torch.ones(3).long(), torch.ones(3), TypeError, "x: got dtype torch.int64, expected"),
        (torch.ones(3, 0), torch.ones(3, 0), ValueError, r"x: got shape \(3, 0\), expected"),
        (torch.tensor([1.0, torch.nan]), torch.ones(2), ValueError, "x: got NaN, expected numbers"),
    ],
)
def test_errors(x, target, kind, message):
    with pytest.raises(kind, match=f"^{message}"):
        SpearmanLoss()(x, target)
