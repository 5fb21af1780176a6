from math import exp, log

import pytest
import torch
from properties import E1, E2, close, every_check, tensor
from torch.nn.functional import normalize

from contrastloss import MultiSimilarityLoss
from contrastloss.functional import multi_similarity
from contrastloss.testing import Subject


@every_check
@pytest.mark.parametrize("options", [{}, {"alpha": 5.0, "beta": 3.0, "base": 0.1}], ids=str)
def test_properties(check, options, device, backend):
    check(Subject(MultiSimilarityLoss, options, device, backend, thorough=False))


def test_by_hand(device, backend):
    # rows 0 and 1: positive score 1, negative score 0; row 2: no positive, two negative scores 0
    z = tensor(E1, E1, E2, device=device)
    labels = torch.tensor([0, 0, 1], device=device)
    rows = multi_similarity(z, labels, alpha=2, beta=4, reduction="none", backend=backend)
    first = log(1 + exp(-2 * 0.5)) / 2 + log(1 + exp(4 * -0.5)) / 4
    close(rows, [first, first, log(1 + 2 * exp(4 * -0.5)) / 4])
    close(
        MultiSimilarityLoss(2, 4, base=0.0, backend=backend)(z, labels),
        (2 * (log(1 + exp(-2)) / 2 + log(2) / 4) + log(3) / 4) / 3,
    )


@pytest.mark.parametrize("options", [{}, {"alpha": 1.0, "beta": 10.0, "base": -0.2}], ids=str)
def test_matches_pytorch_metric_learning(options, device, backend):
    from pytorch_metric_learning import losses

    z, labels = Subject(MultiSimilarityLoss, device=device).inputs(n=30)
    labels[0] = 99  # without a positive
    close(
        MultiSimilarityLoss(**options, backend=backend)(z, labels),
        losses.MultiSimilarityLoss(**options)(z, labels),
    )


def test_errors(device):
    for name in ("alpha", "beta"):
        for bad in (0.0, -1.0, "2"):
            with pytest.raises((ValueError, TypeError), match=f"^{name}: got .*, expected"):
                MultiSimilarityLoss(**{name: bad})


def test_statistics(device, backend):
    z, labels = Subject(MultiSimilarityLoss, device=device).inputs(n=20)
    labels[0] = 99
    _, stats = MultiSimilarityLoss(return_stats=True, backend=backend)(z, labels)
    s = (normalize(z) @ normalize(z).mT).fill_diagonal_(-torch.inf)
    own = labels[:, None] == labels
    same = own.clone().fill_diagonal_(False)
    rows = same.any(1)  # the first row is not counted
    best, hardest = s.masked_fill(~same, -torch.inf).amax(1), s.masked_fill(own, -torch.inf).amax(1)
    assert same.sum(1).unique().numel() > 3
    close(stats["positive"], (torch.where(same, s, 0.0).sum(1) / same.sum(1))[rows].mean())
    close(stats["hardest_negative"], hardest[rows].mean())
    close(stats["lse"], s.logsumexp(1)[rows].mean())
    close(stats["accuracy"], (best > hardest).double()[rows].mean())
