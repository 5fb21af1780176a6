from math import e, log1p, sqrt

import pytest
import torch
from properties import close, every_check, gradients, tensor

from contrastloss import MILContrastiveLoss
from contrastloss.functional import mil_contrastive
from contrastloss.testing import CHECKS, Subject
from contrastloss.testing.compare import assert_same


class Bags(MILContrastiveLoss):
    """With ranks as scores, which need no gradient."""

    def forward(self, x, y, ranks_x, ranks_y, labels, lengths):
        return super().forward(x, y, ranks_x.double(), ranks_y.double(), labels, lengths)


def bags(n, d, generator):
    """Up to 6 snippets per bag; abnormal ones are similar in both modalities."""
    shared, *noise = torch.randn(3, n, 6, 3, generator=generator).double()
    ranks = [torch.rand(n, 6, generator=generator).argsort(1) for _ in range(2)]
    labels, lengths = torch.arange(n) % 3, torch.randint(0, 7, (n,), generator=generator)
    return [*(shared + v for v in noise), *ranks, labels, lengths]


CASE = Subject(Bags, {"temperature": 0.3, "divisor": 4}, thorough=False, make=bags)


@every_check
def test_properties(check, device):
    check(CASE.on(device))


def test_released(device):
    """Bags count as often as they have snippets, and without negative bags there is no loss."""
    options = {"temperature": 0.3, "divisor": 4}
    for given in (None, 0):
        CHECKS[0](Subject(Bags, {**options, "released": True}, device, make=bags))
        x, y, ranks_x, ranks_y, labels, lengths = CASE.on(device).inputs()
        labels = labels if given is None else labels.clamp_min(1)
        call = x, y, ranks_x.double(), ranks_y.double(), labels, lengths
        rows = mil_contrastive(*call, **options, reduction="none")
        count = torch.minimum(lengths // 4 + 1, lengths) * (labels != 0)
        want = (rows * count).sum() / count.sum() * (given is None)
        close(mil_contrastive(*call, **options, released=True), want)


def test_on_every_backend(device, backend):
    own = {"temperature": 0.5, "divisor": 1, "normalize": False, "loss_weight": 0.25}
    CHECKS[0](Subject(Bags, own, device, backend, make=bags))


def test_reductions(device):
    """The mean is over nonempty positive bags."""
    inputs = CASE.on(device).inputs()
    rows = CASE.loss(reduction="none")(*inputs)
    counted = (inputs[4] != 0) & (inputs[5] > 0)
    assert (rows[counted] > 0).all()
    assert not rows[~counted].any()
    assert_same(CASE.loss()(*inputs), rows.sum() / counted.sum(), "mean")
    assert_same(CASE.loss(reduction="sum")(*inputs), rows.sum(), "sum")


# two snippets per bag, one highest and one lowest; the third is padding
X = [[[1, 0], [0, 1], [9, 9]], [[0, -1], [1, 0], [9, 9]]]
Y = [[[0, 1], [1, 1], [9, 9]], [[-1, 0], [0, 1], [9, 9]]]


def test_by_hand(device, backend):
    x, y = tensor(*X, device=device), tensor(*Y, device=device)
    high, low = [2.0, 1.0, 5.0], [1.0, 2.0, -5.0]
    scores_x, scores_y = tensor(high, high, device=device), tensor(low, high, device=device)
    labels, lengths = torch.tensor([1, 0], device=device), torch.tensor([2, 2], device=device)
    # bag 0: x e1, lowest e2; y (1, 1), lowest e2. Bag 1: x -e2, lowest e1; y -e1, lowest e2
    own, r = sqrt(0.5), sqrt(0.5)
    background = log1p((1 + 1) * e**-own) + log1p((e**r + e**r) * e**-own)
    normal = log1p(e**-1 * e**-own) + log1p(e**-r * e**-own)
    given = x, y, scores_x, scores_y
    options = {"temperature": 1.0, "backend": backend}
    close(
        mil_contrastive(*given, labels, lengths, reduction="none", **options),
        [background + normal, 0.0],
    )
    close(mil_contrastive(*given, labels > 0, lengths, **options), background + normal)
    # the means of all snippets, (1, 1) / 2 and (1, 2) / 2; all snippets of both bags are negatives
    value = mil_contrastive(*(v[:1] for v in given), labels[:1], lengths[:1], divisor=1, **options)
    own = 3 / sqrt(10)
    to_y = log1p((e ** (1 / sqrt(2)) + e**1) * e**-own)
    to_x = log1p((e ** (1 / sqrt(5)) + e ** (2 / sqrt(5))) * e**-own)
    close(value, to_y + to_x)


def test_without_positive_bags_snippets_or_bags(device, backend):
    x = torch.randn(3, 4, 2, dtype=torch.float64, device=device, requires_grad=True)
    scores = torch.randn(3, 4, device=device, requires_grad=True)
    one, zero = (torch.full((3,), v, device=device) for v in (1, 0))
    for labels, lengths in ((zero, None), (one, zero)):
        value = mil_contrastive(x, x, scores, scores, labels, lengths, backend=backend)
        assert value.item() == 0.0
        assert not gradients(value, x)[0].any()
    value = mil_contrastive(x, x, scores, scores, one, backend=backend)
    assert gradients(value, x)[0].isfinite().all()
    none = x[:0]
    assert mil_contrastive(none, none, scores[:0], scores[:0], one[:0]).item() == 0.0


def test_longer_bags_than_the_lengths_dtype_counts(device):
    x, y = torch.randn(2, 2, 300, 3, device=device)
    scores, labels = torch.rand(2, 2, 300, device=device), torch.ones(2, dtype=torch.int64)
    lengths, labels = torch.tensor([200, 255], device=device), labels.to(device)
    want = mil_contrastive(x, y, *scores, labels, lengths)
    assert torch.equal(mil_contrastive(x, y, *scores, labels, lengths.to(torch.uint8)), want)


def test_errors(device):
    x, scores = torch.ones(3, 4, 2, device=device), torch.ones(3, 4, device=device)
    labels = torch.ones(3, dtype=torch.int64, device=device)
    with pytest.raises(ValueError, match=r"^x: got shape \(3, 4\), expected \(B, T, D\)"):
        mil_contrastive(scores, x, scores, scores, labels)
    with pytest.raises(ValueError, match=r"^y: got shape \(2, 4, 2\), expected x's \(3, 4, 2\)"):
        mil_contrastive(x, x[:2], scores, scores, labels)
    with pytest.raises(ValueError, match=r"^scores_y: got shape \(2, 4\), expected \(3, 4\)"):
        mil_contrastive(x, x, scores, scores[:2], labels)
    with pytest.raises(
        TypeError, match=r"^labels: got dtype torch.float32, expected an integer one"
    ):
        mil_contrastive(x, x, scores, scores, labels.float())
    with pytest.raises(ValueError, match=r"^lengths: got shape \(2,\), expected \(3,\)"):
        mil_contrastive(x, x, scores, scores, labels, labels[:2])
